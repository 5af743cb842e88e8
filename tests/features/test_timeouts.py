"""R1 and R8: an attempt whose time is over is given up; it can do nothing more, and the run goes on without it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, InvalidOptionError, NextTask, PoolExecutor, RetryPolicy, TaskFailedError, TaskOutput
from liteflow.errors import TaskTimeoutError, TerminalError
from liteflow.testing import FakeClock
from tests.features.records import one, rows
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from collections.abc import Iterator

TWICE = RetryPolicy(max_attempts=2, initial_interval=0)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the flow."""
    return FakeClock()


@pytest.fixture
def flow(store: str, clock: FakeClock) -> Iterator[Flow]:
    """A flow whose time passes only when it is told to."""
    with Flow(store=store, clock=clock) as flow:
        yield flow


class Slow:
    """A task whose first attempt does not return until it is let go on; later ones return which attempt they are."""

    def __init__(self, before=lambda ctx: None, after=lambda ctx: "late") -> None:
        self.began, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self._before, self._after = before, after

    def __call__(self, ctx: Context):
        if ctx.attempt > 1:
            return ctx.attempt
        try:
            self._before(ctx)
            self.began.set()
            passes(self.go_on)
            return self._after(ctx)
        finally:
            self.ended.set()

    def let_end(self) -> None:
        self.go_on.set()
        passes(self.ended)


# ---------------------------------------------------------------- what becomes of the run


def test_a_task_that_takes_too_long_fails_the_run_which_says_so_and_can_be_resumed(flow: Flow, clock: FakeClock):
    slow = Slow()
    flow.add_task("slow", slow, timeout=10)
    run = flow.start("slow")
    passes(slow.began)

    clock.advance(10)

    with pytest.raises(TaskFailedError, match="Task slow ran longer than its timeout of 10 s") as failed:
        run.result(20)
    assert failed.value.cause_type == "liteflow.errors.TaskTimeoutError"
    assert isinstance(failed.value.__cause__, TaskTimeoutError)
    assert (failed.value.__cause__.key, failed.value.__cause__.timeout) == ("slow", 10)
    assert run.status == "failed"
    assert "TaskTimeoutError" in run.reason
    assert flow.resume(run.id).result(20) == {"slow": 2}
    slow.let_end()


def test_each_attempt_has_the_whole_time_and_the_last_one_that_takes_too_long_fails_the_run(flow: Flow, clock: FakeClock):
    began, go_on = threading.Semaphore(0), threading.Event()
    flow.add_task("slow", lambda ctx: began.release() or passes(go_on), timeout=10, retry=TWICE)
    run = flow.start("slow")
    assert began.acquire(timeout=20)
    clock.advance(10)
    assert began.acquire(timeout=20)

    clock.advance(9)
    assert run.wait(0.1) == "running"
    clock.advance(1)

    with pytest.raises(TaskFailedError, match="TaskTimeoutError"):
        run.result(20)
    assert [record.attempts for record in run.tasks()] == [2]
    go_on.set()


def test_a_wait_between_two_tries_is_kept_after_a_timeout_too(flow: Flow, clock: FakeClock):
    slow = Slow()
    flow.add_task("slow", slow, timeout=10, retry=RetryPolicy(max_attempts=2, initial_interval=60, jitter=False))
    run = flow.start("slow")
    passes(slow.began)
    clock.advance(10)
    until(lambda: run.status == "waiting")

    clock.advance(60)

    assert run.result(20) == {"slow": 2}
    slow.let_end()


@pytest.mark.parametrize(
    ("retry_on", "attempts"), [(TaskTimeoutError, 2), (ConnectionError, 1), ((ConnectionError, TaskTimeoutError), 2)]
)
def test_a_policy_tells_whether_a_timeout_is_retried(flow: Flow, clock: FakeClock, retry_on, attempts: int):
    slow = Slow()
    flow.add_task("slow", slow, timeout=10, retry=RetryPolicy(max_attempts=2, initial_interval=0, retry_on=retry_on))
    run = flow.start("slow")
    passes(slow.began)

    clock.advance(10)

    assert run.wait(20) == ("completed" if attempts == 2 else "failed")
    assert [record.attempts for record in run.tasks()] == [attempts]
    slow.let_end()


@pytest.mark.parametrize("error", [TerminalError("no"), ValueError("no")])
def test_a_policy_for_timeouts_only_retries_no_other_failure(flow: Flow, error: Exception):
    tries = []

    @flow.task("fail", timeout=10, retry=RetryPolicy(max_attempts=3, initial_interval=0, retry_on=TaskTimeoutError))
    def fail(ctx: Context):
        tries.append(ctx.attempt)
        raise error

    with pytest.raises(TaskFailedError, match=type(error).__name__):
        flow.run("fail")
    assert tries == [1]


@pytest.mark.parametrize("workers", ["own", "users"])
def test_a_body_that_hangs_does_not_take_the_only_worker_with_it(store: str, clock: FakeClock, workers: str):
    slow, hung = Slow(), []
    with ThreadPoolExecutor(1) as users:
        executor = users if workers == "users" else PoolExecutor(max_workers=1)
        with Flow(executor=executor, store=store, clock=clock) as flow:
            flow.add_task("slow", slow, timeout=10, retry=TWICE)
            flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("slow"), NextTask("other")]))
            flow.add_task("other", lambda ctx: "other")
            run = flow.start("start")
            try:
                passes(slow.began)
                clock.advance(10)
                run.wait(20)
                hung.append(not slow.ended.is_set())
            finally:
                slow.go_on.set()

            assert hung == [True]
            assert run.status == "completed"
            assert run.result() == {"slow": 2, "other": "other"}


# ---------------------------------------------------------------- what becomes of the attempt


def test_nothing_of_an_attempt_whose_time_is_over_takes_effect(flow: Flow, clock: FakeClock, store: str):
    def early(ctx: Context):
        ctx.set("early", 1)
        ctx.stream("early")

    slow = Slow(before=early)
    flow.add_task("slow", slow, timeout=timedelta(seconds=10), retry=TWICE)
    run = flow.start("slow")
    passes(slow.began)
    clock.advance(10)

    result = run.result(20)
    slow.let_end()

    assert result == {"slow": 2}
    assert run.context.to_dict() == {"slow": 2}
    for view in ("live", "final"):
        assert [chunk.value for chunk in run.stream(view=view)] == [2]
    assert rows(store, "SELECT key, value, status FROM writes ORDER BY id") == [
        ("early", "1", "lost"),
        ("slow", "2", "committed"),
    ]
    assert rows(store, "SELECT value FROM chunks WHERE status = 'lost'") == [('"early"',)]


def test_an_attempt_whose_time_is_over_is_in_the_history_with_its_error(flow: Flow, clock: FakeClock, store: str):
    slow = Slow()
    flow.add_task("slow", slow, timeout=10, retry=TWICE)
    run = flow.start("slow")
    passes(slow.began)
    clock.advance(10)
    run.result(20)

    told = "Task slow ran longer than its timeout of 10 s and was given up"
    query = "SELECT number, attempt, status, error_type, error_message FROM attempts"
    assert rows(store, query) == [(1, 1, "timed_out", "liteflow.errors.TaskTimeoutError", told)]
    assert run.tasks()[0].error.message == told
    assert one(store, "SELECT failures FROM tasks") == 1
    slow.let_end()


def never():
    raise AssertionError("nobody is to call it")


CALLS = {
    "get": lambda ctx: ctx.get("a"),
    "get with a default": lambda ctx: ctx.get("a", None),
    "in": lambda ctx: "a" in ctx,
    "keys": lambda ctx: ctx.keys(),
    "to_dict": lambda ctx: ctx.to_dict(),
    "set": lambda ctx: ctx.set("a", 2),
    "from_dict": lambda ctx: ctx.from_dict({"a": 2}),
    "update": lambda ctx: ctx.update("a", lambda a: a + 1),
    "delete": lambda ctx: ctx.delete("a"),
    "stream": lambda ctx: ctx.stream("late"),
    "step": lambda ctx: ctx.step("late", never),
    "checkpoint": lambda ctx: ctx.checkpoint(),
    "gather": lambda ctx: ctx.gather("slow"),
    "joined": lambda ctx: ctx.joined,
}


def test_each_later_call_of_an_attempt_whose_time_is_over_says_so(flow: Flow, clock: FakeClock, store: str):
    told = {}

    def calls(ctx: Context):
        for name, call in CALLS.items():
            try:
                told[name] = call(ctx)
            except Exception as error:  # noqa: BLE001 - compared below
                told[name] = type(error)

    flow.context.set("a", 1)
    slow = Slow(before=lambda ctx: ctx.get("a"), after=calls)
    flow.add_task("slow", slow, timeout=10, retry=TWICE)
    run = flow.start("slow", context=flow.context)
    passes(slow.began)
    clock.advance(10)
    run.result(20)

    slow.let_end()

    assert told == dict.fromkeys(CALLS, TaskTimeoutError)
    assert run.context.to_dict() == {"a": 1, "slow": 2}
    assert rows(store, "SELECT * FROM steps") == []


def test_a_step_that_ends_after_the_time_is_over_records_nothing(flow: Flow, clock: FakeClock, store: str):
    began, go_on, told = threading.Event(), threading.Event(), []

    @flow.task("slow", timeout=10, retry=TWICE)
    def slow(ctx: Context):
        try:
            return ctx.step("a", lambda: (began.set(), passes(go_on), "late") if ctx.attempt == 1 else "in time")
        except TaskTimeoutError as error:
            told.append(error.key)
            raise

    run = flow.start("slow")
    passes(began)
    clock.advance(10)

    assert run.result(20) == {"slow": "in time"}
    go_on.set()
    until(lambda: told == ["slow"])
    assert rows(store, "SELECT value, attempt FROM steps") == [('"in time"', 2)]


def test_a_long_body_sees_that_its_time_is_over(flow: Flow, clock: FakeClock):
    began, seen, beat = threading.Event(), [], threading.Event()

    @flow.task("slow", timeout=10)
    def slow(ctx: Context):
        seen.append(ctx.cancelled)
        began.set()
        while not ctx.cancelled:
            beat.wait(0.01)
        seen.append(ctx.cancelled)

    run = flow.start("slow")
    passes(began)
    clock.advance(9)
    assert run.wait(0.1) == "running"
    clock.advance(1)

    assert run.wait(20) == "failed"
    until(lambda: seen == [False, True])


@pytest.mark.parametrize("wait", [lambda ctx: ctx.get("hung"), lambda ctx: ctx.gather("hung")], ids=["get", "gather"])
def test_a_wait_for_another_task_ends_when_the_time_is_over(flow: Flow, clock: FakeClock, wait):
    go_on, told = threading.Event(), []

    @flow.task("wait", timeout=10, retry=RetryPolicy(max_attempts=1))
    def waits(ctx: Context):
        try:
            wait(ctx)
        except TaskTimeoutError as error:
            told.append(error.key)
            raise

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("hung"), NextTask("wait")]))
    flow.add_task("hung", lambda ctx: passes(go_on))
    run = flow.start("start")
    until(lambda: flow._opened().drivers[run.id]._state.waits() == {"wait": "hung"})

    clock.advance(10)

    until(lambda: told == ["wait"])
    go_on.set()
    with pytest.raises(TaskFailedError, match="Task wait .* TaskTimeoutError"):
        run.result(20)


@pytest.mark.parametrize(
    ("wait", "ends"),
    [
        (lambda ctx: asyncio.Event().wait(), {asyncio.CancelledError}),
        (lambda ctx: ctx.aget("hung"), {asyncio.CancelledError, TaskTimeoutError}),
        (lambda ctx: ctx.agather("hung"), {asyncio.CancelledError, TaskTimeoutError}),
    ],
    ids=["an event of its own", "aget", "agather"],
)
def test_an_async_body_is_cancelled_where_it_waits(flow: Flow, clock: FakeClock, wait, ends: set[type[BaseException]]):
    began, go_on, told = threading.Event(), threading.Event(), []

    @flow.task("slow", timeout=10)
    async def slow(ctx: Context):
        asyncio.get_running_loop().call_soon(began.set)
        try:
            await wait(ctx)
        except BaseException as error:
            told.append(type(error))
            raise

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("hung"), NextTask("slow")]))
    flow.add_task("hung", lambda ctx: passes(go_on))
    run = flow.start("start")
    passes(began)

    clock.advance(10)

    until(lambda: told and told[0] in ends)
    go_on.set()
    with pytest.raises(TaskFailedError, match="TaskTimeoutError"):
        run.result(20)


# ---------------------------------------------------------------- the timer


def test_the_timer_of_a_task_that_was_fast_enough_keeps_nothing_of_it_and_calls_nobody(flow: Flow, clock: FakeClock):
    attempts, go_on = [], threading.Event()

    @flow.task("fast", timeout=3600)
    def fast(ctx: Context):
        attempts.append(weakref.ref(ctx._port))
        return TaskOutput(None, [NextTask("fast" if len(attempts) < 500 else "last")])

    flow.add_task("last", lambda ctx: passes(go_on))
    run = flow.start("fast")
    until(lambda: len(attempts) == 500)

    until(lambda: gc.collect() or not [attempt for attempt in attempts if attempt() is not None])
    assert len(flow._opened().services.ticker._due) < 200
    clock.advance(3600)
    go_on.set()
    assert run.result(20) == {"last": None}
    assert {record.attempts for record in run.tasks()} == {1}


@pytest.mark.parametrize(
    ("timeout", "why"),
    [
        (0, "leaves no time to run"),
        (timedelta(0), "leaves no time to run"),
        (-1, "lies in the past"),
        ("x", "is no span of time"),
        (float("nan"), "is no span of time"),
    ],
)
def test_a_timeout_that_makes_no_sense_is_refused_where_it_is_written(flow: Flow, timeout, why: str):
    with pytest.raises(InvalidOptionError, match=f"timeout=.* {why}"):
        flow.add_task("slow", lambda ctx: None, timeout=timeout)
    with pytest.raises(InvalidOptionError, match="timeout="):
        flow.task("slow", timeout=timeout)(lambda ctx: None)
