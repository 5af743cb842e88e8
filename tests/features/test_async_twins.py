"""What is there for async code is the twin of what is there for plain code: the same parameters, and the same outcome."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, get_overloads

import pytest

import liteflow
from liteflow import (
    Context,
    ContextBusyError,
    Flow,
    GetTimeoutError,
    LiteFlowError,
    NextTask,
    Run,
    RunPausedError,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutput,
)
from tests.features.waiting import SECONDS, passes, until

if TYPE_CHECKING:
    from collections.abc import Callable

TWINS = [
    (Flow, "run", "arun"), (Flow, "stream", "astream"), (Context, "get", "aget"), (Context, "gather", "agather"),
    (Context, "step", "astep"), (Context, "checkpoint", "acheckpoint"), (Run, "result", "aresult"), (Run, "stream", "astream"),
]  # fmt: skip
PUBLIC = [cls for name in liteflow.__all__ if inspect.isclass(cls := getattr(liteflow, name))]


def is_async(fn: object) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def awaited(annotation: str) -> str:
    """The annotation of what the twin gives, by that of what the plain one gives."""
    return annotation.replace("Iterator[", "AsyncIterator[")


# ---------------------------------------------------------------- the same parameters


@pytest.mark.parametrize(("cls", "plain", "twin"), TWINS, ids=lambda part: getattr(part, "__name__", part))
def test_twins_have_the_same_parameters(cls: type, plain: str, twin: str):
    ours, theirs = inspect.signature(getattr(cls, plain)), inspect.signature(getattr(cls, twin))
    shapes = [inspect.signature(fn) for fn in get_overloads(getattr(cls, twin))] or [theirs]

    assert is_async(getattr(cls, twin))
    assert not is_async(getattr(cls, plain))
    assert [(p.name, p.kind, p.default) for p in theirs.parameters.values()] == [
        (p.name, p.kind, p.default) for p in ours.parameters.values()
    ]
    assert ours.parameters in [shape.parameters for shape in shapes]  # with annotations; a twin may take async functions as well
    assert all(shape.return_annotation == awaited(ours.return_annotation) for shape in shapes)


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_public_async_method_has_a_plain_twin_that_is_compared_here(cls: type):
    found = {name for name, fn in inspect.getmembers(cls) if not name.startswith("_") and is_async(fn)}

    assert found == {twin for owner, _, twin in TWINS if issubclass(cls, owner)}


# ---------------------------------------------------------------- the same outcome


def add_tasks(flow: Flow) -> None:
    flow.add_task(
        "fan", lambda ctx: TaskOutput(0, [NextTask("part", n, spawn_another=True) for n in range(3)], join=NextTask("all"))
    )

    @flow.task("part")
    async def part(ctx: Context, inputs: int):
        ctx.stream(f"part {inputs}")
        return inputs

    flow.add_task("all", lambda ctx: [ctx.inputs, *ctx.joined])
    flow.add_task("fail", lambda ctx: ctx.stream("before") or 1 / 0)


async def all_of(chunks) -> list[object]:
    return [chunk async for chunk in chunks]


def outcome(call: Callable[[], object]) -> object:
    """What a call returns, or the kind and the facts of what it raises."""
    try:
        return call()
    except LiteFlowError as error:
        return type(error), getattr(error, "task_id", None), getattr(error, "what", None)


@pytest.mark.parametrize("task", ["fan", "fail", "unknown"])
def test_arun_gives_or_raises_what_run_does(flow: Flow, task: str):
    add_tasks(flow)

    plain, twin = outcome(lambda: flow.run(task)), outcome(lambda: asyncio.run(flow.arun(task)))

    assert plain == twin
    assert plain == {"fan": {"all": [None, 0, 1, 2]}, "fail": (TaskFailedError, "fail", None)}.get(
        task, (TaskNotFoundError, "unknown", None)
    )


@pytest.mark.parametrize("task", ["fan", "fail", "unknown"])
def test_astream_yields_and_raises_what_stream_does(flow: Flow, task: str):
    add_tasks(flow)

    plain = outcome(lambda: sorted(str(chunk.value) for chunk in flow.stream(task)))
    twin = outcome(lambda: sorted(str(chunk.value) for chunk in asyncio.run(all_of(flow.astream(task)))))

    assert plain == twin


@pytest.mark.parametrize("view", ["live", "final"])
@pytest.mark.parametrize("after", [0, 3, 99])
def test_the_stream_and_the_result_of_a_run_are_the_same_either_way(flow: Flow, view: str, after: int):
    add_tasks(flow)
    run = flow.start("fan")

    assert asyncio.run(run.aresult(20)) == run.result(20) == {"all": [None, 0, 1, 2]}
    for found in (run, flow.get_run(run.id)):
        chunks = asyncio.run(all_of(found.astream(after, view)))
        assert chunks == list(run.stream(after, view))
        assert [chunk.seq for chunk in chunks] == [chunk.seq for chunk in run.stream(after, view)]


def test_a_result_that_does_not_come_in_time_or_not_at_all_is_told_alike(flow: Flow):
    flow.add_task("wait", lambda ctx: TaskOutput(0, [NextTask("all", wait_for=["go"])]))
    add_tasks(flow)
    run = flow.start("wait")

    with pytest.raises(GetTimeoutError, match=run.id):
        asyncio.run(run.aresult(0.05))
    failed = flow.start("fail")
    for _ in range(2):
        with pytest.raises(TaskFailedError) as error:
            asyncio.run(failed.aresult(20))
        assert isinstance(error.value.__cause__, ZeroDivisionError)
    with pytest.raises(LiteFlowError, match="view is 'all'"):
        asyncio.run(all_of(run.astream(view="all")))


# ---------------------------------------------------------------- a caller that goes away


class Hung:
    """An async task whose first attempt does not end by itself."""

    def __init__(self) -> None:
        self.began = threading.Event()

    async def __call__(self, ctx: Context):
        if ctx.attempt == 1:
            asyncio.get_running_loop().call_soon(self.began.set)
            await asyncio.Event().wait()
        return ctx.attempt


def test_a_cancelled_arun_leaves_its_run_paused_to_be_resumed(flow: Flow):
    flow.add_task("hung", hung := Hung())

    async def main():
        run = asyncio.ensure_future(flow.arun("hung", run_id="r"))
        assert await asyncio.to_thread(hung.began.wait, SECONDS)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await asyncio.to_thread(until, lambda: flow.get_run("r").status == "paused")
        with pytest.raises(RunPausedError):
            await flow.get_run("r").aresult()
        return await flow.arun("hung", run_id="r")

    assert asyncio.run(main()) == {"hung": 2}


@pytest.mark.parametrize("way", ["arun", "astream"])
def test_a_loop_that_ends_while_a_run_lives_on_it_leaves_the_run_paused(flow: Flow, way: str):
    flow.add_task("hung", hung := Hung())
    kept = []

    async def follow():
        return [chunk async for chunk in flow.astream("hung", run_id="r")]

    async def main():
        kept.append(asyncio.ensure_future(flow.arun("hung", run_id="r") if way == "arun" else follow()))
        assert await asyncio.to_thread(hung.began.wait, SECONDS)

    asyncio.run(main())
    until(lambda: flow.get_run("r").status == "paused")

    assert flow.resume("r").result(20) == {"hung": 2}


def test_a_plain_task_whose_caller_has_gone_can_do_nothing_more_and_is_run_again(flow: Flow):
    began, go_on = threading.Event(), threading.Event()

    @flow.task("slow")
    def slow(ctx: Context):
        if ctx.attempt == 1:
            began.set()
            passes(go_on)
            ctx.set("a", "late")
        return ctx.attempt

    async def main():
        kept.append(asyncio.ensure_future(flow.arun("slow", run_id="r")))
        assert await asyncio.to_thread(began.wait, SECONDS)

    kept: list[object] = []
    asyncio.run(main())
    until(lambda: flow.get_run("r").status == "paused")
    go_on.set()

    assert asyncio.run(flow.arun("slow", run_id="r")) == {"slow": 2}
    assert "a" not in flow.context


class Gate:
    """A codec that holds up whoever encodes a value until it is let go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def encode(self, text: str) -> str:
        self.reached.set()
        passes(self.go_on)
        return text

    def decode(self, text: str) -> str:
        return text


def test_a_run_that_was_still_beginning_when_its_loop_ended_is_paused_too(store: str):
    gate, end = Gate(), threading.Event()
    with Flow(store=store, codec=gate) as flow:
        flow.add_task("slow", lambda ctx: passes(end))

        async def call():
            try:
                await flow.arun("slow", {"a": 1}, run_id="r")
            finally:
                gate.go_on.set()

        async def main():
            kept.append(asyncio.ensure_future(call()))
            assert await asyncio.to_thread(gate.reached.wait, SECONDS)

        kept: list[object] = []
        asyncio.run(main())
        try:
            until(lambda: flow.get_run("r").status == "paused")
        finally:
            end.set()

        assert flow.resume("r").result(20) == {"slow": None}


def test_who_leaves_an_astream_early_lets_the_run_go_on_as_with_a_stream(flow: Flow):
    go_on = threading.Event()

    @flow.task("talk")
    def talk(ctx: Context):
        ctx.stream("spoken")
        passes(go_on)
        return ctx.attempt

    async def main():
        async with aclosing(flow.astream("talk", run_id="r", context=Context())) as chunks:
            return await anext(chunks)

    assert asyncio.run(main()).value == "spoken"
    with closing(flow.stream("talk", run_id="s", context=Context())) as chunks:
        assert next(chunks).value == "spoken"
    go_on.set()

    assert [flow.get_run(run_id).result(20) for run_id in "rs"] == [{"talk": 1}] * 2


def test_two_aruns_side_by_side_in_contexts_of_their_own_do_not_see_each_other(flow: Flow):
    together = asyncio.Barrier(2)

    @flow.task("who")
    async def who(ctx: Context):
        ctx.set("name", ctx.inputs["name"])
        await together.wait()
        return await ctx.aget("name")

    async def main():
        return await asyncio.gather(*(flow.arun("who", {"name": name}, context=Context()) for name in ("Ann", "Bo")))

    assert asyncio.run(main()) == [{"who": "Ann"}, {"who": "Bo"}]


def test_two_aruns_side_by_side_in_one_context_are_one_too_many(flow: Flow):
    flow.add_task("hung", hung := Hung())

    async def main():
        first = asyncio.ensure_future(flow.arun("hung"))
        assert await asyncio.to_thread(hung.began.wait, SECONDS)
        with pytest.raises(ContextBusyError):
            await flow.arun("hung")
        first.cancel()

    asyncio.run(main())
