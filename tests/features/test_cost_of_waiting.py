"""What it costs to wait, counted, not timed: threads, and how often they wake up while nothing happens."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput
from liteflow.testing import FakeClock
from tests.features.children import output_of
from tests.features.waiting import SECONDS, Helper, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from liteflow import Run

WAITING, BLOCKED, PARTS, LENGTH = 300, 20, 1_000, 50
SPAN, LOOKS = 0.5, 10  # seconds between two looks, and how often to look until nothing has woken up in between

# ---------------------------------------------------------------- threads


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many threads of each kind were started since."""
    kinds: Counter[str] = Counter()
    start = threading.Thread.start

    def counting(thread: threading.Thread) -> None:
        kinds[re.sub(r"^liteflow-\d+$", "worker", thread.name)] += 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counting)
    return kinds


def add_waiting(flow: Flow, count: int, task_id: str) -> list[NextTask]:
    """Register `gate`, which waits for a signal, and what waits for it; return what is to be dispatched."""
    flow.add_task("gate", lambda ctx: ctx.get("go"))
    flow.add_task("blocked", lambda ctx: ctx.get("gate"))

    @flow.task("waiting")
    async def waiting(ctx: Context):
        return await ctx.aget("gate")

    return [NextTask("gate", wait_for=["go"]), *[NextTask(task_id, spawn_another=True)] * count]


def running(run: Run) -> int:
    return sum(record.status == "running" for record in run.tasks())


def run_with_waiting(store: str, task_id: str) -> dict[str, object]:
    """Have so many tasks of a kind wait on one worker, and go on."""
    with Flow(PoolExecutor(max_workers=1), store=store) as flow:
        parts = add_waiting(flow, WAITING, task_id)
        flow.add_task("start", lambda ctx: TaskOutput(None, parts))
        run = flow.start("start")
        until(lambda: running(run) == WAITING)
        run.context.set("go", 1)
        return run.result(SECONDS)


def test_a_chain_keeps_one_worker_whatever_it_may_have(store: str, started: Counter[str]):
    with Flow(PoolExecutor(max_workers=4), store=store, clock=FakeClock()) as flow:

        @flow.task("link")
        def link(ctx: Context, inputs: int):
            return TaskOutput(inputs, [NextTask("link", inputs + 1)] if inputs < LENGTH else [])

        flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("link", 1)]))
        flow.run("start")

    assert started == {"worker": 1, "liteflow-ticker": 1}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_fan_out_starts_no_more_threads_than_it_has_workers(store: str, started: Counter[str], workers: int):
    with Flow(PoolExecutor(max_workers=workers), store=store) as flow:
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True)] * PARTS))
        flow.add_task("part", lambda ctx: None)
        flow.run("fan")

    assert 1 <= started.pop("worker") <= workers
    assert started == {"liteflow-ticker": 1}


def test_a_get_that_blocks_takes_one_thread(store: str, started: Counter[str]):
    assert len(run_with_waiting(store, "blocked")) == WAITING + 1

    assert WAITING <= started.pop("worker") <= WAITING + 1
    assert started == {"liteflow-ticker": 1}


def test_a_coroutine_that_waits_takes_none(store: str, started: Counter[str]):
    assert len(run_with_waiting(store, "waiting")) == WAITING + 1

    assert started == {"worker": 1, "liteflow-ticker": 1, "liteflow-loop": 1}


# ---------------------------------------------------------------- wake-ups

TASKS = Path("/proc/self/task")  # a folder a thread, by its native id
needs_proc = pytest.mark.skipif(not TASKS.exists(), reason="only Linux counts how often a thread has woken up")


def switches() -> dict[str, int]:
    """Return how often each thread but this one has waited so far."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for task in TASKS.iterdir():
        with suppress(OSError):  # it has ended
            status = (task / "status").read_text(encoding="utf-8")
            count = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
            found[f"{names.get(int(task.name))} {task.name}"] = int(count[1])
    return {thread: count for thread, count in found.items() if not thread.endswith(f" {threading.get_native_id()}")}


def wake_ups(looks: int = LOOKS) -> dict[str, int]:
    """Return which threads wake up within the `SPAN`, and how often: none once all has come to rest, else those last seen."""
    woken: dict[str, int] = {}
    for _ in range(looks):
        before = switches()
        threading.Event().wait(SPAN)
        woken = {thread: count - before.get(thread, 0) for thread, count in switches().items()}
        woken = {thread: count for thread, count in woken.items() if count}
        if not woken:
            break
    return woken


def wake_ups_until(run: Run, ready: Callable[[], object]) -> dict[str, int]:
    """Look, on another thread, while this one waits for the result; then let the run end."""

    def look() -> dict[str, int]:
        try:
            until(ready)
            return wake_ups()
        finally:
            run.context.set("go", 1)

    helper = Helper(look)
    run.result()
    return helper.result()


def no_run_at_all(flow: Flow) -> dict[str, int]:
    flow.context.set("a", 1)
    return Helper(wake_ups).result()


def a_run_that_has_ended(flow: Flow) -> dict[str, int]:
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True)] * 50))
    flow.add_task("part", lambda ctx: None)
    flow.run("fan")
    return Helper(wake_ups).result()


def a_run_that_waits_for_a_key(flow: Flow) -> dict[str, int]:
    gate = add_waiting(flow, 0, "waiting")
    flow.add_task("start", lambda ctx: TaskOutput(None, gate))
    run = flow.start("start")
    return wake_ups_until(run, lambda: run.status == "waiting")


def coroutines_and_blocked_gets(flow: Flow) -> dict[str, int]:
    parts = add_waiting(flow, WAITING, "waiting") + add_waiting(flow, BLOCKED, "blocked")[1:]
    flow.add_task("start", lambda ctx: TaskOutput(None, parts))
    run = flow.start("start")
    return wake_ups_until(run, lambda: running(run) == WAITING + BLOCKED)


def a_thread_that_polls(flow: Flow) -> dict[str, int]:
    polls, ends = threading.Event(), threading.Event()
    poller = Helper(lambda: until(lambda: polls.set() or ends.is_set()))
    polls.wait(SECONDS)
    try:
        return Helper(lambda: wake_ups(looks=1)).result()
    finally:
        ends.set()
        poller.result()


QUIET = [no_run_at_all, a_run_that_has_ended, a_run_that_waits_for_a_key, coroutines_and_blocked_gets]


def main(situation: str, store: str) -> None:
    """Print the wake-ups in a situation: in a process of its own, where no other threads are."""
    with Flow(store=store) as flow:
        print(json.dumps(globals()[situation](flow)))  # noqa: T201 - read by the test


def wake_ups_in(situation: Callable[[Flow], dict[str, int]], store: str) -> dict[str, int]:
    script = "import sys; from tests.features.test_cost_of_waiting import main; main(*sys.argv[1:])"
    (line,) = output_of(script, situation.__name__, store)
    return json.loads(line)


@needs_proc
@pytest.mark.parametrize("situation", QUIET)
def test_no_thread_wakes_up_while_there_is_nothing_to_do(situation: Callable[[Flow], dict[str, int]], store: str):
    assert wake_ups_in(situation, store) == {}


@needs_proc
def test_the_count_of_wake_ups_sees_a_thread_that_polls(store: str):
    assert sum(wake_ups_in(a_thread_that_polls, store).values()) > 5
