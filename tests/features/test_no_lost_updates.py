"""Tasks that run side by side and change the same key never overwrite each other's change (R5)."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, TaskFailedError, TaskOutput
from tests.features.children import Child
from tests.features.records import rows
from tests.features.waiting import Helper, passes

if TYPE_CHECKING:
    from collections.abc import Callable


class Meeting:
    """Where the first attempts of two tasks meet between what they read and what they write."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def of(self, ctx: Context) -> None:
        if ctx.attempt == 1:
            self._barrier.wait(20)


def attempts_of(flow: Flow, first: Callable[[Context], object], second: Callable[[Context], object]) -> list[int]:
    """Run two tasks side by side; return how many attempts each took, the lower number first."""
    flow.add_task("both", lambda ctx: TaskOutput(None, [NextTask("first"), NextTask("second")]))
    flow.add_task("first", first)
    flow.add_task("second", second)
    run = flow.start("both", context=flow.context)
    run.result(20)
    return sorted(record.attempts for record in run.tasks()[1:])


def test_two_tasks_that_read_and_write_one_key_lose_nothing_and_one_runs_again(flow: Flow, store: str):
    meeting = Meeting()
    flow.context.set("list", [])

    def append(ctx: Context):
        items = ctx.get("list")
        meeting.of(ctx)
        ctx.set("list", [*items, ctx.key])

    attempts = attempts_of(flow, append, append)

    assert attempts == [1, 2]
    assert sorted(flow.context.get("list")) == ["first", "second"]
    assert rows(store, "SELECT status, error_type FROM attempts") == [("conflicted", None)]
    assert rows(store, "SELECT max(failures) FROM tasks") == [(0,)]


@pytest.mark.parametrize(
    "looks",
    [
        lambda ctx: ctx.get("count", 0),
        lambda ctx: ctx.get("count") if "count" in ctx else 0,
        lambda ctx: ctx.get("count") if "count" in ctx.keys() else 0,  # noqa: SIM118 - the method is what is tested
        lambda ctx: ctx.to_dict().get("count", 0),
    ],
    ids=["get with a default", "in", "keys", "to_dict"],
)
def test_absence_counts_as_read(flow: Flow, looks: Callable[[Context], int]):
    meeting = Meeting()

    def count(ctx: Context):
        seen = looks(ctx)
        meeting.of(ctx)
        ctx.set("count", seen + 1)

    assert attempts_of(flow, count, count) == [1, 2]
    assert flow.context.get("count") == 2


def test_writes_to_a_key_that_was_not_read_do_not_conflict(flow: Flow):
    meeting = Meeting()

    def write(ctx: Context):
        meeting.of(ctx)
        ctx.set("a", ctx.key)

    assert attempts_of(flow, write, write) == [1, 1]
    assert [version.value for version in flow.context.history("a")][-1] == flow.context.get("a")


def test_a_key_that_was_read_but_not_written_does_not_conflict(flow: Flow):
    meeting = Meeting()
    flow.context.set("a", 0)

    def read(ctx: Context):
        seen = ctx.get("a")
        meeting.of(ctx)
        return seen

    def write(ctx: Context):
        meeting.of(ctx)
        ctx.set("a", 1)

    assert attempts_of(flow, read, write) == [1, 1]


def test_a_write_after_a_read_of_its_own_write_does_not_conflict(flow: Flow):
    meeting = Meeting()

    def write(ctx: Context):
        ctx.set("a", 1)
        ctx.get("a")
        meeting.of(ctx)
        ctx.set("a", 2)

    assert attempts_of(flow, write, write) == [1, 1]


def test_a_write_from_outside_between_read_and_write_makes_the_task_run_again(flow: Flow):
    read, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)

    @flow.task("double")
    def double(ctx: Context):
        n = ctx.get("n")
        read.set()
        passes(written)
        ctx.set("n", 2 * n)

    run = flow.start("double", context=flow.context)
    passes(read)
    flow.context.set("n", 10)
    written.set()
    run.result(20)

    assert flow.context.get("n") == 20
    assert run.tasks()[0].attempts == 2


def test_the_record_of_a_task_holds_the_versions_it_read(flow: Flow, store: str):
    flow.context.from_dict({"a": 1, "b": 2})
    flow.add_task("read", lambda ctx: [ctx.get("b"), ctx.get("none", None)])

    flow.run("read")

    assert rows(store, "SELECT reads FROM tasks") == [('{"b":2,"none":0}',)]


# ---------------------------------------------------------------- update


def test_update_never_runs_a_task_again_and_loses_nothing(flow: Flow):
    meeting = Meeting()
    flow.context.set("list", [])

    def append(ctx: Context):
        ctx.update("list", lambda items: [*items, ctx.key])
        meeting.of(ctx)

    assert attempts_of(flow, append, append) == [1, 1]
    assert sorted(flow.context.get("list")) == ["first", "second"]


def test_update_returns_what_the_attempt_sees_and_applies_the_function_to_a_fresh_value_before_the_commit(flow: Flow):
    updated, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)

    @flow.task("add")
    def add(ctx: Context):
        seen = [ctx.update("n", lambda n: n + 1), ctx.update("n", lambda n: n * 10), ctx.get("n")]
        updated.set()
        passes(written)
        return seen

    run = flow.start("add", context=flow.context)
    passes(updated)
    flow.context.set("n", 100)
    written.set()

    assert run.result(20) == {"add": [2, 20, 20]}
    assert flow.context.get("n") == 1010


def test_an_exception_of_the_function_fails_only_its_own_attempt(flow: Flow):
    updated, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)

    def strict(n: int) -> int:
        if n > 50:
            raise ValueError("too much")
        return n + 1

    @flow.task("add", retry=1)
    def add(ctx: Context):
        ctx.update("n", strict)
        updated.set()
        passes(written)

    run = flow.start("add", context=flow.context)
    passes(updated)
    flow.context.set("n", 100)
    written.set()

    with pytest.raises(TaskFailedError, match="ValueError: too much"):
        run.result(20)
    assert flow.context.get("n") == 100


def test_the_function_never_runs_while_the_database_is_locked(flow: Flow, store: str):
    updated, written = threading.Event(), threading.Event()
    flow.context.set("n", 1)
    locks = []

    def add_one(n: int) -> int:
        with closing(sqlite3.connect(store.removeprefix("sqlite:///"), timeout=0.1, isolation_level=None)) as db:
            locks.append(db.execute("BEGIN IMMEDIATE").connection.in_transaction)
            db.execute("ROLLBACK")
        return n + 1

    @flow.task("add")
    def add(ctx: Context):
        ctx.update("n", add_one)
        updated.set()
        passes(written)

    run = flow.start("add", context=flow.context)
    passes(updated)
    flow.context.set("n", 100)
    written.set()
    run.result(20)

    assert flow.context.get("n") == 101
    assert locks == [True, True]


def test_update_without_a_value_or_a_default_names_the_key(flow: Flow):
    flow.add_task("add", lambda ctx: ctx.update("n", lambda n: n + 1))

    with pytest.raises(TaskFailedError, match="Key n not found in context"):
        flow.run("add")


def test_updates_of_tasks_and_of_other_processes_are_all_kept(flow: Flow, store: str):
    script = """
    import sys
    from liteflow import Context

    context = Context("shared", store=sys.argv[1])
    for _ in range(50):
        context.update("n", lambda n: n + 1, default=0)
    """

    @flow.task("loop")
    def loop(ctx: Context):
        turn = ctx.get("turn", 0)
        ctx.set("turn", turn + 1)
        ctx.update("n", lambda n: n + 1, default=0)
        return TaskOutput(None, [NextTask("loop")] if turn < 199 else None)

    children = [Child(script, store), Child(script, store)]
    flow.run("loop", context=Context("shared"))

    assert [child.end() for child in children] == [0, 0]
    assert Context("shared", store=store).get("n") == 300


def test_two_threads_that_update_one_key_from_outside_lose_nothing(flow: Flow):
    def add() -> None:
        for _ in range(50):
            flow.context.update("n", lambda n: n + 1, default=0)

    for helper in [Helper(add), Helper(add)]:
        helper.result()

    assert flow.context.get("n") == 100
