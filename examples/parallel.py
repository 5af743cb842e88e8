"""Tasks side by side: three dispatches run on three threads, and the run takes as long as the slowest.

The result of a run holds the output of every task that dispatched nothing more.
A flow has 4 threads of its own; give it a ThreadPoolExecutor, or PoolExecutor(max_workers=...), for others.
"""

import time

from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="weather")
ONE_AFTER_ANOTHER = 1.4  # seconds, at least


@flow.task("ask all")
def ask_all(ctx):
    return TaskOutput("asked", [NextTask("wind"), NextTask("rain"), NextTask("sun")])


def slow_answer(answer):
    def ask(ctx):
        time.sleep(0.5)  # stands for a call over the network
        return answer

    return ask


flow.add_task("wind", slow_answer("4 m/s"))
flow.add_task("rain", slow_answer("none"))
flow.add_task("sun", slow_answer("8 h"))

if __name__ == "__main__":
    began = time.monotonic()
    print(flow.run("ask all"))
    print("side by side" if time.monotonic() - began < ONE_AFTER_ANOTHER else "one after another")
