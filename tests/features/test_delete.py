"""`Context.delete` takes away the value of a key: a write like any other, atomic, versioned, and in conflict with others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from liteflow import (
    Context,
    ContextKeyError,
    Flow,
    InvalidKeyError,
    LiteFlowError,
    NextTask,
    RetryPolicy,
    TaskFailedError,
    TaskOutput,
)
from tests.features.children import Child, output_of
from tests.features.records import rows
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)
ABSENT = [False, "default", ["b"], {"b": 2}, "Key a not found in context"]


def seen(ctx: Context) -> list[object]:
    """All ways to look at the key ``a``."""
    try:
        value = ctx.get("a")
    except ContextKeyError as error:
        value = str(error)
    return ["a" in ctx, ctx.get("a", "default"), ctx.keys(), ctx.to_dict(), value]


class Held:
    """A task whose first attempt reads, then waits until it is let go on, then writes."""

    def __init__(self, read: Callable[[Context], object], write: Callable[[Context, object], object]) -> None:
        self.has_read, self.go_on = threading.Event(), threading.Event()
        self._read, self._write = read, write

    def __call__(self, ctx: Context):
        found = self._read(ctx)
        if ctx.attempt == 1:
            self.has_read.set()
            passes(self.go_on)
        self._write(ctx, found)
        return [ctx.attempt, found]


def changed_meanwhile(flow: Flow, held: Held, change: Callable[[Context], object]) -> object:
    """Run *held* and change the context between its read and its write; return its output."""
    flow.add_task("held", held)
    run = flow.start("held", context=flow.context)
    passes(held.has_read)
    change(flow.context)
    held.go_on.set()
    return run.result(20)["held"]


# ---------------------------------------------------------------- what is left of a key


@pytest.mark.parametrize("where", ["memory", "store", "reopened"])
def test_a_key_that_was_deleted_from_outside_is_absent_in_every_way(flow: Flow, store: str, where: str):
    context = Context("named") if where == "memory" else Context("named", store=store)
    context.from_dict({"a": 1, "b": 2})

    context.delete("a")

    assert seen(Context("named", store=store) if where == "reopened" else context) == ABSENT


def test_a_task_sees_its_own_deletion_at_once_and_later_ones_see_it_when_it_is_committed(flow: Flow):
    flow.context.from_dict({"a": 1, "b": 2})
    own = []

    @flow.task("delete")
    def delete(ctx: Context):
        ctx.delete("a")
        own.append(seen(ctx))
        return TaskOutput(0, [NextTask("look")])

    @flow.task("look")
    def look(ctx: Context):
        return ["a" in ctx, ctx.get("a", None), "a" in ctx.keys(), "a" in ctx.to_dict()]  # noqa: SIM118 - a context is no mapping

    assert flow.run("delete") == {"look": [False, None, False, False]}
    assert own == [ABSENT]


@pytest.mark.parametrize("before", [None, "deleted", "in this attempt"])
def test_a_key_that_has_no_value_cannot_be_deleted(flow: Flow, before: str | None):
    if before is not None:
        flow.context.set("a", 1)
    if before == "deleted":
        flow.context.delete("a")

    @flow.task("delete")
    def delete(ctx: Context):
        if before == "in this attempt":
            ctx.delete("a")
        ctx.delete("a")

    with pytest.raises(TaskFailedError, match="Key a not found in context") as failed:
        flow.run("delete")
    assert isinstance(failed.value.__cause__, ContextKeyError)
    if before != "in this attempt":
        with pytest.raises(ContextKeyError, match="^Key a not found in context$"):
            flow.context.delete("a")


@pytest.mark.parametrize("key", ["", 7, None, "a\0b"])
def test_what_is_no_key_is_refused(flow: Flow, key: object):
    with pytest.raises(InvalidKeyError):
        flow.context.delete(key)


def test_a_deleted_key_can_be_set_again_inside_and_outside(flow: Flow):
    flow.context.set("a", 1)
    flow.add_task("again", lambda ctx: ctx.delete("a") or ctx.set("a", 2) or ctx.delete("a") or ctx.set("a", 3))
    flow.run("again")
    assert flow.context.get("a") == 3

    flow.context.delete("a")
    flow.context.set("a", 4)

    assert flow.context.get("a") == 4
    assert [version.value for version in flow.context.history("a")] == [1, None, 2, None, 3, None, 4]


def test_an_update_after_a_deletion_begins_with_its_default(flow: Flow):
    flow.context.set("a", 10)
    flow.context.delete("a")
    flow.add_task("add", lambda ctx: [ctx.update("a", lambda n: n + 1, 0), ctx.delete("a"), ctx.update("a", lambda n: n + 1, 5)])

    assert flow.run("add") == {"add": [1, None, 6]}
    with pytest.raises(ContextKeyError):
        flow.context.delete("a") or flow.context.update("a", lambda n: n + 1)


# ---------------------------------------------------------------- history


def test_a_deletion_is_a_version_without_a_value_and_says_who_made_it(flow: Flow):
    flow.context.set("a", 1)
    flow.add_task("delete", lambda ctx: ctx.delete("a"))
    flow.run("delete", run_id="r")

    history = flow.context.history("a")

    assert [(version.version, version.value, version.run_id, version.task_key) for version in history] == [
        (1, 1, None, None),
        (2, None, "r", "delete"),
    ]


def test_at_shows_the_value_before_the_deletion_and_none_from_it_on(flow: Flow):
    flow.context.from_dict({"a": 1, "b": 2})
    flow.context.delete("a")
    flow.context.set("a", 3)

    assert [flow.context.at(version).to_dict() for version in (2, 3, 4)] == [{"a": 1, "b": 2}, {"b": 2}, {"b": 2, "a": 3}]
    assert "a" not in flow.context.at(3)
    with pytest.raises(ContextKeyError):
        flow.context.at(3).get("a")
    with pytest.raises(LiteFlowError, match="read-only"):
        flow.context.at(2).delete("a")


def test_the_output_of_a_task_may_be_deleted_and_the_result_of_the_run_still_has_it(flow: Flow):
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("part"), NextTask("delete")]))
    flow.add_task("part", lambda ctx: "part")
    flow.add_task("delete", lambda ctx: ctx.get("part") and ctx.delete("part"))

    assert flow.run("start") == {"part": "part", "delete": None}
    assert "part" not in flow.context


# ---------------------------------------------------------------- a deletion takes effect with its attempt, or not at all


def test_the_deletion_of_a_failed_attempt_takes_no_effect_and_stays_in_the_record_as_lost(flow: Flow, store: str):
    flow.context.set("a", 1)
    found = []

    @flow.task("delete", retry=AT_ONCE)
    def delete(ctx: Context):
        found.append(ctx.get("a", "gone"))
        if ctx.attempt == 1:
            ctx.delete("a")
            raise ConnectionError("no luck")

    flow.run("delete")

    assert found == [1, 1]
    assert flow.context.get("a") == 1
    assert [version.value for version in flow.context.history("a")] == [1]
    assert rows(store, "SELECT key, value FROM writes WHERE status = 'lost'") == [("a", None)]


def test_observers_see_a_deletion_that_is_not_committed_and_tasks_do_not(flow: Flow, store: str):
    flow.context.from_dict({"a": 1, "b": 2})
    deleted, go_on = threading.Event(), threading.Event()
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("delete"), NextTask("look")]))
    flow.add_task("delete", lambda ctx: ctx.delete("a") or deleted.set() or passes(go_on))
    flow.add_task("look", lambda ctx: passes(deleted) or ["a" in ctx, ctx.get("a")])
    afar = "import sys; from liteflow import Context; print('a' in Context(sys.argv[2], store=sys.argv[1]))"
    run = flow.start("start", context=flow.context)
    passes(deleted)

    assert "a" not in flow.context
    assert flow.context.get("a", None) is None
    assert "a" not in flow.context.to_dict()
    assert flow.context.get("look", timeout=20) == [True, 1]
    until(lambda: rows(store, "SELECT 1 FROM writes WHERE status = 'open'"))
    assert output_of(afar, store, flow.context.id) == ["False"]
    go_on.set()
    run.result(20)
    assert "a" not in flow.context


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])

@flow.task("first")
def first(ctx):
    ctx.delete("committed")
    return TaskOutput("done", [NextTask("second")])

@flow.task("second")
def second(ctx):
    ctx.delete("open")
    threading.Event().wait(0.2)  # long enough to be recorded
    print("deleted")
    threading.Event().wait()

flow.run("first", {"committed": 1, "open": 2}, run_id="r")
"""


def test_after_a_crash_a_committed_deletion_holds_and_an_open_one_does_not(flow: Flow, store: str):
    child = Child(KILLED, store)
    assert child.line() == "deleted"
    until(lambda: rows(store, "SELECT 1 FROM writes WHERE status = 'open'"))
    child.kill()
    flow.add_task("second", lambda ctx: [ctx.get("committed", "gone"), ctx.get("open"), ctx.delete("open"), "open" in ctx])

    run = flow.resume("r")

    assert run.result(20) == {"second": ["gone", 2, None, False]}
    assert sorted(run.context.keys()) == ["first", "second"]


# ---------------------------------------------------------------- R5


@pytest.mark.parametrize(
    "read",
    [lambda ctx: ctx.get("a", None), lambda ctx: "a" in ctx, lambda ctx: "a" in ctx.keys(), lambda ctx: "a" in ctx.to_dict()],  # noqa: SIM118 - a context is no mapping
    ids=["get", "in", "keys", "to_dict"],
)
def test_who_read_a_key_and_writes_it_runs_again_if_it_was_deleted_meanwhile(flow: Flow, read):
    flow.context.set("a", 1)
    held = Held(read, lambda ctx, found: ctx.set("a", ["was there", bool(found)]))

    attempt, _ = changed_meanwhile(flow, held, lambda context: context.delete("a"))

    assert attempt == 2
    assert flow.context.get("a") == ["was there", False]


def test_who_deletes_a_key_that_was_changed_meanwhile_runs_again_on_the_fresh_value(flow: Flow):
    flow.context.set("a", 1)
    held = Held(lambda ctx: [ctx.get("a"), ctx.delete("a")][0], lambda ctx, found: None)

    assert changed_meanwhile(flow, held, lambda context: context.set("a", 2)) == [2, 2]
    assert "a" not in flow.context


def test_of_two_that_delete_a_key_the_second_finds_it_gone(flow: Flow):
    flow.context.set("a", 1)
    together = threading.Barrier(2)
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("delete", spawn_another=True) for _ in range(2)]))

    @flow.task("delete")
    def delete(ctx: Context):
        try:
            ctx.delete("a")
        except ContextKeyError:
            return "gone"
        if ctx.attempt == 1:
            together.wait(20)
        ctx.update("n", lambda n: n + 1, 0)
        return "deleted"

    assert sorted(flow.run("start").values()) == ["deleted", "gone"]
    assert flow.context.get("n") == 1
    assert [version.value for version in flow.context.history("a")] == [1, None]


def test_who_only_read_a_key_that_was_deleted_meanwhile_is_in_no_conflict(flow: Flow):
    flow.context.set("a", 1)
    held = Held(lambda ctx: ctx.get("a"), lambda ctx, found: ctx.set("b", found))

    assert changed_meanwhile(flow, held, lambda context: context.delete("a")) == [1, 1]
    assert flow.context.get("b") == 1


def test_an_update_of_a_key_that_was_deleted_meanwhile_is_applied_to_its_absence(flow: Flow):
    flow.context.set("a", 1)
    held = Held(lambda ctx: ctx.update("a", lambda n: n + 1, 100), lambda ctx, found: None)

    assert changed_meanwhile(flow, held, lambda context: context.delete("a")) == [1, 2]
    assert flow.context.get("a") == 101


def test_a_checkpoint_commits_a_deletion_and_others_see_it(flow: Flow):
    flow.context.set("a", 1)
    kept, go_on = threading.Event(), threading.Event()
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("delete"), NextTask("look")]))
    flow.add_task("delete", lambda ctx: ctx.delete("a") or ctx.checkpoint() or kept.set() or passes(go_on))
    flow.add_task("look", lambda ctx: [passes(kept), ctx.get("a", "gone"), go_on.set()])

    assert flow.run("start")["look"] == [None, "gone", None]
