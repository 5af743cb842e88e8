"""What has grown beyond its limit stops with words that name the limit and the cure; nothing is lost, and it can go on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, SerializationError, TaskFailedError, TaskOutput
from liteflow.errors import InvalidOptionError, LimitExceededError, RunPausedError
from liteflow.model import Limits
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import passes

if TYPE_CHECKING:
    from collections.abc import Callable


def flow_of(store: str, **limits: int) -> Flow:
    return Flow(store=store, limits=Limits(**limits))


def cure(limit: str, most: int) -> str:
    return rf"more than {most}; if that is meant, raise the limit: Flow\(limits=Limits\({limit}=\.\.\.\)\)"


# ---------------------------------------------------------------- dispatches of a run


def add_loop(flow: Flow, turns: int, bodies: list[int]) -> None:
    @flow.task("loop")
    def loop(ctx: Context):
        n = ctx.get("n", 0) + 1
        bodies.append(n)
        ctx.set("n", n)
        ctx.stream(n)
        return TaskOutput(n, [NextTask("loop")] if n < turns else None)


def test_a_run_of_as_many_tasks_as_allowed_completes(store: str):
    with flow_of(store, tasks=5) as flow:
        add_loop(flow, 5, [])

        assert flow.run("loop") == {"loop": 5}


def test_a_run_that_would_dispatch_one_task_more_is_paused_and_goes_on_under_a_higher_limit(store: str):
    bodies: list[int] = []
    with flow_of(store, tasks=5) as flow:
        add_loop(flow, 8, bodies)
        with pytest.raises(RunPausedError, match=cure("tasks", 5)):
            flow.run("loop", run_id="r", context=Context("c"))
        run = flow.get_run("r")
        assert run.status == "paused"
        assert run.context.get("n") == 4  # the fifth asked for a sixth
        with pytest.raises(RunPausedError, match=cure("tasks", 5)):  # which changes nothing while the limit stands
            flow.resume("r").result(20)

    with flow_of(store, tasks=8) as flow:
        add_loop(flow, 8, bodies)
        run = flow.resume("r")

        assert run.result(20) == {"loop": 8}
        assert [version.value for version in run.context.history("n")] == list(range(1, 9))
        assert [chunk.value for chunk in run.stream(view="final")] == [n for turn in range(1, 9) for n in (turn, turn)]
        assert bodies == [1, 2, 3, 4, 5, 5, 5, 6, 7, 8]


@pytest.mark.parametrize("tasks", [5, 4])
def test_a_join_counts_as_a_task_of_the_run(store: str, tasks: int):
    with flow_of(store, tasks=tasks) as flow:
        parts = [NextTask("part", n, spawn_another=True) for n in range(3)]
        flow.add_task("fan", lambda ctx: TaskOutput(None, parts, join=NextTask("reduce")))
        flow.add_task("part", lambda ctx: ctx.inputs)
        flow.add_task("reduce", lambda ctx: ctx.joined)
        run = flow.start("fan")

        if tasks == 5:
            assert run.result(20) == {"reduce": [0, 1, 2]}
            return
        with pytest.raises(RunPausedError, match=cure("tasks", 4)):
            run.result(20)
        assert [record.key for record in run.tasks()] == ["fan"]


def test_a_task_that_is_at_work_when_the_run_is_paused_by_its_limit_runs_again_on_resume(store: str):
    began, go_on = threading.Event(), threading.Event()

    def work(ctx: Context):
        ctx.set("work", ctx.attempt)
        if ctx.attempt == 1:
            began.set()
            passes(go_on)
        return ctx.attempt

    def add_tasks(flow: Flow) -> None:
        flow.add_task("start", lambda ctx: TaskOutput(None, [NextTask("work"), NextTask("more")]))
        flow.add_task("work", work)
        flow.add_task("more", lambda ctx: passes(began) or TaskOutput(None, [NextTask("leaf")]))
        flow.add_task("leaf", lambda ctx: "leaf")

    with flow_of(store, tasks=3) as flow:
        add_tasks(flow)
        with pytest.raises(RunPausedError, match=cure("tasks", 3)):
            flow.start("start", run_id="r").result(20)
        go_on.set()

    with flow_of(store, tasks=4) as flow:
        add_tasks(flow)
        assert flow.resume("r").result(20) == {"work": 2, "leaf": "leaf"}


# ---------------------------------------------------------------- what one attempt may ask for


def fails_beyond(store: str, limit: str, most: int, task: Callable[[int], Callable[[Context], object]]) -> Flow:
    """Assert that *task* fails with one more than *most*, and goes on under a higher limit; return the flow of that."""
    with flow_of(store, **{limit: most}) as flow:
        flow.add_task("part", lambda ctx: ctx.inputs)
        flow.add_task("task", task(most))
        flow.run("task")
        flow.add_task("task", task(most + 1))

        with pytest.raises(TaskFailedError, match=cure(limit, most)) as failed:
            flow.run("task", run_id="r", context=Context("c"))

        cause = failed.value.__cause__
        assert isinstance(cause, LimitExceededError)
        assert (cause.limit, cause.most) == (limit, most)
        assert flow.get_run("r").context.to_dict() == {}
        assert list(flow.get_run("r").stream()) == []
        assert one(store, "SELECT count(*) FROM tasks WHERE run_id = 'r'") == 1

    higher = flow_of(store, **{limit: most + 1})
    higher.add_task("part", lambda ctx: ctx.inputs)
    higher.add_task("task", task(most + 1))
    return higher


def test_an_attempt_that_asks_for_one_next_task_more_fails_and_dispatches_none(store: str):
    def fan(count: int):
        return lambda ctx: TaskOutput(count, [NextTask("part", n, spawn_another=True) for n in range(count)])

    with fails_beyond(store, "dispatches", 3, fan) as flow:
        assert sorted(flow.resume("r").result(20).values()) == [0, 1, 2, 3]


def test_an_attempt_that_puts_out_one_chunk_more_fails_and_streams_none(store: str):
    def talk(count: int):
        return lambda ctx: [ctx.stream(n) for n in range(count)] and "output"

    with fails_beyond(store, "chunks", 3, talk) as flow:
        run = flow.resume("r")
        assert run.result(20) == {"task": "output"}
        assert [chunk.value for chunk in run.stream()] == [0, 1, 2, 3, "output"]


def test_chunks_are_counted_anew_for_each_attempt_and_each_task(store: str):
    with flow_of(store, chunks=2) as flow:

        @flow.task("talk", retry=2)
        def talk(ctx: Context):
            ctx.stream(1)
            ctx.stream(2)
            if ctx.attempt == 1:
                raise ConnectionError("no luck")
            return TaskOutput(None, [NextTask("after")])

        flow.add_task("after", lambda ctx: ctx.stream(3) or ctx.stream(4))

        assert [chunk.value for chunk in flow.stream("talk") if chunk.attempt == 2 or chunk.key == "after"] == [
            1,
            2,
            None,
            3,
            4,
            None,
        ]


# ---------------------------------------------------------------- how large a value may be

MOST = 1_000
FITS, TOO_LARGE = "x" * (MOST - 2), "x" * (MOST - 1)  # as JSON, in quotes
PUTS = {
    "set": lambda ctx, value: ctx.set("a", value),
    "update": lambda ctx, value: ctx.update("a", lambda _: value, default=None),
    "stream": lambda ctx, value: ctx.stream(value),
    "step": lambda ctx, value: ctx.step("a", lambda: value),
    "output": lambda ctx, value: value,
    "inputs": lambda ctx, value: TaskOutput(None, [NextTask("next", value)]),
}


@pytest.mark.parametrize("place", PUTS)
def test_a_value_that_is_too_large_is_refused_where_it_is_put_and_one_that_fits_is_not(store: str, place: str):
    put = PUTS[place]
    with flow_of(store, value_bytes=MOST) as flow:
        flow.add_task("next", lambda ctx: None)
        flow.add_task("put", lambda ctx: put(ctx, FITS))
        flow.run("put")
        flow.add_task("put", lambda ctx: put(ctx, TOO_LARGE))

        with pytest.raises(
            TaskFailedError, match=f"takes {MOST + 1} bytes of JSON, more than {MOST}; store it in pieces"
        ) as failed:
            flow.run("put", run_id="r", context=Context("c"))
        assert isinstance(failed.value.__cause__, SerializationError)
        assert flow.get_run("r").context.to_dict() == {}

    with flow_of(store, value_bytes=MOST + 1) as flow:
        flow.add_task("next", lambda ctx: None)
        flow.add_task("put", lambda ctx: put(ctx, TOO_LARGE))
        assert flow.resume("r").wait(20) == "completed"


def test_who_writes_a_value_that_is_too_large_from_outside_is_told_the_limit_and_the_cure(store: str):
    with flow_of(store, value_bytes=MOST) as flow:
        flow.context.set("a", FITS)

        with pytest.raises(SerializationError, match=rf"more than {MOST}.*Limits\(value_bytes=") as refused:
            flow.context.set("a", TOO_LARGE)

        assert refused.value.key == "a"
        assert flow.context.get("a") == FITS


# ---------------------------------------------------------------- how often a run may bring down its process

CRASHING = """
import os, signal, sys
from liteflow import Flow, NextTask, TaskOutput
from liteflow.model import Limits

flow = Flow(store=sys.argv[1], limits=Limits(crashes=2))
flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("deadly")]))

@flow.task("deadly")
def deadly(ctx):
    if sys.argv[3:] == ["progress"]:
        ctx.set("n", ctx.get("n", 0) + 1)
        ctx.checkpoint()
    ctx.step(f"attempt {ctx.attempt}", int)  # so that it is recorded that the attempt has begun
    print("deadly", ctx.attempt, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

start = {"recover": lambda: flow.recover()[0], "start": lambda: flow.start("first", run_id="r")}
start[sys.argv[2]]().result(30)
"""


def crash(store: str, how: str = "recover", *more: str) -> str:
    """Run it in a process that it brings down; return which attempt has done that."""
    child = Child(CRASHING, store, how, *more)
    line = child.line()
    assert child.end() == -9
    return line


def add_harmless(flow: Flow) -> None:
    flow.add_task("first", lambda ctx: "first again")
    flow.add_task("deadly", lambda ctx: ctx.attempt)


TOLD = "died 3 times in a row and completed nothing in between; it was at: deadly"


def stays_paused(flow: Flow) -> None:
    run = flow.get_run("r")
    assert run.status == "paused"
    assert TOLD in run.reason
    assert flow.recover() == []


@pytest.mark.parametrize("by", ["recover", "start"])
def test_a_run_that_brings_down_its_process_too_often_is_left_paused_until_somebody_resumes_it(store: str, by: str):
    assert [crash(store, "start"), crash(store, by), crash(store, by)] == ["deadly 1", "deadly 2", "deadly 3"]

    with flow_of(store, crashes=2) as flow:
        add_harmless(flow)
        if by == "recover":
            assert flow.recover() == []
        else:
            with pytest.raises(RunPausedError, match=rf"{TOLD}.*flow\.resume\('r'\)"):
                flow.start("first", run_id="r")

        stays_paused(flow)
        assert flow.get_run("r").context.to_dict() == {"first": "done"}
        assert rows(store, "SELECT number, attempt, status FROM attempts") == [(2, n, "lost") for n in (1, 2, 3)]
        assert flow.resume("r").result(20) == {"deadly": 4}


def test_a_run_that_was_left_paused_is_not_taken_by_the_next_start_either(store: str):
    for how in ("start", "recover", "recover"):
        crash(store, how)

    with flow_of(store, crashes=2) as flow:
        add_harmless(flow)
        for _ in range(2):
            with pytest.raises(RunPausedError, match=TOLD):
                flow.start("first", run_id="r")
        stays_paused(flow)


def test_a_run_that_was_resumed_all_the_same_may_crash_as_often_again(store: str):
    for how in ("start", "recover", "recover"):
        crash(store, how)
    with flow_of(store, crashes=2) as flow:
        add_harmless(flow)
        assert flow.recover() == []
    resumed = CRASHING.replace('"recover": lambda: flow.recover()[0]', '"recover": lambda: flow.resume("r")')
    child = Child(resumed, store, "recover")
    assert child.line() == "deadly 4"
    assert child.end() == -9

    assert [crash(store), crash(store)] == ["deadly 5", "deadly 6"]

    with flow_of(store, crashes=2) as flow:
        add_harmless(flow)
        assert flow.recover() == []
        stays_paused(flow)


def test_a_run_that_gets_on_between_its_crashes_is_taken_again_and_again(store: str):
    attempts = [crash(store, "start", "progress")] + [crash(store, "recover", "progress") for _ in range(4)]

    assert attempts == [f"deadly {n}" for n in range(1, 6)]
    with flow_of(store, crashes=2) as flow:
        add_harmless(flow)
        (run,) = flow.recover()
        assert run.result(20) == {"deadly": 6}


# ---------------------------------------------------------------- limits themselves


@pytest.mark.parametrize("limit", ["tasks", "dispatches", "chunks", "value_bytes", "crashes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "x", None])
def test_a_limit_that_lets_nothing_run_is_refused_by_name(limit: str, value: object):
    with pytest.raises(InvalidOptionError, match=f"{limit}=.* give a whole number of at least 1"):
        Limits(**{limit: value})
