"""A step that was recorded is never run again: every later attempt of its dispatch gets what the first one got (R1)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from liteflow import Context, Flow, NextTask, RetryPolicy, SerializationError, TaskFailedError, TaskOutput
from liteflow.errors import AwaitNeededError, InvalidKeyError
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import rows
from tests.features.test_durability import FULL, watch
from tests.features.waiting import passes

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)


@dataclass
class Receipt:
    """What a step may return."""

    number: int
    lines: list[str]


class Calls:
    """A function of a step, and how often it was called."""

    def __init__(self, result: object = "result") -> None:
        self.count, self._result = 0, result

    def __call__(self):
        self.count += 1
        return self._result


def failing_once(ctx: Context) -> None:
    if ctx.attempt == 1:
        raise ConnectionError("no luck")


# ---------------------------------------------------------------- once, whatever becomes of the attempt


def test_a_step_is_not_run_again_after_a_failure(flow: Flow, store: str):
    calls, seen = Calls(), []

    @flow.task("pay", retry=AT_ONCE)
    def pay(ctx: Context):
        seen.append(ctx.step("charge", calls))
        failing_once(ctx)
        return ctx.attempt

    assert flow.run("pay") == {"pay": 2}
    assert seen == ["result", "result"]
    assert calls.count == 1
    assert rows(store, "SELECT number, name, value, attempt FROM steps") == [(1, "charge", '"result"', 1)]


def test_a_step_is_not_run_again_when_the_attempt_was_in_conflict(flow: Flow):
    calls, read, written = Calls(), threading.Event(), threading.Event()
    flow.context.set("n", 1)

    @flow.task("double")
    def double(ctx: Context):
        n = ctx.get("n")
        result = ctx.step("charge", calls)
        read.set()
        passes(written)
        ctx.set("n", 2 * n)
        return [result, ctx.attempt]

    run = flow.start("double", context=flow.context)
    passes(read)
    flow.context.set("n", 10)
    written.set()

    assert run.result(20) == {"double": ["result", 2]}
    assert run.context.get("n") == 20
    assert calls.count == 1


class Hangs:
    """A task with a step, whose first attempt hangs after it."""

    def __init__(self) -> None:
        self.calls, self.began, self.go_on = Calls(), threading.Event(), threading.Event()

    def __call__(self, ctx: Context):
        result = ctx.step("charge", self.calls)
        if ctx.attempt == 1:
            self.began.set()
            passes(self.go_on)
        return [result, ctx.attempt]


def test_a_step_is_not_run_again_after_a_timeout(store: str):
    clock, hangs = FakeClock(), Hangs()
    with Flow(store=store, clock=clock) as flow:
        flow.add_task("pay", hangs, timeout=10, retry=AT_ONCE)
        run = flow.start("pay")
        passes(hangs.began)
        clock.advance(10)

        assert run.result(20) == {"pay": ["result", 2]}
        assert hangs.calls.count == 1
        hangs.go_on.set()


def test_a_step_is_not_run_again_after_a_pause_and_a_resume(flow: Flow):
    hangs = Hangs()
    flow.add_task("pay", hangs)
    run = flow.start("pay")
    passes(hangs.began)
    run.interrupt()
    hangs.go_on.set()
    assert run.status == "paused"

    assert flow.resume(run.id).result(20) == {"pay": ["result", 2]}
    assert hangs.calls.count == 1


KILLED = """
import sys, threading
from liteflow import Flow

def charge(key, *, place):
    print(key)
    if place == sys.argv[2]:
        threading.Event().wait()
    return (key, "paid")

flow = Flow(store=sys.argv[1])

@flow.task("pay")
def pay(ctx):
    ctx.step("charge", charge, ctx.idempotency_key, place="within")
    print("recorded")
    threading.Event().wait()

flow.run("pay", run_id="r")
"""


def test_a_step_is_not_run_again_by_the_process_that_takes_over_from_one_killed_right_after_it(flow: Flow, store: str):
    child = Child(KILLED, store, "after")
    key = child.line()
    assert child.line() == "recorded"
    child.kill()
    calls = Calls()
    flow.add_task("pay", lambda ctx: [ctx.step("charge", calls), ctx.idempotency_key, ctx.attempt])

    result = flow.resume("r").result(20)

    assert result == {"pay": [(key, "paid"), key, 2]}
    assert calls.count == 0


def test_a_step_whose_process_was_killed_within_it_is_run_again_with_the_same_idempotency_key(flow: Flow, store: str):
    child = Child(KILLED, store, "within")
    key = child.line()
    child.kill()
    flow.add_task("pay", lambda ctx: ctx.step("charge", lambda: ctx.idempotency_key))

    assert flow.resume("r").result(20) == {"pay": key}


def test_a_function_that_raises_records_nothing_and_is_called_again(flow: Flow, store: str):
    counts = []

    def charge(ctx: Context):
        counts.append(ctx.attempt)
        failing_once(ctx)
        return "paid"

    flow.add_task("pay", lambda ctx: ctx.step("charge", charge, ctx), retry=AT_ONCE)

    assert flow.run("pay") == {"pay": "paid"}
    assert counts == [1, 2]
    assert rows(store, "SELECT name, attempt FROM steps") == [("charge", 2)]


def test_what_a_step_writes_to_the_context_belongs_to_its_attempt(flow: Flow):
    flow.add_task("pay", lambda ctx: [ctx.step("a", ctx.set, "a", 1), failing_once(ctx), "a" in ctx], retry=AT_ONCE)

    assert flow.run("pay") == {"pay": [None, None, False]}


# ---------------------------------------------------------------- whose step it is


def test_each_turn_of_a_loop_has_steps_of_its_own(flow: Flow):
    @flow.task("loop")
    def loop(ctx: Context):
        n = ctx.update("n", lambda n: n + 1, 0)
        seen = ctx.step("turn", lambda: n)
        return TaskOutput(seen, [NextTask("loop")] if n < 3 else None)

    flow.run("loop")

    assert [version.value for version in flow.context.history("loop")] == [1, 2, 3]


def test_each_instance_and_each_run_has_steps_of_its_own(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", n, spawn_another=True) for n in range(3)]))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        return ctx.step("part", lambda: [inputs, ctx.run_id])

    for _ in range(2):
        run = flow.start("fan", context=flow.context)
        assert run.result(20) == {key: [n, run.id] for n, key in enumerate(["part", "part#2", "part#3"])}


def test_a_name_that_is_used_twice_in_an_attempt_is_refused(flow: Flow):
    calls = Calls()

    @flow.task("pay")
    def pay(ctx: Context):
        ctx.step("charge", calls)
        ctx.step("charge again", calls)
        ctx.step("charge", calls)

    with pytest.raises(TaskFailedError, match="Step name 'charge' was used before in this attempt; give each") as failed:
        flow.run("pay")
    assert isinstance(failed.value.__cause__, InvalidKeyError)
    assert calls.count == 2


def test_a_step_may_hold_steps_which_are_not_run_again_either(flow: Flow):
    inner = Calls("inner")

    @flow.task("pay", retry=AT_ONCE)
    def pay(ctx: Context):
        def outer():
            found = ctx.step("inner", inner)
            failing_once(ctx)
            return [found, "outer"]

        return ctx.step("outer", outer)

    assert flow.run("pay") == {"pay": ["inner", "outer"]}
    assert inner.count == 1


def test_an_idempotency_key_is_one_for_all_attempts_of_a_dispatch_and_for_nothing_else(flow: Flow):
    keys: dict[tuple[Any, ...], set[str]] = {}

    @flow.task("loop", retry=AT_ONCE)
    def loop(ctx: Context, inputs: int):
        keys.setdefault((ctx.run_id, ctx.key, inputs), set()).add(ctx.idempotency_key)
        failing_once(ctx)
        more = [NextTask("loop", inputs + 1), NextTask("loop", -1, spawn_another=True)] if 0 <= inputs < 3 else None
        return TaskOutput(None, more)

    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("loop", 0)]))
    for _ in range(2):
        flow.run("start")

    assert len(keys) == 2 * 7
    assert {len(found) for found in keys.values()} == {1}
    assert len(set.union(*keys.values())) == len(keys)


# ---------------------------------------------------------------- what a step returns


@pytest.mark.parametrize(
    "value", [None, False, [1, [2]], (1, (2,)), {1: {"a"}}, b"x", float("inf"), 2**70, Receipt(1, ["a"])], ids=repr
)
def test_the_first_attempt_and_the_later_ones_get_an_equal_result_of_the_same_type(flow: Flow, value: object):
    calls, seen = Calls(value), []

    @flow.task("pay", retry=AT_ONCE)
    def pay(ctx: Context):
        seen.append(ctx.step("charge", calls))
        failing_once(ctx)

    flow.run("pay")

    assert seen == [value, value]
    assert {type(found) for found in seen} == {type(value)}
    assert calls.count == 1


def test_a_result_is_a_copy_so_changing_it_changes_nothing(flow: Flow):
    receipt, seen = Receipt(1, ["a"]), []

    @flow.task("pay", retry=AT_ONCE)
    def pay(ctx: Context):
        found = ctx.step("charge", lambda: receipt)
        seen.append(list(found.lines))
        found.lines.append("changed")
        failing_once(ctx)

    flow.run("pay")

    assert [receipt.lines, *seen] == [["a"]] * 3


@pytest.mark.parametrize("by_name", [{"currency": "€"}, {"name": "a", "fn": "b", "self": "c"}], ids=["others", "like ours"])
def test_a_function_gets_its_arguments_by_place_and_by_name_whatever_they_are_called(flow: Flow, by_name: dict[str, str]):
    def charge(*args, **kwargs):
        return (args, kwargs)

    flow.add_task("pay", lambda ctx: ctx.step("charge", charge, 1, [2], **by_name))

    assert flow.run("pay") == {"pay": ((1, [2]), by_name)}


def test_a_result_that_cannot_be_stored_is_refused_by_the_name_of_its_step(flow: Flow, store: str):
    @flow.task("pay")
    def pay(ctx: Context):
        try:
            ctx.step("charge", lambda: {"lines": [1, open]})
        except SerializationError as error:
            return [str(error), error.key, error.path]

    text, key, path = flow.run("pay")["pay"]

    assert "step charge" in text
    assert (key, path) == ("step charge", ".lines[1]")
    assert rows(store, "SELECT * FROM steps") == []


# ---------------------------------------------------------------- on the disk


def test_a_step_is_on_the_disk_before_it_returns(flow: Flow, store: str, monkeypatch: pytest.MonkeyPatch):
    commits, seen = [], []

    @flow.task("pay")
    def pay(ctx: Context):
        for name in ("a", "b"):
            commits.clear()
            ctx.step(name, lambda: "paid")
            seen.append((commits[-1], rows(store, "SELECT name FROM steps ORDER BY name")))

    watch(flow, commits, monkeypatch)
    flow.run("pay")

    assert seen == [(FULL, [("a",)]), (FULL, [("a",), ("b",)])]


# ---------------------------------------------------------------- async


def test_async_steps_of_plain_and_async_functions_are_not_run_again(flow: Flow):
    plain, counts = Calls("plain"), []

    async def fetch(n: int, *, by: int):
        await asyncio.to_thread(counts.append, n)
        return n * by

    @flow.task("pay", retry=AT_ONCE)
    async def pay(ctx: Context):
        first = await ctx.astep("plain", plain)
        rest = await asyncio.gather(*(ctx.astep(f"fetch {n}", fetch, n, by=10) for n in range(3)))
        failing_once(ctx)
        return [first, *rest, ctx.attempt]

    assert flow.run("pay") == {"pay": ["plain", 0, 10, 20, 2]}
    assert plain.count == 1
    assert sorted(counts) == [0, 1, 2]


def test_a_plain_step_in_an_async_task_is_refused_and_so_is_an_async_function_in_a_plain_one(flow: Flow, store: str):
    async def fetch():
        raise AssertionError("nobody awaits it")

    async def wrong(ctx: Context):
        return ctx.step("fetch", Calls())

    for task, write in ((wrong, "await ctx.astep"), (lambda ctx: ctx.step("fetch", fetch), "await ctx.astep")):
        flow.add_task("fetch", task)
        with pytest.raises(TaskFailedError, match=write) as failed:
            flow.run("fetch")
        assert isinstance(failed.value.__cause__, AwaitNeededError)
    assert rows(store, "SELECT * FROM steps") == []


def test_an_async_step_that_is_used_twice_or_cannot_be_stored_is_refused(flow: Flow):
    async def result():
        return open

    @flow.task("pay")
    async def pay(ctx: Context):
        await ctx.astep("a", Calls())
        with pytest.raises(InvalidKeyError, match="Step name 'a' was used before"):
            await ctx.astep("a", Calls())
        with pytest.raises(SerializationError, match="step b"):
            await ctx.astep("b", result)

    assert flow.run("pay") == {"pay": None}
