"""`ctx.gather` waits for all instances of a task that are dispatched, and gives their outputs in dispatch order."""

from __future__ import annotations

import threading

import pytest

from liteflow import (
    Context,
    DeadlockError,
    Flow,
    NextTask,
    PoolExecutor,
    RetryPolicy,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutput,
)
from tests.features.children import Child
from tests.features.waiting import passes, until


def add_fan(flow: Flow, count: int, *others: NextTask) -> None:
    """Register a task that dispatches *count* instances of `part`, then others."""
    parts = [NextTask("part", n, spawn_another=True) for n in range(count)]
    flow.add_task("fan", lambda ctx: TaskOutput("fanned", [*parts, *others]))


def ten_times(ctx: Context, inputs: int) -> int:
    return 10 * inputs


# ---------------------------------------------------------------- what it gives


def test_it_waits_for_all_instances_whatever_the_workers(any_flow: Flow):
    add_fan(any_flow, 5, NextTask("sum"))
    any_flow.add_task("part", ten_times)
    any_flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert any_flow.run("fan")["sum"] == [0, 10, 20, 30, 40]


def test_with_one_worker_one_that_gathers_first_lets_those_run_that_it_waits_for(store: str):
    with Flow(store=store, executor=PoolExecutor(max_workers=1)) as flow:
        parts = [NextTask("part", n, spawn_another=True) for n in range(3)]
        flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("sum"), *parts]))
        flow.add_task("part", ten_times)
        attempts = []
        flow.add_task("sum", lambda ctx: attempts.append(ctx.attempt) or ctx.gather("part"))

        assert flow.run("fan")["sum"] == [0, 10, 20]
        assert attempts == [1]


def test_outputs_stand_in_dispatch_order_not_in_the_order_of_their_ends(flow: Flow):
    ended = [threading.Event() for _ in range(4)]
    ended[3].set()
    ends = []
    add_fan(flow, 3, NextTask("sum"))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        passes(ended[inputs + 1])
        ends.append(inputs)
        ended[inputs].set()
        return inputs

    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("fan")["sum"] == [0, 1, 2]
    assert ends == [2, 1, 0]


def test_instances_that_were_done_before_are_in_it_too(flow: Flow):
    add_fan(flow, 3)
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", n, True) for n in range(3)], join=NextTask("more")))
    flow.add_task("more", lambda ctx: TaskOutput(0, [NextTask("sum")]))
    flow.add_task("part", ten_times)
    flow.add_task("sum", lambda ctx: [ctx.gather("part"), ctx.gather("part")])

    assert flow.run("fan") == {"sum": [[0, 10, 20], [0, 10, 20]]}


def test_a_task_of_which_nothing_was_dispatched_gives_an_empty_list(flow: Flow):
    flow.add_task("part", ten_times)
    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("sum") == {"sum": []}


def test_a_task_that_the_flow_does_not_have_is_refused_by_name(flow: Flow):
    flow.add_task("part", ten_times)
    flow.add_task("sum", lambda ctx: ctx.gather("prat"))

    with pytest.raises(TaskFailedError, match="Task prat not found; did you mean 'part'") as failed:
        flow.run("sum")

    assert isinstance(failed.value.__cause__, TaskNotFoundError)


def test_instances_of_an_earlier_run_in_the_same_context_are_not_in_it(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", n, True) for n in ctx.inputs["ns"]], join=NextTask("sum")))
    flow.add_task("part", ten_times)
    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("fan", {"ns": [1, 2, 3]}) == {"sum": [10, 20, 30]}
    assert flow.run("fan", {"ns": [4, 5]}) == {"sum": [40, 50]}
    assert flow.run("sum") == {"sum": []}
    assert flow.context.get("part#3") == 30


def test_the_callers_own_instance_is_left_out(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", n, spawn_another=True) for n in range(3)]))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        return [inputs, *(ctx.gather("part") if inputs == 2 else ())]

    assert flow.run("fan") == {"part": [0], "part#2": [1], "part#3": [2, [0], [1]]}


def test_one_that_dispatched_itself_again_does_not_gather_its_last_turn(flow: Flow):
    @flow.task("loop")
    def loop(ctx: Context):
        n = ctx.update("n", lambda n: n + 1, 0)
        return TaskOutput(ctx.gather("loop"), [NextTask("loop")] if n < 3 else None)

    assert flow.run("loop") == {"loop": []}


def test_two_that_gather_each_other_are_told_that_this_can_never_end(flow: Flow):
    together = threading.Barrier(2)
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("a"), NextTask("b")]))
    for task, other in (("a", "b"), ("b", "a")):
        flow.add_task(task, lambda ctx, other=other: together.wait(20) is None or ctx.gather(other))

    with pytest.raises(TaskFailedError) as failed:
        flow.run("fan")

    assert isinstance(failed.value.__cause__, DeadlockError)
    assert set(failed.value.__cause__.waiting.items()) == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize("task_id", ["", 7, None])
def test_what_is_no_task_id_is_refused(flow: Flow, task_id):
    flow.add_task("sum", lambda ctx: ctx.gather(task_id))

    with pytest.raises(TaskFailedError, match="Task id"):
        flow.run("sum")


def test_five_hundred_instances_are_gathered_in_order(flow: Flow):
    add_fan(flow, 500, NextTask("sum"))
    flow.add_task("part", ten_times)
    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("fan")["sum"] == [10 * n for n in range(500)]


# ---------------------------------------------------------------- instances that come later


def test_instances_that_are_dispatched_while_it_waits_are_waited_for_too(flow: Flow):
    dispatched, began = threading.Event(), threading.Event()
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", 1), NextTask("sum"), NextTask("more")]))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        began.set()
        passes(dispatched)
        return inputs

    flow.add_task("more", lambda ctx: passes(began) or TaskOutput(0, [NextTask("part", 2, spawn_another=True), NextTask("then")]))
    flow.add_task("then", lambda ctx: dispatched.set())
    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("fan")["sum"] == [1, 2]


def test_a_reducer_that_was_merged_by_who_dispatched_an_instance_beside_it_sees_that_instance(flow: Flow):
    gathered, merged, reduced = threading.Event(), threading.Event(), threading.Event()
    found: list[list[int]] = []
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", 1), NextTask("sum"), NextTask("then")]))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        if inputs == 2:
            merged.set()
            passes(reduced)
        return inputs

    @flow.task("sum")
    def total(ctx: Context):
        found.append(ctx.gather("part"))
        gathered.set()
        passes(merged)
        return TaskOutput(found[-1], [NextTask("over")])

    flow.add_task("then", lambda ctx: passes(gathered) or TaskOutput(0, [NextTask("part", 2, True), NextTask("sum")]))
    flow.add_task("over", lambda ctx: reduced.set())

    flow.run("fan")

    assert found == [[1], [2]]  # the second one has the key of the first, which was done


@pytest.mark.parametrize("more", [[NextTask("part", 2)], []], ids=["another has completed", "nothing has changed"])
def test_a_reducer_that_was_merged_while_it_ran_runs_once_more_only_if_another_instance_completed(flow: Flow, more: list):
    gathered, found, merged = threading.Event(), [], threading.Event()
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("part", 1), NextTask("sum"), NextTask("then")]))
    flow.add_task("part", ten_times)

    @flow.task("sum")
    def total(ctx: Context):
        found.append(ctx.gather("part"))
        gathered.set()
        passes(merged)
        return found[-1]

    @flow.task("then")
    def then(ctx: Context):
        passes(gathered)
        return TaskOutput(0, [*more, NextTask("wait")])

    flow.add_task("wait", lambda ctx: TaskOutput(ctx.get("part"), [NextTask("sum"), NextTask("last")]))
    flow.add_task("last", lambda ctx: merged.set())

    result = flow.run("fan")

    assert found == ([[10], [20]] if more else [[10]])
    assert result["sum"] == found[-1]


def test_a_reducer_dispatched_by_every_part_ends_with_all_of_them(any_flow: Flow):
    add_fan(any_flow, 20)
    any_flow.add_task("part", lambda ctx, inputs: TaskOutput(inputs, [NextTask("sum")]))
    any_flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert any_flow.run("fan") == {"sum": list(range(20))}


# ---------------------------------------------------------------- failures and crashes


def test_a_part_that_is_tried_again_is_waited_for(flow: Flow):
    add_fan(flow, 3, NextTask("sum"))

    @flow.task("part", retry=RetryPolicy(max_attempts=3, initial_interval=0))
    def part(ctx: Context, inputs: int):
        if inputs == 1 and ctx.attempt < 3:
            raise ConnectionError("no luck")
        return [inputs, ctx.attempt]

    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.run("fan")["sum"] == [[0, 1], [1, 3], [2, 1]]


def test_a_part_that_fails_ends_the_wait_and_the_resume_gathers_all(flow: Flow):
    broken, waits = [True], threading.Event()
    add_fan(flow, 3, NextTask("sum"))

    @flow.task("part")
    def part(ctx: Context, inputs: int):
        if inputs == 1 and broken:
            passes(waits)
            raise ValueError("broken")
        return inputs

    flow.add_task("sum", lambda ctx: waits.set() or ctx.gather("part"))

    with pytest.raises(TaskFailedError, match="part#2 .* failed with ValueError: broken") as failed:
        flow.run("fan")
    broken.clear()

    assert flow.resume(failed.value.run_id).result(20)["sum"] == [0, 1, 2]


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
parts = [NextTask("part", n, True) for n in range(4)]
flow.add_task("fan", lambda ctx: TaskOutput(0, [*parts, NextTask("sum")]))

@flow.task("part")
def part(ctx, inputs):
    if inputs == 2:
        threading.Event().wait()
    return inputs

@flow.task("sum")
def total(ctx):
    print("gathers")
    ctx.gather("part")

flow.run("fan", run_id="r")
"""


def test_one_that_was_killed_while_it_gathered_finds_all_in_the_next_process(flow: Flow, store: str):
    child = Child(KILLED, store)
    assert child.line() == "gathers"
    until(lambda: sum(record.status == "completed" for record in flow.get_run("r").tasks()) == 4)
    child.kill()
    again: list[int] = []
    flow.add_task("part", lambda ctx, inputs: again.append(inputs) or inputs)
    flow.add_task("sum", lambda ctx: ctx.gather("part"))

    assert flow.resume("r").result(20)["sum"] == [0, 1, 2, 3]
    assert again == [2]


# ---------------------------------------------------------------- async


def test_agather_gives_the_same_and_lets_others_on_the_loop_go_on(flow: Flow):
    add_fan(flow, 3, NextTask("sum"))

    @flow.task("part")
    async def part(ctx: Context, inputs: int):
        return [inputs, *(await ctx.agather("part") if inputs == 2 else ())]

    @flow.task("sum")
    async def total(ctx: Context):
        return await ctx.agather("part")

    assert flow.run("fan")["sum"] == [[0], [1], [2, [0], [1]]]


def test_agather_of_a_task_that_the_flow_does_not_have_is_refused(flow: Flow):
    @flow.task("sum")
    async def total(ctx: Context):
        return await ctx.agather("part")

    with pytest.raises(TaskFailedError, match="Task part not found"):
        flow.run("sum")
