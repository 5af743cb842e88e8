"""A run that is cancelled is over for good: what completed is kept, and nothing of it that did not complete takes effect."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, RunCancelledError, TaskOutput
from liteflow.errors import RunConflictError, RunNotFoundError
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import rows
from tests.features.waiting import Helper, passes, until

if TYPE_CHECKING:
    from liteflow import Run


class Slow:
    """A task that does not return until it is let go on; then it goes on with what it was given."""

    def __init__(self, after=lambda ctx: "late") -> None:
        self.began, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self._after = after

    def __call__(self, ctx: Context):
        try:
            ctx.set("early", 1)
            ctx.stream("early")
            self.began.set()
            passes(self.go_on)
            return self._after(ctx)
        finally:
            self.ended.set()

    def let_end(self) -> None:
        self.go_on.set()
        passes(self.ended)


def add_two(flow: Flow, second) -> None:
    """Two tasks, of which the first completes."""
    flow.add_task("first", lambda ctx: ctx.stream("first") or TaskOutput("done", [NextTask("second")]))
    flow.add_task("second", second)


def refused(run: Run) -> str:
    """Return why a cancelled run has no result."""
    with pytest.raises(RunCancelledError) as error:
        run.result(20)
    assert error.value.run_id == run.id
    return error.value.why


def stands_cancelled(flow: Flow, store: str, run: Run, tasks: dict[str, str]) -> None:
    """Assert all that is said of a cancelled run, to whoever asks."""
    assert refused(run) == refused(flow.get_run(run.id)) == "it was cancelled"
    assert (run.status, run.reason, run.error) == ("cancelled", "it was cancelled", None)
    assert {record.key: record.status for record in run.tasks()} == tasks
    assert rows(store, "SELECT finished_at IS NOT NULL FROM runs WHERE id = ?", run.id) == [(1,)]
    assert rows(store, "SELECT 1 FROM writes WHERE status = 'open' UNION SELECT 1 FROM chunks WHERE status = 'open'") == []
    with pytest.raises(RunConflictError, match="is cancelled"):
        flow.resume(run.id)
    run.cancel()  # again, which changes nothing
    flow.get_run(run.id).cancel()
    assert run.status == "cancelled"
    assert flow.recover() == []


# ---------------------------------------------------------------- a run that is at work


def test_what_had_completed_is_kept_and_what_was_at_work_takes_no_effect(flow: Flow, store: str):
    def late(ctx: Context):
        ctx.set("late", 1)
        return TaskOutput("late", [NextTask("third")])

    began, slow = [], Slow(late)
    add_two(flow, slow)
    flow.add_task("third", began.append)
    run = flow.start("first")
    passes(slow.began)

    run.cancel()
    slow.let_end()

    stands_cancelled(flow, store, run, {"first": "completed", "second": "cancelled"})
    assert run.context.to_dict() == {"first": "done"}
    assert [chunk.value for chunk in run.stream()] == ["first", "done"]
    assert rows(store, "SELECT number, attempt, status FROM attempts") == [(2, 1, "cancelled")]
    assert began == []


CALLS = [
    lambda ctx: ctx.get("first"), lambda ctx: ctx.get("a", None), lambda ctx: "a" in ctx, lambda ctx: ctx.keys(),
    lambda ctx: ctx.to_dict(), lambda ctx: ctx.set("a", 1), lambda ctx: ctx.update("a", str, None), lambda ctx: ctx.checkpoint(),
    lambda ctx: ctx.delete("early"), lambda ctx: ctx.stream("late"), lambda ctx: ctx.step("late", lambda: 1 / 0),
    lambda ctx: ctx.gather("first"), lambda ctx: ctx.from_dict({"a": 1}),
]  # fmt: skip


def test_a_body_at_work_sees_that_its_run_was_cancelled_and_each_later_call_says_so(flow: Flow, store: str):
    seen = []

    def calls(ctx: Context):
        seen.append(ctx.cancelled)
        for call in CALLS:
            try:
                seen.append(call(ctx))
            except RunCancelledError as error:
                seen.append(error.why)

    slow = Slow(calls)
    add_two(flow, slow)
    run = flow.start("first")
    passes(slow.began)

    run.cancel()
    slow.let_end()

    assert seen == [True] + ["it was cancelled"] * len(CALLS)
    assert run.context.to_dict() == {"first": "done"}
    assert rows(store, "SELECT * FROM steps") == []


def test_a_blocked_get_and_an_async_body_end_when_their_run_is_cancelled(flow: Flow):
    slow, told, began = Slow(), [], threading.Event()

    @flow.task("wait")
    def wait(ctx: Context):
        try:
            ctx.get("slow")
        except RunCancelledError as error:
            told.append(error.why)
            raise

    @flow.task("rest")
    async def rest(ctx: Context):
        asyncio.get_running_loop().call_soon(began.set)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("rest")
            raise

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("slow"), NextTask("wait"), NextTask("rest")]))
    flow.add_task("slow", slow)
    run = flow.start("start")
    until(flow._opened().drivers[run.id]._state.waits)
    passes(began)

    run.cancel()

    until(lambda: sorted(told) == ["it was cancelled", "rest"])
    slow.let_end()
    assert {record.status for record in run.tasks()} == {"completed", "cancelled"}


def test_no_task_starts_after_a_cancel_though_many_were_about_to(flow: Flow):
    cancelled, began, after = threading.Event(), threading.Semaphore(0), []

    @flow.task("part")
    def part(ctx: Context):
        if cancelled.is_set():
            after.append(ctx.key)
        began.release()
        passes(cancelled)

    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True) for _ in range(50)]))
    run = flow.start("fan")
    for _ in range(4):
        assert began.acquire(timeout=20)

    run.cancel()
    cancelled.set()

    assert after == []
    statuses = [record.status for record in run.tasks()]
    assert statuses == ["completed"] + ["cancelled"] * 50


def test_who_waits_and_who_follows_a_run_is_told_when_it_is_cancelled(flow: Flow):
    slow = Slow()
    add_two(flow, slow)
    run = flow.start("first")
    follower = Helper(lambda: [chunk.value for chunk in run.stream()])
    waiter = Helper(run.result)
    passes(slow.began)

    run.cancel()

    assert follower.result() in (["first", "done"], ["first", "done", "early"])
    with pytest.raises(RunCancelledError):
        waiter.result()
    slow.let_end()


def test_a_task_may_cancel_its_own_run(flow: Flow, store: str):
    def give_up(ctx: Context):
        ctx.set("a", 1)
        flow.get_run(ctx.run_id).cancel()
        ctx.set("b", 1)

    add_two(flow, give_up)
    run = flow.start("first")

    assert refused(run) == "it was cancelled"
    stands_cancelled(flow, store, run, {"first": "completed", "second": "cancelled"})
    assert run.context.to_dict() == {"first": "done"}


def test_a_run_that_is_cancelled_while_a_task_of_it_fails_stands_cancelled(flow: Flow, store: str):
    failing, slow = threading.Event(), Slow()

    @flow.task("fail")
    def fail(ctx: Context):
        passes(slow.began)
        failing.set()
        raise ValueError("no")

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("fail"), NextTask("slow")]))
    flow.add_task("slow", slow)
    run = flow.start("start")
    passes(failing)
    until(lambda: rows(store, "SELECT 1 FROM attempts WHERE status = 'failed'"))
    assert run.status == "running"  # until what runs has ended

    waiter = Helper(run.result)

    run.cancel()
    slow.let_end()

    with pytest.raises(RunCancelledError):
        waiter.result()
    assert refused(run) == "it was cancelled"
    assert (run.status, run.reason) == ("cancelled", "it was cancelled")
    assert [record.status for record in run.tasks()] == ["completed", "cancelled", "cancelled"]


# ---------------------------------------------------------------- a run that stands still


def waiting(flow: Flow) -> None:
    add_two(flow, lambda ctx: TaskOutput(None, [NextTask("ship", wait_for=["approval"])]))
    flow.add_task("ship", lambda ctx: "shipped")


def test_a_run_that_waits_for_a_key_is_cancelled_and_the_key_starts_nothing(flow: Flow, store: str):
    waiting(flow)
    run = flow.start("first")
    until(lambda: run.status == "waiting")

    run.cancel()
    run.context.set("approval", True)

    stands_cancelled(flow, store, run, {"first": "completed", "second": "completed", "ship": "cancelled"})


def test_a_run_that_is_delayed_is_cancelled_and_its_time_starts_nothing(store: str):
    clock, began = FakeClock(), []
    with Flow(store=store, clock=clock) as flow:
        add_two(flow, lambda ctx: TaskOutput(None, [NextTask("later", delay=60)]))
        flow.add_task("later", began.append)
        run = flow.start("first")
        until(lambda: run.status == "waiting")

        run.cancel()
        clock.advance(60)

        stands_cancelled(flow, store, run, {"first": "completed", "second": "completed", "later": "cancelled"})
        assert began == []


@pytest.mark.parametrize("how", ["paused", "failed"])
def test_a_run_that_stands_still_is_cancelled_and_who_saw_it_stand_still_is_told_so(flow: Flow, how: str):
    slow = Slow(lambda ctx: 1 / 0)
    add_two(flow, slow)
    run = flow.start("first")
    passes(slow.began)
    if how == "paused":
        run.interrupt()
    slow.let_end()
    assert run.wait(20) == how

    flow.get_run(run.id).cancel()

    assert refused(run) == refused(flow.get_run(run.id)) == "it was cancelled"
    assert {record.key: record.status for record in run.tasks()} == {"first": "completed", "second": "cancelled"}
    with pytest.raises(RunConflictError, match="is cancelled"):
        flow.resume(run.id)


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
flow.add_task("first", lambda ctx: ctx.stream("first") or TaskOutput("done", [NextTask("second")]))

@flow.task("second")
def second(ctx):
    ctx.set("early", 1)
    ctx.checkpoint()
    ctx.set("late", 1)
    ctx.stream("late")
    print("began", flush=True)
    threading.Event().wait()

flow.run("first", run_id="r", context=flow.context)
"""


def test_a_run_whose_process_was_killed_is_cancelled_and_what_it_had_committed_is_kept(flow: Flow, store: str):
    child = Child(KILLED, store)
    assert child.line() == "began"
    child.kill()
    add_two(flow, lambda ctx: None)
    run = flow.get_run("r")

    run.cancel()

    stands_cancelled(flow, store, run, {"first": "completed", "second": "cancelled"})
    assert run.context.to_dict() == {"first": "done", "early": 1}
    assert [chunk.value for chunk in run.stream()] == ["first", "done"]
    assert rows(store, "SELECT number, attempt, status FROM attempts") == [(2, 1, "lost")]


def test_a_run_that_is_live_in_another_process_is_cancelled_there_only(flow: Flow, store: str):
    child = Child(KILLED, store)
    assert child.line() == "began"

    with pytest.raises(RunConflictError, match=f"is live in process {child.process.pid}; cancel it there"):
        flow.get_run("r").cancel()

    assert flow.get_run("r").status == "running"
    child.kill()


# ---------------------------------------------------------------- afterwards


@pytest.mark.parametrize("how", ["at work", "waiting"])
def test_the_context_of_a_cancelled_run_is_free_for_another(flow: Flow, how: str):
    slow = Slow()
    if how == "at work":
        add_two(flow, slow)
    else:
        waiting(flow)
    flow.add_task("other", lambda ctx: ctx.get("first"))
    run = flow.start("first", context=flow.context)
    until(lambda: slow.began.is_set() or run.status == "waiting")

    run.cancel()

    assert flow.run("other") == {"other": "done"}
    slow.go_on.set()
    assert run.status == "cancelled"


def test_a_start_under_the_id_of_a_cancelled_run_is_told_that_it_was_cancelled(flow: Flow):
    waiting(flow)
    run = flow.start("first", run_id="r")
    until(lambda: run.status == "waiting")
    run.cancel()

    with pytest.raises(RunCancelledError, match="it was cancelled"):
        flow.run("first", run_id="r")


def test_a_run_that_is_completed_or_unknown_cannot_be_cancelled(flow: Flow):
    add_two(flow, lambda ctx: 2)
    run = flow.start("first")
    run.result(20)

    with pytest.raises(RunConflictError, match="is completed"):
        run.cancel()
    with pytest.raises(RunNotFoundError):
        flow.get_run("nobody").cancel()
    assert run.result() == {"second": 2}
