"""A map-reduce over real files: which names does the Python standard library use most?

Shows a fan-out over some hundred files, a reducer that waits for all of them, a stream of progress, and a run that can be killed
at any instant: start the script again with the same run id, and it goes on where it was. `demo.py` does that, in full view.
"""

from __future__ import annotations

import keyword
import os
import sys
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

from liteflow import Flow, NextTask, TaskOutput

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "encodings", "pydoc_data", "__pycache__"}

flow = Flow(name="library-names")


@flow.task("list")
def list_files(ctx):
    files = sorted(str(p.relative_to(LIBRARY)) for p in LIBRARY.rglob("*.py") if LEFT_OUT.isdisjoint(p.parts))
    ctx.set("files", len(files))
    return TaskOutput(
        f"{len(files)} files", [*(NextTask("count", inputs=file, spawn_another=True) for file in files), NextTask("sum up")]
    )


@flow.task("count")
def count(ctx, inputs):
    if log := os.environ.get("DEMO_LOG"):  # the demo's evidence of what was executed, kept outside LiteFlow
        with Path(log).open("a", encoding="utf-8") as executed:
            executed.write(inputs + "\n")
    names: Counter[str] = Counter()
    with tokenize.open(LIBRARY / inputs) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                names[token.string] += 1
    ctx.stream(inputs)
    return dict(names.most_common(200))


@flow.task("sum up")
def sum_up(ctx):
    total: Counter[str] = Counter()
    for number in range(1, ctx.get("files") + 1):
        total.update(ctx.get("count" if number == 1 else f"count#{number}"))  # waits for each, and takes up no worker
    return {"names": total.total(), "most used": total.most_common(10)}


def main() -> None:
    done, files = 0, 0
    for chunk in flow.stream("list", run_id=sys.argv[1] if len(sys.argv) > 1 else None):
        if chunk.task_id == "list":
            files = int(chunk.value.split()[0])
        elif chunk.task_id == "count" and isinstance(chunk.value, str):  # its output is a dict
            done += 1
            print(f"{done}/{files} {chunk.value}", flush=True)
        elif chunk.task_id == "sum up":
            print(f"{chunk.value['names']} names in {files} files; most used:")
            for name, times in chunk.value["most used"]:
                print(f"{name:>12} {times:>7}")


if __name__ == "__main__":
    main()
