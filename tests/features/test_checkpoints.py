"""A checkpoint commits what an attempt did so far: it is kept whatever follows, and what follows is a new transaction (R1)."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, RetryPolicy, StreamChunk, TaskFailedError, TaskOutput
from liteflow.errors import AwaitNeededError, ConflictError
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.test_durability import FULL, watch
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OPEN = "SELECT 1 FROM writes, chunks WHERE writes.status = 'open' AND chunks.status = 'open'"
AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)


def values(chunks: Iterable[StreamChunk]) -> list[object]:
    return [chunk.value for chunk in chunks]


def counting(then: Callable[[Context, int], object], to: int = 6) -> Callable[[Context], object]:
    """A body that looks how far it came, and checkpoints each number; *then* is called before each checkpoint."""

    def count(ctx: Context):
        for n in range(ctx.get("n", 0), to):
            ctx.stream(n)
            ctx.set("n", n + 1)
            then(ctx, n)
            ctx.checkpoint()
        return ctx.attempt

    return count


def fails_at(number: int) -> Callable[[Context, int], object]:
    def fail(ctx: Context, n: int) -> None:
        if n == number and ctx.attempt == 1:
            raise ConnectionError("no luck")

    return fail


def has_counted_once(flow: Flow, run_id: str, attempts: list[int]) -> None:
    """Assert that each number was put out once, in either view, and by which attempt; the last is that of the output."""
    run = flow.get_run(run_id)
    said = list(zip([*range(6), attempts[-1]], attempts, strict=True))
    for view in ("live", "final"):
        assert [(chunk.value, chunk.attempt) for chunk in run.stream(view=view)] == said
    assert [(version.value - 1, version.attempt) for version in run.context.history("n")] == said[:-1]


# ---------------------------------------------------------------- kept


@pytest.mark.parametrize("retry", [AT_ONCE, None], ids=["tried again", "resumed"])
def test_what_was_checkpointed_is_kept_across_a_failure_and_what_followed_is_lost(flow: Flow, store: str, retry):
    flow.add_task("count", counting(fails_at(3)), retry=retry)
    run = flow.start("count")
    if retry is None:
        assert run.wait(20) == "failed"
        assert run.context.to_dict() == {"n": 3}
        assert values(run.stream()) == values(run.stream(view="final")) == [0, 1, 2]
        run = flow.resume(run.id)

    assert run.result(20) == {"count": 2}

    has_counted_once(flow, run.id, [1, 1, 1, 2, 2, 2, 2])
    assert rows(store, "SELECT key, value FROM writes WHERE status = 'lost'") == [("n", "4")]
    assert rows(store, "SELECT value FROM chunks WHERE status = 'lost'") == [("3",)]
    assert rows(store, "SELECT attempt, status FROM attempts") == [(1, "failed")]


def test_what_was_checkpointed_is_kept_across_a_timeout(store: str):
    clock, began, go_on = FakeClock(), threading.Event(), threading.Event()

    def hang(ctx: Context, n: int) -> None:
        if n == 3 and ctx.attempt == 1:
            began.set()
            passes(go_on)

    with Flow(store=store, clock=clock) as flow:
        flow.add_task("count", counting(hang), timeout=10, retry=AT_ONCE)
        run = flow.start("count")
        passes(began)
        clock.advance(10)

        assert run.result(20) == {"count": 2}
        go_on.set()
        has_counted_once(flow, run.id, [1, 1, 1, 2, 2, 2, 2])


KILLED = """
import sys, threading
from liteflow import Flow

flow = Flow(store=sys.argv[1])

@flow.task("count")
def count(ctx):
    for n in range(4):
        ctx.stream(n)
        ctx.set("n", n + 1)
        if n < 3:
            ctx.checkpoint()
    print("began")
    threading.Event().wait()

flow.run("count", run_id="r")
"""


@pytest.mark.parametrize("recorded", ["SELECT 1", OPEN], ids=["at once", "when what followed is recorded as open"])
def test_what_was_checkpointed_is_kept_across_a_crash(flow: Flow, store: str, recorded: str):
    child = Child(KILLED, store)
    assert child.line() == "began"
    until(lambda: rows(store, recorded))
    child.kill()
    flow.add_task("count", counting(lambda ctx, n: None))

    assert flow.resume("r").result(20) == {"count": 2}

    has_counted_once(flow, "r", [1, 1, 1, 2, 2, 2, 2])
    assert rows(store, "SELECT attempt, status FROM attempts") == [(1, "lost")]


def test_a_checkpoint_is_on_the_disk_before_it_returns(flow: Flow, store: str, monkeypatch: pytest.MonkeyPatch):
    commits, seen = [], []

    @flow.task("write")
    def write(ctx: Context):
        for n in range(2):
            ctx.set("n", n)
            commits.clear()
            ctx.checkpoint()
            seen.append((commits[-1], one(store, "SELECT max(value) FROM writes WHERE status = 'committed'")))

    watch(flow, commits, monkeypatch)
    flow.run("write")

    assert seen == [(FULL, "0"), (FULL, "1")]


def test_a_checkpoint_of_very_many_writes_and_one_of_none_are_checkpoints_too(flow: Flow, store: str):
    @flow.task("write", retry=AT_ONCE)
    def write(ctx: Context):
        if ctx.attempt == 1:
            for n in range(2_500):  # more than are recorded at once
                ctx.set("n", n)
            ctx.delete("n")
            ctx.set("m", 1)
            ctx.checkpoint()
            ctx.checkpoint()
            raise ConnectionError("no luck")
        return ctx.to_dict()

    assert flow.run("write")["write"] == {"m": 1}
    assert len(flow.context.history("n")) == 2_501
    assert rows(store, "SELECT 1 FROM writes WHERE status != 'committed'") == []


# ---------------------------------------------------------------- who sees it


def test_what_was_checkpointed_is_seen_at_once_by_tasks_and_observers(flow: Flow, store: str):
    seen, checkpointed, go_on = [], threading.Event(), threading.Event()

    @flow.task("write")
    def write(ctx: Context):
        ctx.from_dict({"a": 1, "b": 1})
        ctx.stream("kept")
        ctx.checkpoint()
        ctx.set("b", 2)
        ctx.stream("open")
        checkpointed.set()
        passes(go_on)

    @flow.task("look")
    def look(ctx: Context):
        passes(checkpointed)
        seen.append([ctx.get("a"), ctx.get("b")])

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("write"), NextTask("look")]))
    run = flow.start("start")
    until(lambda: seen)
    with Flow(store=store) as elsewhere:
        afar = elsewhere.get_run(run.id)
        versions = [version.value for key in "ab" for version in afar.context.history(key)]
        final = values(itertools.islice(afar.stream(view="final"), 2))
    go_on.set()
    run.result(20)

    assert seen == [[1, 1]]
    assert (versions, final) == ([1, 1], [None, "kept"])


def test_a_checkpoint_starts_what_waits_for_a_key_that_it_holds(flow: Flow):
    shipped = threading.Event()

    @flow.task("approve")
    def approve(ctx: Context):
        ctx.set("approval", "yes")
        ctx.checkpoint()
        passes(shipped)

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("ship", wait_for=["approval"]), NextTask("approve")]))
    flow.add_task("ship", lambda ctx: shipped.set() or ctx.get("approval"))

    assert flow.run("start") == {"approve": None, "ship": "yes"}


# ---------------------------------------------------------------- what others change meanwhile


def test_a_conflict_at_a_checkpoint_runs_the_body_again_from_its_start_and_is_no_failure(flow: Flow, store: str):
    read, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)

    @flow.task("double")
    def double(ctx: Context):
        n = ctx.get("n")
        ctx.stream(n)
        read.set()
        passes(written)
        ctx.set("n", 2 * n)
        if ctx.attempt == 1:
            with pytest.raises(ConflictError, match="Task double had read what others have changed"):
                ctx.checkpoint()
        return ctx.attempt  # of an attempt in conflict this is nothing any more

    run = flow.start("double", context=flow.context)
    passes(read)
    flow.context.set("n", 10)
    written.set()

    assert run.result(20) == {"double": 2}
    assert run.context.get("n") == 20
    assert values(run.stream(view="final")) == values(run.stream()) == [10, 2]
    assert rows(store, "SELECT attempt, status FROM attempts") == [(1, "conflicted")]
    assert one(store, "SELECT failures FROM tasks") == 0


def test_many_tasks_that_checkpoint_changes_of_one_key_lose_none(flow: Flow):
    def add(ctx: Context):
        for turn in range(ctx.get(f"turn {ctx.key}", 0), 5):
            ctx.from_dict({"n": ctx.get("n", 0) + 1, f"turn {ctx.key}": turn + 1})
            ctx.checkpoint()

    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("add", spawn_another=True) for _ in range(6)]))
    flow.add_task("add", add)

    flow.run("fan")

    assert flow.context.get("n") == 30


def test_reads_after_a_checkpoint_are_fresh_and_conflict_with_later_changes_only(flow: Flow):
    flow.context.set("n", 1)

    @flow.task("add")
    def add(ctx: Context):
        seen = [ctx.get("n")]
        ctx.checkpoint()
        flow.context.set("n", 10)  # from outside
        seen.append(ctx.get("n"))
        ctx.set("n", seen[-1] + 1)
        return [*seen, ctx.attempt]

    assert flow.run("add") == {"add": [1, 10, 1]}
    assert flow.context.get("n") == 11


@pytest.mark.parametrize("writes", [0, 1_500], ids=["at once", "when it is recorded as open"])
def test_an_update_before_a_checkpoint_is_applied_to_the_fresh_value(flow: Flow, writes: int):
    calls = []
    flow.context.set("n", 1)

    @flow.task("add")
    def add(ctx: Context):
        ctx.update("n", lambda n: calls.append(n) or n + 1)
        for m in range(writes):
            ctx.set("m", m)
        flow.context.set("n", 10)  # from outside
        ctx.checkpoint()
        return [ctx.get("n"), ctx.attempt]

    assert flow.run("add") == {"add": [11, 1]}
    assert calls == [1, 10]
    assert flow.context.get("n") == 11


def test_an_update_that_fails_on_the_fresh_value_is_told_by_the_checkpoint_and_the_next_one_may_succeed(flow: Flow):
    flow.context.set("n", 1)

    @flow.task("invert")
    def invert(ctx: Context):
        ctx.update("n", lambda n: 10 // n)
        flow.context.set("n", 0)  # from outside
        with pytest.raises(ZeroDivisionError):
            ctx.checkpoint()
        flow.context.set("n", 5)
        ctx.checkpoint()
        return [ctx.get("n"), ctx.attempt]

    assert flow.run("invert") == {"invert": [2, 1]}


@pytest.mark.parametrize(("changed", "turns"), [("read before", 2), ("read after", 2), ("not read", 1), ("only its own", 1)])
def test_a_merged_dispatch_is_run_once_more_if_what_was_read_before_a_checkpoint_has_changed_since(
    flow: Flow, store: str, changed: str, turns: int
):
    read, bodies = threading.Event(), []
    flow.context.from_dict({"read before": 0, "read after": 0, "not read": 0, "only its own": 0})

    @flow.task("reduce")
    def reduce(ctx: Context):
        bodies.append(ctx.get("read before"))
        ctx.set("only its own", ctx.get("only its own") + 1)
        ctx.checkpoint()
        ctx.get("read after")
        read.set()
        until(lambda: rows(store, "SELECT 1 FROM tasks WHERE key = 'feed' AND status = 'completed'"))

    @flow.task("feed")
    def feed(ctx: Context):
        passes(read)
        if changed != "only its own":
            ctx.set(changed, 1)
        return TaskOutput(None, [NextTask("reduce")])

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("reduce"), NextTask("feed")]))
    flow.run("start")

    assert len(bodies) == turns
    assert rows(store, "SELECT * FROM attempts") == []


# ---------------------------------------------------------------- async


def test_an_async_checkpoint_is_kept_across_a_failure(flow: Flow):
    @flow.task("count", retry=AT_ONCE)
    async def count(ctx: Context):
        for n in range(await ctx.aget("n", 0), 6):
            ctx.stream(n)
            ctx.set("n", n + 1)
            fails_at(3)(ctx, n)
            await ctx.acheckpoint()
        return ctx.attempt

    run = flow.start("count")
    run.result(20)

    has_counted_once(flow, run.id, [1, 1, 1, 2, 2, 2, 2])


def test_a_plain_checkpoint_in_an_async_task_is_refused(flow: Flow):
    @flow.task("wrong")
    async def wrong(ctx: Context):
        ctx.checkpoint()

    with pytest.raises(TaskFailedError, match="await ctx.acheckpoint") as failed:
        flow.run("wrong")
    assert isinstance(failed.value.__cause__, AwaitNeededError)


def test_nothing_is_lost_of_what_one_coroutine_writes_while_another_checkpoints(flow: Flow, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-4)  # threads take turns often

    @flow.task("write")
    async def write(ctx: Context):
        late = 0
        for turn in range(3):
            ctx.from_dict({f"{turn} {n}": n for n in range(2_000)})  # so that the checkpoint takes its time
            checkpoint = asyncio.ensure_future(ctx.acheckpoint())
            while not checkpoint.done() and late < 20_000:
                ctx.set(f"late {late}", late)
                ctx.stream(late)
                late += 1
                await asyncio.wait([checkpoint], timeout=0)
            await checkpoint
        return late

    run = flow.start("write")
    count = run.result(60)["write"]

    assert set(run.context.keys()) >= {f"late {n}" for n in range(count)}
    assert values(run.stream(view="final")) == [*range(count), count]
