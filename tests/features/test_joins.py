"""R6: a join starts once, when all that its output dispatched has completed, and finds their outputs in dispatch order."""

from __future__ import annotations

import threading

import pytest

from liteflow import Context, DeadlockError, Flow, NextTask, RetryPolicy, TaskFailedError, TaskOutput
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import passes, until

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)


def parts(count: int) -> list[NextTask]:
    """Ask for so many instances of `part`, numbered from 0."""
    return [NextTask("part", n, spawn_another=True) for n in range(count)]


def add_fan(flow: Flow, members: list[NextTask], join: NextTask | None = None) -> list[object]:
    """Register a task that dispatches *members* and a join, and the join; return what it finds each time it starts."""
    found: list[object] = []
    flow.add_task("fan", lambda ctx: TaskOutput("fanned", members, join=join or NextTask("reduce")))

    @flow.task("reduce")
    def reduce(ctx: Context):
        found.append(ctx.joined)
        return ctx.joined

    return found


def ten_times(ctx: Context, inputs: int) -> int:
    return 10 * inputs


# ---------------------------------------------------------------- what a join finds, and when it starts


def test_a_join_starts_once_and_only_the_join_is_in_the_result_of_the_run(any_flow: Flow):
    found = add_fan(any_flow, parts(5))
    any_flow.add_task("part", ten_times)

    assert any_flow.run("fan") == {"reduce": [0, 10, 20, 30, 40]}
    assert found == [[0, 10, 20, 30, 40]]


def test_outputs_stand_in_dispatch_order_and_the_join_starts_only_after_the_last(flow: Flow):
    found = add_fan(flow, parts(3))
    ended = [threading.Event() for _ in range(4)]
    ended[3].set()
    ends: list[int] = []

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        passes(ended[inputs + 1])
        assert not found
        ends.append(inputs)
        ended[inputs].set()
        return inputs

    flow.run("fan")

    assert ends == [2, 1, 0]
    assert found == [[0, 1, 2]]


def test_a_member_that_has_not_committed_keeps_the_join_from_starting(flow: Flow, store: str):
    found, others, go_on = add_fan(flow, parts(3)), threading.Event(), threading.Event()

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        if inputs == 1:
            others.set()
            passes(go_on)
        return inputs

    run = flow.start("fan")
    passes(others)
    until(lambda: one(store, "SELECT count(*) FROM tasks WHERE status = 'completed'") == 3)
    assert found == []
    assert [(record.status, record.attempts) for record in run.tasks() if record.key == "reduce"] == [("pending", 0)]
    go_on.set()

    assert run.result(20) == {"reduce": [0, 1, 2]}


@pytest.mark.parametrize("members", [[], None])
def test_a_join_of_nothing_starts_at_once_with_an_empty_list(flow: Flow, members):
    found = add_fan(flow, members)

    assert flow.run("fan") == {"reduce": []}
    assert found == [[]]


def test_joined_is_none_in_a_task_that_is_no_join(flow: Flow):
    add_fan(flow, parts(2))

    @flow.task("part")
    def part(ctx: Context):
        return ctx.joined

    assert flow.run("fan") == {"reduce": [None, None]}
    assert flow.run("reduce") == {"reduce": None}


def test_members_may_be_of_several_tasks_and_a_join_has_inputs_of_its_own(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("a"), NextTask("b", 1), *parts(2)], join=NextTask("sum", (1, 2))))
    for task in ("a", "b"):
        flow.add_task(task, lambda ctx, task=task: task)
    flow.add_task("part", ten_times)

    @flow.task("sum")
    def total(ctx: Context, inputs: tuple):
        return ctx.joined, inputs, ctx.key

    assert flow.run("fan") == {"sum": (["a", "b", 0, 10], (1, 2), "sum")}


def test_a_thousand_members_are_joined_once_in_order(flow: Flow):
    found = add_fan(flow, parts(1_000))
    flow.add_task("part", lambda ctx, inputs: inputs)

    assert flow.run("fan") == {"reduce": list(range(1_000))}
    assert len(found) == 1


# ---------------------------------------------------------------- joins of joins


def test_a_member_that_fans_out_itself_has_completed_when_it_returned(flow: Flow):
    flow.add_task(
        "fan", lambda ctx: TaskOutput(0, [NextTask("half", n, spawn_another=True) for n in (1, 2)], join=NextTask("all"))
    )

    @flow.task("half")
    def half(ctx: Context, inputs: int):
        quarters = [NextTask("quarter", 10 * inputs + n, spawn_another=True) for n in (1, 2)]
        return TaskOutput(f"half {inputs}", quarters, join=NextTask("both", spawn_another=True))

    flow.add_task("quarter", lambda ctx, inputs: inputs)
    for join in ("both", "all"):
        flow.add_task(join, lambda ctx: ctx.joined)

    result = flow.run("fan")

    assert result["all"] == ["half 1", "half 2"]
    assert sorted(value for key, value in result.items() if key != "all") == [[11, 12], [21, 22]]


def test_a_join_that_returns_a_join_starts_the_next_barrier(flow: Flow):
    flow.add_task("first", lambda ctx: TaskOutput(0, parts(3), join=NextTask("second")))
    flow.add_task("part", ten_times)

    @flow.task("second")
    def second(ctx: Context):
        return TaskOutput(ctx.joined, [NextTask("part", n + 1, spawn_another=True) for n in ctx.joined], join=NextTask("third"))

    flow.add_task("third", lambda ctx: [ctx.joined, ctx.get("second")])

    assert flow.run("first") == {"third": [[10, 110, 210], [0, 10, 20]]}


def test_a_join_may_dispatch_itself_again_as_the_barrier_of_each_round(flow: Flow):
    @flow.task("round")
    def rounds(ctx: Context):
        size = 3 if ctx.joined is None else len(ctx.joined) - 1
        return TaskOutput(ctx.joined, parts(size), join=NextTask("round")) if size else TaskOutput(ctx.joined)

    flow.add_task("part", ten_times)

    assert flow.run("round") == {"round": [0]}
    assert [version.value for version in flow.context.history("round")] == [None, [0, 10, 20], [0, 10], [0]]


def test_a_join_of_the_same_task_as_its_members_starts_after_them(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", 1), NextTask("part", 2)], join=NextTask("part", 3)))
    flow.add_task("part", lambda ctx, inputs: [inputs, ctx.joined])

    assert flow.run("fan") == {"part": [3, [[1, None], [2, None]]]}


# ---------------------------------------------------------------- members that merge or are turns


def test_members_that_merge_give_the_output_of_the_one_that_did_their_work(flow: Flow):
    found = add_fan(flow, [NextTask("part", 1), NextTask("part", 1), NextTask("part", 1)])
    calls: list[int] = []
    flow.add_task("part", lambda ctx, inputs: calls.append(inputs) or len(calls))

    assert flow.run("fan") == {"reduce": [1, 1, 1]}
    assert (calls, found) == ([1], [[1, 1, 1]])


def test_members_that_are_turns_of_one_instance_give_each_their_own_output(flow: Flow):
    found = add_fan(flow, [NextTask("part", 3), NextTask("part", 1), NextTask("part", 2)])
    flow.add_task("part", ten_times)

    assert flow.run("fan") == {"reduce": [30, 10, 20]}
    assert found == [[30, 10, 20]]


def test_a_member_that_merges_into_one_that_runs_is_waited_for(flow: Flow):
    began, dispatched, found = threading.Event(), threading.Event(), []
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("slow"), NextTask("fan")]))

    @flow.task("slow")
    def slow(ctx: Context):
        began.set()
        passes(dispatched)
        assert not found
        return "slow"

    @flow.task("fan")
    def fan(ctx: Context):
        passes(began)
        return TaskOutput("fan", [NextTask("slow"), NextTask("quick")], join=NextTask("reduce"))

    flow.add_task("quick", lambda ctx: dispatched.set() or "quick")
    flow.add_task("reduce", lambda ctx: found.append(ctx.joined) or ctx.joined)

    assert flow.run("start") == {"reduce": ["slow", "quick"]}
    assert found == [["slow", "quick"]]


# ---------------------------------------------------------------- members that take their time


def test_a_member_that_is_tried_again_is_waited_for(flow: Flow):
    found = add_fan(flow, parts(3))

    @flow.task("part", retry=AT_ONCE)
    def part(ctx: Context, inputs: int):
        if inputs == 1 and ctx.attempt < 3:
            raise ConnectionError("no luck")
        return [inputs, ctx.attempt]

    flow.run("fan")

    assert found == [[[0, 1], [1, 3], [2, 1]]]


def test_members_in_conflict_are_run_again_before_the_join(flow: Flow):
    found, together = add_fan(flow, parts(2)), threading.Barrier(2)
    flow.context.set("n", 0)

    @flow.task("part")
    def part(ctx: Context):
        n = ctx.get("n")
        if ctx.attempt == 1:
            together.wait(20)
        ctx.set("n", n + 1)
        return n

    flow.run("fan")

    assert [sorted(outputs) for outputs in found] == [[0, 1]]
    assert flow.context.get("n") == 2


def test_a_member_that_is_delayed_or_waits_for_a_signal_is_waited_for(store: str):
    clock = FakeClock()
    with Flow(store=store, clock=clock) as flow:
        found = add_fan(flow, [NextTask("part", 1, True), NextTask("part", 2, True, delay=60), NextTask("ask", wait_for=["yes"])])
        flow.add_task("part", ten_times)
        flow.add_task("ask", lambda ctx: ctx.get("yes"))
        run = flow.start("fan")
        until(lambda: run.status == "waiting")
        run.context.set("yes", "said")
        until(lambda: run.status == "waiting" and "ask" in run.context)
        assert found == []

        clock.advance(60)

        assert run.result(20) == {"reduce": [10, 20, "said"]}
        assert len(found) == 1


def test_a_join_may_be_delayed_wait_for_a_key_and_be_one_of_several(store: str):
    clock = FakeClock()
    with Flow(store=store, clock=clock) as flow:
        join = NextTask("reduce", spawn_another=True, delay=60, wait_for=["go"])
        found = add_fan(flow, [*parts(2), NextTask("reduce")], join)
        flow.add_task("part", ten_times)
        run = flow.start("fan")
        until(lambda: run.status == "waiting")
        assert found == [None]
        assert run.reason == "task reduce#2 waits for go"
        run.context.set("go", 1)
        assert found == [None]

        clock.advance(60)

        assert run.result(20) == {"reduce#2": [0, 10, None]}


# ---------------------------------------------------------------- members that fail, and processes that die


def test_a_join_does_not_start_when_a_member_fails_and_starts_once_after_the_resume(flow: Flow):
    found, broken = add_fan(flow, parts(3)), [True]
    calls: list[int] = []

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        calls.append(inputs)
        return 1 / 0 if broken and inputs == 2 else inputs

    with pytest.raises(TaskFailedError) as failed:
        flow.run("fan")
    assert found == []
    broken.clear()

    assert flow.resume(failed.value.run_id).result(20) == {"reduce": [0, 1, 2]}
    assert found == [[0, 1, 2]]
    assert calls.count(2) == 2


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
last = int(sys.argv[2])

@flow.task("fan")
def fan(ctx):
    return TaskOutput(0, [NextTask("part", n, True) for n in range(3)], join=NextTask("reduce"))

@flow.task("part")
def part(ctx, inputs):
    if inputs == last:
        print("reached")
        threading.Event().wait()
    return inputs

@flow.task("reduce")
def reduce(ctx):
    print("reached")
    threading.Event().wait()

flow.run("fan", run_id="r")
"""


@pytest.mark.parametrize("last", [0, 1, 2, 9], ids=["before the 1st", "before the 2nd", "before the 3rd", "in the join"])
def test_a_join_whose_process_was_killed_starts_once_more_in_the_next_one_and_finds_the_same(flow: Flow, store: str, last: int):
    done = 1 + (3 if last == 9 else 2)
    child = Child(KILLED, store, last)
    assert child.line() == "reached"
    until(lambda: one(store, "SELECT count(*) FROM tasks WHERE status = 'completed'") == done)
    child.kill()
    found, again = add_fan(flow, parts(3)), []
    flow.add_task("part", lambda ctx, inputs: again.append(inputs) or inputs)

    assert flow.resume("r").result(20) == {"reduce": [0, 1, 2]}

    assert found == [[0, 1, 2]]
    assert again == [last] * (last != 9)
    assert rows(store, "SELECT count(*) FROM tasks WHERE task_id = 'reduce'") == [(1,)]


def test_merged_members_and_turns_are_joined_alike_by_a_process_that_takes_the_run_up(store: str):
    members = [NextTask("part", 1), NextTask("part", 1), NextTask("part", 2), NextTask("late", wait_for=["go"])]
    with Flow(store=store) as first:
        add_fan(first, members)
        first.add_task("part", ten_times)
        first.add_task("late", lambda ctx: "late")
        run = first.start("fan", run_id="r")
        until(lambda: run.status == "waiting")

    with Flow(store=store) as second:
        found = add_fan(second, members)
        second.add_task("part", ten_times)
        second.add_task("late", lambda ctx: "late")
        run = second.resume("r")
        run.context.set("go", 1)

        assert run.result(20) == {"reduce": [10, 10, 20, "late"]}
        assert len(found) == 1


def test_a_member_that_waits_for_its_join_is_told_that_this_can_never_end(flow: Flow):
    found = add_fan(flow, parts(2))
    flow.add_task("part", lambda ctx, inputs: ctx.get("reduce") if inputs == 1 else inputs)

    with pytest.raises(TaskFailedError, match="part#2 waits for reduce") as failed:
        flow.run("fan")

    assert isinstance(failed.value.__cause__, DeadlockError)
    assert found == []
