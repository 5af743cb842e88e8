"""Works that are measured in company: of another process, of tasks that wait, of other runs, of threads that leave no time."""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from works import Result

FOLLOWER = Path(__file__).with_name("follower.py")
ASYNC_TASKS, BLOCKED_TASKS = 1_000, 100
SETTLE_SECONDS = 2.0
RUNS, ROUNDS = 4, 3
SHORT = 20  # tasks of a chain that is not timed


def stream_elsewhere(flow: Flow, size: int) -> Result:
    """One task streams many chunks to a consumer in another process, which reads them from the store ``LITEFLOW_STORE``."""
    go = threading.Event()
    began: list[float] = []

    @flow.task("talk")
    def talk(ctx: Context) -> None:
        go.wait()
        began.append(time.monotonic())
        for n in range(size):
            ctx.stream(n)

    flow.task("start")(lambda ctx: TaskOutput(None, [NextTask("talk")]))  # its output is what the consumer is shown first
    run = flow.start("start")
    command = [sys.executable, str(FOLLOWER), run.id, "talk", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:  # noqa: S603 - a script of this folder
        assert consumer.stdout is not None
        line = consumer.stdout.readline()
        time.sleep(random.uniform(0, 0.1))  # noqa: S311 - or every first chunk would come right after a look of the consumer
        go.set()
        run.result()
        assert line == "following\n"
        first, last = json.loads(consumer.stdout.read())
    return {"us": (last - began[0]) / size * 1e6, "first_ms": (first - began[0]) * 1e3}


def idle(flow: Flow, size: int) -> Result:
    """What the process takes of a core over *size* seconds in which many tasks wait, on the event loop and blocked."""
    gate: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    waiting: list[None] = []

    @flow.task("gate")
    async def open_late(ctx: Context) -> int:
        gate.append((asyncio.get_running_loop(), asyncio.Event()))
        await gate[0][1].wait()
        return 1

    @flow.task("awaits")
    async def awaits(ctx: Context) -> Any:
        waiting.append(None)
        return await ctx.aget("gate")

    @flow.task("blocks")
    def blocks(ctx: Context) -> Any:
        waiting.append(None)
        return ctx.get("gate")

    parts = ["gate", *["awaits"] * ASYNC_TASKS, *["blocks"] * BLOCKED_TASKS]
    flow.task("start")(lambda ctx: TaskOutput(None, [NextTask(part, spawn_another=True) for part in parts]))
    run = flow.start("start")
    while len(waiting) < ASYNC_TASKS + BLOCKED_TASKS:
        assert run.wait(SETTLE_SECONDS) == "running"
    run.wait(SETTLE_SECONDS)  # until it is recorded that they wait
    wall, cpu = time.perf_counter(), time.process_time()
    run.wait(size)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    loop, opens = gate[0]
    loop.call_soon_threadsafe(opens.set)
    assert sum(run.result().values()) == len(parts)
    return {"percent": cpu / wall * 100}


def beside_busy(flow: Flow, size: int) -> Result:
    """The chain, task by task; *--threads* says beside how many busy threads."""
    _register_chain(flow, SHORT, [])
    flow.run("start")
    began: list[float] = []
    _register_chain(flow, size, began)
    flow.run("start")
    steps = sorted((after - before) * 1e6 for before, after in pairwise(began))
    p95 = steps[math.ceil(len(steps) * 0.95) - 1]
    return {"mean_us": statistics.mean(steps), "p95_us": p95, "worst_us": steps[-1], "statements": _statements_a_commit()}


@contextmanager
def busy(threads: int) -> Iterator[None]:
    """Keep so many threads computing meanwhile."""
    over = threading.Event()

    def spin() -> None:
        total = 0
        while not over.is_set():
            for n in range(1_000):
                total += n * n

    spinning = [threading.Thread(target=spin) for _ in range(threads)]
    for thread in spinning:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in spinning:
            thread.join()


def runs_together(flow: Flow, size: int) -> Result:
    """Several runs of the chain at once against one."""
    _register_chain(flow, SHORT, [])
    _ends(flow, RUNS)
    _register_chain(flow, size, [])
    ratios, shares = [], []
    for _ in range(ROUNDS):
        alone, together = _ends(flow, 1), _ends(flow, RUNS)
        ratios.append(alone[0] * RUNS / max(together))
        shares.append(min(together) / max(together))
    return {"ratio": statistics.median(ratios), "slowest_share": statistics.median(shares)}


def _ends(flow: Flow, runs: int) -> list[float]:
    """Start so many runs, each in a context of its own; return how many seconds later each has ended."""

    def ended(run: Any) -> float:
        run.result()
        return time.perf_counter() - began

    with ThreadPoolExecutor(runs) as waiters:
        began = time.perf_counter()
        return list(waiters.map(ended, [flow.start("start") for _ in range(runs)]))


def _register_chain(flow: Flow, size: int, began: list[float]) -> None:
    """Register a chain of *size* links, each of which notes when it began."""

    @flow.task("link")
    def link(ctx: Context, inputs: int) -> TaskOutput:
        began.append(time.perf_counter())
        return TaskOutput(inputs, [NextTask("link", inputs + 1)] if inputs < size else [])

    flow.task("start")(lambda ctx: TaskOutput(0, [NextTask("link", 1)]))


def _statements_a_commit() -> float:
    """Return how many statements the commit of a link takes, BEGIN and COMMIT among them, as SQLite counts them."""
    commits: list[int] = []
    listen = event.listens_for(Engine, "connect")

    @listen
    def trace(connection: Any, _record: object) -> None:
        counted = 0

        def count(text: str) -> None:
            nonlocal counted
            counted = 1 if text.startswith("BEGIN IMMEDIATE") else counted + 1
            if text == "COMMIT":
                commits.append(counted)

        connection.set_trace_callback(count)

    try:
        with tempfile.TemporaryDirectory() as folder, Flow(PoolExecutor(), store=f"sqlite:///{folder}/traced.db") as flow:
            _register_chain(flow, SHORT, [])
            flow.run("start")
    finally:
        event.remove(Engine, "connect", trace)
    return statistics.median(commits)
