"""What is measured: each work as a LiteFlow flow, and how it is timed; ``python works.py WORK SIZE`` prints a line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from company import beside_busy, busy, idle, runs_together, stream_elsewhere

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput
from liteflow.codec import text as codec_text

if TYPE_CHECKING:
    from collections.abc import Callable

Result = dict[str, float]
FEW_KEYS, SETS, LINKS, ROUNDS = 10, 100, 20, 5


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
    count = 1

    @flow.task("start")
    def start(ctx: Context) -> None:
        for n in range(count):
            ctx.set(f"key {n}", n)

    flow.run("start")  # as in `chain`
    count = size
    return {"us": _seconds(lambda: flow.run("start")) / size * 1e6}


def stream(flow: Flow, size: int) -> Result:
    """One task streams many chunks to a consumer in the same process."""
    began, count = 0.0, 1

    @flow.task("start")
    def start(ctx: Context) -> None:
        nonlocal began
        began = time.perf_counter()
        for n in range(count):
            ctx.stream(n)

    list(flow.stream("start"))  # as in `chain`
    came, first, count = 0, None, size
    started = time.perf_counter()
    for _ in flow.stream("start"):
        first = first or time.perf_counter()
        came += 1
    seconds = time.perf_counter() - started
    assert came == size + 1
    assert first is not None
    return {"us": seconds / size * 1e6, "first_ms": (first - began) * 1e3}


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
    """What a task costs at the end of a long chain, against one of a short chain in a store of its own, turn by turn."""
    part = 500  # tasks, so that both are measured at about the same time: how fast the machine is changes
    turns = range(size - 10 * part, size, part)
    steps: dict[str, list[float]] = {"long": [], "short": []}
    last: dict[str, float] = {}

    def add_chain(to: Flow, name: str, length: int) -> None:
        @to.task("link")
        def link(ctx: Context, inputs: int) -> TaskOutput:
            if inputs % part and (name == "short" or inputs > turns[0]):
                steps[name].append(time.perf_counter() - last[name])
            elif name == "long" and inputs in turns:
                short.run("start", context=Context())
            last[name] = time.perf_counter()
            return TaskOutput(None, [NextTask("link", inputs + 1)] if inputs < length else [])

        to.task("start")(lambda ctx: TaskOutput(0, [NextTask("link", 1)]))

    add_chain(flow, "long", size)
    with tempfile.TemporaryDirectory() as folder, Flow(store=f"sqlite:///{folder}/short.db") as short:
        add_chain(short, "short", part)
        last["short"] = time.perf_counter()
        flow.run("start")
    late, early = (statistics.median(steps[name]) for name in ("long", "short"))
    return {"us_early": early * 1e6, "us_late": late * 1e6, "ratio": late / early}


def many_keys(flow: Flow, size: int) -> Result:
    """Gets, first gets of a run, and sets with their share of a commit, in a context of many keys against one of few."""
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    set_at = 0.0

    @flow.task("link")
    def link(ctx: Context, inputs: list[int]) -> TaskOutput:
        nonlocal set_at
        began = time.perf_counter()
        number, count = inputs
        names = [f"key {n}" for n in range(0, count, count // FEW_KEYS)][:FEW_KEYS]
        if number:
            times["set", count].append((began - set_at) / SETS)
        got = _seconds(lambda: [ctx.get(name) for name in names])
        times["get" if number else "first_get", count].append(got / FEW_KEYS)
        set_at = time.perf_counter()
        for name in names * (SETS // FEW_KEYS):
            ctx.set(name, number)
        return TaskOutput(None, [NextTask("link", [number + 1, count])] if number < LINKS else [])

    flow.task("start")(lambda ctx, inputs: TaskOutput(None, [NextTask("link", [0, inputs["count"]])]))
    for count in [FEW_KEYS, size] * ROUNDS:
        context = Context()
        context.from_dict({f"key {n}": n for n in range(count)})
        flow.run("start", {"count": count}, context=context)
    readings: Result = {}
    for name in ("get", "first_get", "set"):
        few, many = (statistics.median(times[name, count]) for count in (FEW_KEYS, size))
        readings |= {f"{name}_ratio": many / few, f"{name}_few_us": few * 1e6, f"{name}_us": many * 1e6}
    return readings


def large_value(flow: Flow, size: int) -> Result:
    """One large value is set, and read by its task, the next one and the caller; how often it is made text."""
    value = ["x" * 1_000] * max(1, size // 1_000)
    encodes, plain = 0, codec_text.dump

    def counted(tree: object) -> bytes:
        nonlocal encodes
        raw = plain(tree)
        encodes += len(raw) >= size
        return raw

    @flow.task("start")
    def start(ctx: Context) -> TaskOutput:
        ctx.set("large", value)
        return TaskOutput(len(ctx.get("large")), [NextTask("read")])

    flow.task("read")(lambda ctx: len(ctx.get("large")))
    codec_text.dump = counted
    seconds = _seconds(lambda: flow.run("start"))
    codec_text.dump = plain
    assert flow.context.get("large") == value
    return {"encodes": encodes, "ms": seconds * 1e3}


def imports(flow: Flow, size: int) -> Result:
    """How long a process takes for ``import liteflow`` beyond doing nothing, and for ``liteflow --help`` in all."""
    python = sys.executable
    commands = ([python, "-c", "pass"], [python, "-c", "import liteflow"], [str(Path(python).with_name("liteflow")), "--help"])
    times = [[_seconds(partial(_run, command)) for command in commands] for _ in range(size + 1)]  # the first fills the caches
    nothing, imported, helped = (statistics.median(column) * 1e3 for column in zip(*times[1:], strict=True))
    return {"import_ms": imported - nothing, "help_ms": helped}


WORKS: dict[str, Callable[[Flow, int], Result]] = {
    work.__name__: work
    for work in (
        chain, fan_out, keys, stream, stream_elsewhere, start, resume, memory, growth, idle, beside_busy, runs_together, imports,
        many_keys, large_value,
    )
}  # fmt: skip


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words


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
    parser.add_argument("--threads", type=int, default=0, help="how many busy threads run beside it")
    parser.add_argument("--folder", help="where the store is put; by default a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.environ["LITEFLOW_STORE"] = f"sqlite:///{folder}/bench.db"  # for other processes, too
        with Flow(PoolExecutor(max_workers=4), durability=args.durability) as flow:
            flow.context.set("warm", 1)  # opens the store
            with busy(args.threads):
                readings = WORKS[args.work](flow, args.size)
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
