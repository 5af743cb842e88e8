"""A dispatch is never lost, and runs no more than it must (R6)."""

from __future__ import annotations

import threading

import pytest

from liteflow import Context, Flow, InvalidKeyError, NextTask, NotATaskError, PoolExecutor, TaskOutput
from tests.features.waiting import passes, until


def keys_of(run) -> list[tuple[str, str]]:
    return [(record.key, str(record.status)) for record in run.tasks()]


# ---------------------------------------------------------------- how tasks are called, and what they return


@pytest.mark.parametrize("value", [None, 0, "text", [1], {"a": 1}, (1, 2)], ids=repr)
def test_any_value_that_a_task_returns_stands_for_its_output(flow: Flow, value: object):
    flow.add_task("a", lambda ctx: value)

    assert flow.run("a") == {"a": value}
    assert flow.context.get("a") == value


@pytest.mark.parametrize("none", [None, [], ()], ids=repr)
def test_no_next_tasks_may_be_written_in_any_way(flow: Flow, none: object):
    flow.add_task("a", lambda ctx: TaskOutput(1, none))

    assert flow.run("a") == {"a": 1}


def test_a_task_gets_its_inputs_if_its_second_parameter_is_named_so_and_none_if_it_has_none(flow: Flow):
    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("with", inputs=(1, 2)), NextTask("without")]))
    flow.add_task("with", lambda ctx, inputs: [inputs, ctx.inputs])
    flow.add_task("without", lambda ctx, inputs: [inputs, ctx.inputs])

    assert flow.run("start") == {"with": [(1, 2), (1, 2)], "without": [None, None]}


def test_inputs_of_a_run_are_keys_of_its_context_and_inputs_of_a_dispatch_are_not(flow: Flow):
    flow.add_task("start", lambda ctx, inputs: TaskOutput(inputs, [NextTask("next", {"b": 2})]))
    flow.add_task("next", lambda ctx: [ctx.get("a"), ctx.get("b", "not there")])

    assert flow.run("start", {"a": 1}) == {"next": [1, "not there"]}
    assert flow.context.get("start") == {"a": 1}


def test_registering_an_id_again_replaces_the_task(flow: Flow):
    flow.add_task("a", lambda ctx: "old")
    flow.run("a")
    flow.add_task("a", lambda ctx: "new")

    assert flow.run("a") == {"a": "new"}


def test_a_task_is_named_after_its_function_unless_an_id_is_given(flow: Flow):
    @flow.task()
    def load(ctx: Context):
        return TaskOutput(None, [NextTask("renamed")])

    @flow.task("renamed")
    def train(ctx: Context):
        return ctx.task_id

    assert flow.run("load") == {"renamed": "renamed"}
    assert load.__name__ == "load"


@pytest.mark.parametrize("task_id", ["a#2", "", "a\0b", 7, None, "x" * 513], ids=repr)
def test_a_task_id_that_cannot_be_a_key_is_refused(flow: Flow, task_id: object):
    with pytest.raises(InvalidKeyError, match="^Task id "):
        flow.add_task(task_id, lambda ctx: 1)


@pytest.mark.parametrize("action", [None, 7, lambda: 1, lambda ctx, other: 1], ids=["none", "number", "no context", "two"])
def test_what_cannot_be_called_as_a_task_is_refused_when_it_is_registered(flow: Flow, action: object):
    with pytest.raises(NotATaskError, match="cannot be a task"):
        flow.add_task("a", action)


# ---------------------------------------------------------------- keys of instances


def test_a_task_that_is_not_active_is_dispatched_under_its_own_id_each_time(flow: Flow):
    @flow.task("loop")
    def loop(ctx: Context):
        turns = ctx.get("turns", 0) + 1
        ctx.set("turns", turns)
        return TaskOutput(turns, [NextTask("loop", spawn_another=True)] if turns < 3 else None)

    run = flow.start("loop")

    assert run.result(20) == {"loop": 3}
    assert keys_of(run) == [("loop", "completed")] * 3


def test_spawned_instances_are_numbered_and_a_number_is_not_used_twice_in_a_run(flow: Flow):
    @flow.task("fan")
    def fan(ctx: Context):
        return TaskOutput(None, [NextTask("part", spawn_another=True) for _ in range(3)] + [NextTask("again")])

    @flow.task("again")
    def again(ctx: Context):
        for key in ("part", "part#2", "part#3"):
            ctx.get(key)
        return TaskOutput(None, [NextTask("part", spawn_another=True) for _ in range(2)])

    flow.add_task("part", lambda ctx: ctx.key)
    run = flow.start("fan")

    assert run.result(20) == {"part": "part", "part#2": "part#2", "part#3": "part#3", "part#4": "part#4"}
    assert [key for key, _ in keys_of(run)] == ["fan", "part", "part#2", "part#3", "again", "part", "part#4"]


def test_the_numbers_of_instances_begin_anew_with_each_run(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True) for _ in range(2)]))
    flow.add_task("part", lambda ctx: ctx.key)

    assert flow.run("fan") == flow.run("fan") == {"part": "part", "part#2": "part#2"}


def test_the_result_holds_those_that_dispatched_nothing_in_dispatch_order(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput("fan", [NextTask("b"), NextTask("a"), NextTask("c")]))
    flow.add_task("a", lambda ctx: TaskOutput("a", [NextTask("d")]))
    for leaf in "bcd":
        flow.add_task(leaf, lambda ctx: ctx.key)

    result = flow.run("fan")

    assert list(result.items()) == [("b", "b"), ("c", "c"), ("d", "d")]


# ---------------------------------------------------------------- merged, or one more turn


def test_a_merged_dispatch_that_has_not_started_sees_what_its_dispatcher_wrote(store: str):
    with Flow(executor=PoolExecutor(max_workers=1), store=store) as flow:  # one worker: the reducer starts last
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("map", n, spawn_another=True) for n in range(4)]))

        @flow.task("map")
        def map_one(ctx: Context, inputs):
            ctx.set(f"part {inputs}", inputs)
            return TaskOutput(None, [NextTask("reduce")])

        flow.add_task("reduce", lambda ctx: [ctx.get(f"part {n}") for n in range(4)])
        run = flow.start("fan")

        assert run.result(20) == {"reduce": [0, 1, 2, 3]}
        assert keys_of(run)[5:] == [("reduce", "completed"), *[("reduce", "merged")] * 3]


def reduce_twice(flow: Flow, *, reads: bool, writes: bool) -> list[str]:
    """Dispatch a task anew while it runs; return the status of its two dispatches."""
    running, merged = threading.Event(), threading.Event()
    flow.context.set("total", 0)
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("reduce"), NextTask("late")]))

    @flow.task("late")
    def late(ctx: Context):
        passes(running)
        if writes:
            ctx.set("total", 1)
        return TaskOutput(None, [NextTask("reduce")])

    @flow.task("reduce")
    def reduce(ctx: Context):
        total = ctx.get("total") if reads else None
        running.set()
        passes(merged)
        return total

    run = flow.start("fan", context=flow.context)
    passes(running)
    until(lambda: len(run.tasks()) == 4)
    merged.set()
    run.result(20)
    return [str(record.status) for record in run.tasks() if record.key == "reduce"]


def test_a_reducer_that_was_running_runs_once_more_when_what_it_read_has_changed(flow: Flow):
    assert reduce_twice(flow, reads=True, writes=True) == ["completed", "completed"]
    assert flow.context.get("reduce") == 1


@pytest.mark.parametrize(("reads", "writes"), [(True, False), (False, True), (False, False)])
def test_a_reducer_that_was_running_does_not_run_again_when_nothing_it_read_has_changed(flow: Flow, reads: bool, writes: bool):  # noqa: FBT001 - the cases
    assert reduce_twice(flow, reads=reads, writes=writes) == ["completed", "merged"]


def test_a_join_that_waits_for_its_inputs_runs_once(flow: Flow):
    ran = []
    flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("left"), NextTask("right")]))
    flow.add_task("left", lambda ctx: TaskOutput("l", [NextTask("join")]))
    flow.add_task("right", lambda ctx: TaskOutput("r", [NextTask("join")]))
    flow.add_task("join", lambda ctx: ran.append(1) or ctx.get("left") + ctx.get("right"))

    for _ in range(50):
        assert flow.run("start") == {"join": "lr"}
    assert len(ran) == 50


def test_a_dispatch_with_other_inputs_is_one_more_turn_in_dispatch_order(flow: Flow):
    order = []
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("turn", n) for n in (3, 1, 2)]))
    flow.add_task("turn", lambda ctx, inputs: order.append(inputs) or inputs)

    run = flow.start("fan")

    assert run.result(20) == {"turn": 2}
    assert order == [3, 1, 2]
    assert keys_of(run)[1:] == [("turn", "completed")] * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1, "b": [2]}, {"b": [2], "a": 1}), (1, 1.0), ({1, 2, 3}, {3, 2, 1})],
    ids=["dicts", "numbers", "sets"],
)
def test_inputs_that_are_equal_in_python_are_equal_inputs(store: str, one: object, other: object):
    with Flow(executor=PoolExecutor(max_workers=1), store=store) as flow:
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("same", one), NextTask("same", other)]))
        flow.add_task("same", lambda ctx: None)
        run = flow.start("fan")
        run.result(20)

        assert keys_of(run)[1:] == [("same", "completed"), ("same", "merged")]


def test_a_task_may_dispatch_itself_and_is_not_merged_into_itself(flow: Flow):
    @flow.task("again")
    def again(ctx: Context):
        turns = ctx.update("turns", lambda n: n + 1, default=0)
        return TaskOutput(turns, [NextTask("again")] if turns < 100 else None)

    run = flow.start("again")

    assert run.result(20) == {"again": 99 + 1}
    assert {str(record.status) for record in run.tasks()} == {"completed"}
    assert len(run.tasks()) == 100


def test_a_dispatch_starts_only_after_the_commit_that_holds_it(flow: Flow):
    """What the dispatcher wrote is there when the dispatched one begins, as committed by it."""
    flow.add_task("write", lambda ctx: ctx.set("n", ctx.get("n", 0) + 1) or TaskOutput(None, [NextTask("read")]))

    @flow.task("read")
    def read(ctx: Context):
        (*_, version) = ctx.history("n")
        assert version.task_key == "write"
        assert version.run_id == ctx.run_id
        return TaskOutput(version.value, [NextTask("write")] if version.value < 50 else None)

    assert flow.run("write") == {"read": 50}


def test_a_dispatch_behind_a_failed_one_is_not_lost(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("turn", n) for n in range(3)]))
    broken = [True]

    @flow.task("turn")
    def turn(ctx: Context, inputs):
        if inputs == 1 and broken:
            raise ValueError("no")
        return ctx.update("turns", lambda turns: [*turns, inputs], default=[])

    run = flow.start("fan")
    assert run.wait(20) == "failed"
    broken.clear()

    assert flow.resume(run.id).result(20) == {"turn": [0, 1, 2]}
