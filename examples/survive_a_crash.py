"""Survive a crash: the process dies in the middle of a run, and the next one goes on where it was.

The script starts itself as a worker that is killed (kill -9) by its own third task, then again as one that is not.
The tasks that had returned do not run again; `run_id` is all that the second start needs to know.
"""

import os
import signal
import subprocess
import sys

from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="assembly")
PARTS = ["frame", "wheels", "saddle", "bell"]


@flow.task()
def mount(ctx, inputs):
    part = inputs or PARTS[0]
    print(f"  mounting the {part}", flush=True)
    if part == "saddle" and "--dies" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    ctx.set("bicycle", [*ctx.get("bicycle", []), part])
    following = PARTS[PARTS.index(part) + 1 :]
    return TaskOutput(ctx.get("bicycle"), [NextTask("mount", inputs=following[0])] if following else None)


def work():
    print("  result:", flow.run("mount", run_id=sys.argv[1])["mount"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work()
    else:
        run_id = f"bicycle-{os.getpid()}"
        print("first process:")
        died = subprocess.run([sys.executable, __file__, run_id, "--dies"], check=False)
        print(f"killed by signal {-died.returncode}; second process:", flush=True)
        subprocess.run([sys.executable, __file__, run_id], check=True)
