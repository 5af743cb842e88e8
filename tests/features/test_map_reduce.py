"""The map-reduce of the product page, and many tasks that change one key: nothing is lost, and nobody is starved."""

from __future__ import annotations

import random
import threading

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput

ROUNDS = 500
LONGEST_DELAY = 0.004  # seconds
MANY = 64


def delay(chance: random.Random) -> None:
    threading.Event().wait(chance.uniform(0, LONGEST_DELAY))


def add_map_reduce(flow: Flow, chance: random.Random) -> None:
    """The tasks of the page, each delayed where threads could come between."""

    @flow.task("task1")
    def task1(ctx: Context):
        ctx.set("collector", [])
        return TaskOutput("result1", [NextTask("task2", spawn_another=True) for _ in range(3)])

    @flow.task("task2")
    def task2(ctx: Context):
        delay(chance)
        collector = ctx.get("collector")
        delay(chance)
        collector.append("result2")
        ctx.set("collector", collector)
        delay(chance)
        return TaskOutput("", [NextTask("task3")])

    @flow.task("task3")
    def task3(ctx: Context):
        delay(chance)
        return TaskOutput(ctx.get("collector"))


def test_the_map_reduce_of_the_page_is_right_500_times_on_4_threads(flow: Flow):
    add_map_reduce(flow, random.Random(20261123))  # noqa: S311 - delays, no secret

    wrong = [result for _ in range(ROUNDS) if (result := flow.run("task1")) != {"task3": ["result2"] * 3}]

    assert wrong == []


def test_many_map_reduces_side_by_side_do_not_see_each_other(flow: Flow):
    add_map_reduce(flow, random.Random(20261124))  # noqa: S311 - delays, no secret

    runs = [flow.start("task1") for _ in range(50)]

    assert [run.result(20) for run in runs] == [{"task3": ["result2"] * 3}] * 50


def attempts_of_many(flow: Flow) -> int:
    """Run a flow of many instances of one task; return how many attempts these took."""

    @flow.task("fan")
    def fan(ctx: Context):
        ctx.set("total", 0)
        return TaskOutput(None, [NextTask("add", spawn_another=True) for _ in range(MANY)])

    run = flow.start("fan")
    run.result(60)
    assert run.context.get("total") == MANY
    return sum(record.attempts for record in run.tasks() if record.task_id == "add")


def test_64_tasks_that_change_one_key_take_at_most_3_attempts_each(flow: Flow):
    chance = random.Random(64)  # noqa: S311 - delays, no secret

    @flow.task("add")
    def add(ctx: Context):
        total = ctx.get("total")
        delay(chance)
        ctx.set("total", total + 1)

    assert attempts_of_many(flow) <= 3 * MANY


def test_64_tasks_on_64_threads_that_change_one_key_take_at_most_3_attempts_each(store: str):
    together = threading.Barrier(MANY)

    with Flow(executor=PoolExecutor(max_workers=MANY), store=store) as flow:

        @flow.task("add")
        def add(ctx: Context):
            total = ctx.get("total")
            if ctx.attempt == 1:
                together.wait(20)  # so that all have read before the first one writes
            ctx.set("total", total + 1)

        attempts = attempts_of_many(flow)

    assert MANY < attempts <= 3 * MANY


def test_64_updates_of_one_key_run_each_task_once(flow: Flow):
    @flow.task("add")
    def add(ctx: Context):
        ctx.update("total", lambda total: total + 1)

    assert attempts_of_many(flow) == MANY
