"""Follows a run from a process of its own: ``python follower.py RUN_ID TASK COUNT``; the store is ``LITEFLOW_STORE``.

Prints a line once it follows, which it knows by the first chunk that it is shown, and at the end a line of JSON: when it saw the
first and the last of *COUNT* chunks of *TASK*, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time

from liteflow import Flow


def main() -> None:
    """Follow to the end."""
    run_id, task_id, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seen: list[float] = []
    with Flow() as flow:
        chunks = flow.get_run(run_id).stream()
        next(chunks)
        print("following", flush=True)
        seen.extend(time.monotonic() for chunk in chunks if chunk.task_id == task_id)
    assert len(seen) == count + 1  # the task's output is a chunk, too
    print(json.dumps([seen[0], seen[count - 1]]))


if __name__ == "__main__":
    main()
