"""What is measured: each work as a LiteFlow flow, and how it is timed; ``python works.py WORK SIZE`` prints a line of JSON."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput

if TYPE_CHECKING:
    from collections.abc import Callable

Result = dict[str, float]


def chain(flow: Flow, size: int) -> Result:
    """One task after the other; each does nothing but dispatch the next."""
    last = 10

    @flow.task("link")
    def link(ctx: Context, inputs: int) -> TaskOutput:
        return TaskOutput(inputs, [NextTask("link", inputs + 1)] if inputs < last else [])

    flow.task("start")(lambda ctx: TaskOutput(0, [NextTask("link", 1)]))
    flow.run("start")  # what is imported and worked out once is not measured
    last = size
    return {"us": _seconds(lambda: flow.run("start")) / size * 1e6}


def fan_out(flow: Flow, size: int) -> Result:
    """One task dispatches many, and gathers what they put out."""
    flow.task("start")(
        lambda ctx: TaskOutput(None, [*(NextTask("part", n, spawn_another=True) for n in range(size)), NextTask("sum")])
    )
    flow.task("part")(lambda ctx: 1)
    flow.task("sum")(lambda ctx: sum(ctx.gather("part")))
    result: list[dict[str, Any]] = []
    seconds = _seconds(lambda: result.append(flow.run("start")))
    assert result[0]["sum"] == size
    return {"us": seconds / size * 1e6}


def keys(flow: Flow, size: int) -> Result:
    """One task sets many keys."""

    @flow.task("start")
    def start(ctx: Context) -> None:
        for n in range(size):
            ctx.set(f"key {n}", n)

    return {"us": _seconds(lambda: flow.run("start")) / size * 1e6}


def stream(flow: Flow, size: int) -> Result:
    """One task streams many chunks to a consumer in the same process."""
    began: list[float] = []

    @flow.task("start")
    def start(ctx: Context) -> None:
        began.append(time.perf_counter())
        for n in range(size):
            ctx.stream(n)

    came = 0
    first = None
    started = time.perf_counter()
    for _ in flow.stream("start"):
        first = first or time.perf_counter()
        came += 1
    seconds = time.perf_counter() - started
    assert came == size + 1
    assert first is not None
    return {"us": seconds / size * 1e6, "first_ms": (first - began[0]) * 1e3}


def start(flow: Flow, size: int) -> Result:
    """Runs of one task, one after the other, each in a context of its own."""
    flow.task("start")(lambda ctx: 1)
    flow.run("start", context=Context())
    times = [_seconds(lambda: flow.run("start", context=Context())) for _ in range(size)]
    return {"us": statistics.median(times) * 1e6}


def resume(flow: Flow, size: int) -> Result:
    """A run with many completed tasks is taken up; until its next task starts."""
    at_last = threading.Event()
    began: list[float] = []

    @flow.task("last")
    def last(ctx: Context) -> None:
        began.append(time.perf_counter())
        if not at_last.is_set():
            at_last.set()
            raise OSError

    parts = [NextTask("part", n, spawn_another=True) for n in range(size)]
    flow.task("start")(lambda ctx: TaskOutput(None, parts, join=NextTask("last")))
    flow.task("part")(lambda ctx: 1)
    run = flow.start("start")
    assert run.wait() == "failed"
    started = time.perf_counter()
    flow.resume(run.id).result()
    return {"ms": (began[1] - started) * 1e3}


def memory(flow: Flow, size: int) -> Result:
    """What a finished task of a long chain leaves behind in memory, over its second half."""
    marks: dict[int, float] = {}

    @flow.task("link")
    def link(ctx: Context, inputs: int) -> TaskOutput:
        if inputs in (size // 2, size):
            marks[inputs] = _resident()
        return TaskOutput(None, [NextTask("link", inputs + 1)] if inputs < size else [])

    flow.task("start")(lambda ctx: TaskOutput(0, [NextTask("link", 1)]))
    flow.run("start")
    return {"bytes": (marks[size] - marks[size // 2]) / (size - size // 2)}


def growth(flow: Flow, size: int) -> Result:
    """What a task costs at the end of a chain, against one of its first thousand."""
    times: dict[int, float] = {}

    @flow.task("link")
    def link(ctx: Context, inputs: int) -> TaskOutput:
        times[inputs] = time.perf_counter()
        return TaskOutput(None, [NextTask("link", inputs + 1)] if inputs < size else [])

    flow.task("start")(lambda ctx: TaskOutput(0, [NextTask("link", 1)]))
    flow.run("start")
    steps = [times[n + 1] - times[n] for n in range(1, size)]
    early, late = statistics.median(steps[200:1200]), statistics.median(steps[-1000:])
    return {"us_early": early * 1e6, "us_late": late * 1e6, "ratio": late / early}


WORKS: dict[str, Callable[[Flow, int], Result]] = {
    work.__name__: work for work in (chain, fan_out, keys, stream, start, resume, memory, growth)
}


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure one work, once, on a file of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("size", type=int)
    parser.add_argument("--durability", default="ack")
    parser.add_argument("--folder", help="where the store is put; by default a temporary folder")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        Flow(PoolExecutor(max_workers=4), store=f"sqlite:///{folder}/bench.db", durability=args.durability) as flow,
    ):
        flow.context.set("warm", 1)  # opens the store
        print(json.dumps(WORKS[args.work](flow, args.size)))


if __name__ == "__main__":
    main()
