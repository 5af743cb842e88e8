"""Async tasks run on an event loop, the caller's under `arun` and `astream`, and keep every promise that plain ones do."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from contextvars import ContextVar

import pytest

from liteflow import (
    AwaitNeededError,
    Context,
    ContextKeyError,
    Flow,
    GetTimeoutError,
    NextTask,
    NotATaskError,
    RetryPolicy,
    TaskFailedError,
    TaskOutput,
    TaskTimeoutError,
)
from tests.features.records import rows
from tests.features.waiting import SECONDS, passes

CALLER: ContextVar[str] = ContextVar("CALLER", default="nobody")
AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)


def add_loop(flow: Flow) -> None:
    """Register an async task that returns the loop it runs on, as a number, and the name of its thread."""

    @flow.task("loop")
    async def loop(ctx: Context):
        await asyncio.sleep(0)
        return [id(asyncio.get_running_loop()), threading.current_thread().name]


class Hung:
    """An async task whose first attempt does not end by itself."""

    def __init__(self) -> None:
        self.began = threading.Event()

    async def __call__(self, ctx: Context):
        if ctx.attempt == 1:
            asyncio.get_running_loop().call_soon(self.began.set)
            await asyncio.Event().wait()
        return ctx.attempt


# ---------------------------------------------------------------- on which loop


def test_under_run_an_async_task_runs_on_a_loop_of_the_engine(flow: Flow):
    add_loop(flow)

    first, second = flow.run("loop")["loop"], flow.run("loop")["loop"]

    assert first == second
    assert first[1] == "liteflow-loop"


def test_under_arun_and_astream_it_runs_on_the_loop_of_the_caller(flow: Flow):
    add_loop(flow)

    async def main():
        chunks = [chunk.value async for chunk in flow.astream("loop")]
        return id(asyncio.get_running_loop()), await flow.arun("loop"), chunks

    own, result, chunks = asyncio.run(main())

    assert result["loop"] == chunks[0] == [own, threading.current_thread().name]


def test_plain_tasks_run_on_threads_beside_the_loop_of_the_caller(flow: Flow):
    flow.add_task("start", lambda ctx: TaskOutput(threading.current_thread().name, [NextTask("loop"), NextTask("plain")]))
    flow.add_task("plain", lambda ctx: ctx.get("loop"))
    add_loop(flow)

    result = asyncio.run(flow.arun("start"))

    assert result["plain"] == result["loop"]
    assert flow.context.get("start") != threading.current_thread().name


@pytest.mark.parametrize("way", ["run", "arun", "stream", "astream", "start"])
def test_context_variables_of_the_caller_are_visible_in_async_and_in_plain_tasks(flow: Flow, way: str):
    seen = []
    flow.add_task("plain", lambda ctx: seen.append(CALLER.get()) or TaskOutput(0, [NextTask("async")]))

    @flow.task("async")
    async def task(ctx: Context):
        seen.append(CALLER.get())
        CALLER.set("the task")

    async def main():
        CALLER.set("me")
        if way == "arun":
            await flow.arun("plain")
        elif way == "astream":
            assert len([chunk async for chunk in flow.astream("plain")]) == 2
        elif way == "stream":
            assert len(list(flow.stream("plain"))) == 2
        else:
            flow.start("plain").result(20) if way == "start" else flow.run("plain")
        return CALLER.get()

    assert asyncio.run(main()) == "me"
    assert seen == ["me", "me"]


# ---------------------------------------------------------------- waiting without stopping others


@pytest.mark.parametrize("way", ["run", "arun"])
def test_aget_waits_without_stopping_others_on_the_loop(flow: Flow, way: str):
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("first"), NextTask("second"), NextTask("third")]))

    @flow.task("first")
    async def first(ctx: Context):
        return [await ctx.aget("second"), *await asyncio.gather(ctx.aget("third"), ctx.aget("start"))]

    @flow.task("second")
    async def second(ctx: Context):
        return await ctx.aget("third") + 1

    @flow.task("third")
    async def third(ctx: Context):
        for _ in range(10):
            await asyncio.sleep(0)
        return 3

    result = flow.run("start") if way == "run" else asyncio.run(flow.arun("start"))

    assert result == {"first": [4, 3, 0], "second": 4, "third": 3}


def test_aget_gives_a_default_an_error_a_timeout_and_its_own_write_as_get_does(flow: Flow):
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("read"), NextTask("hung")]))
    hung = Hung()
    flow.add_task("hung", hung)

    @flow.task("read")
    async def read(ctx: Context):
        ctx.set("own", 1)
        found = [await ctx.aget("own"), await ctx.aget("absent", None)]
        with pytest.raises(ContextKeyError, match="Key absent not found in context"):
            await ctx.aget("absent")
        with pytest.raises(GetTimeoutError, match="hung"):
            await ctx.aget("hung", timeout=0.01)
        return found

    run = flow.start("start")

    assert run.context.get("read", timeout=20) == [1, None]
    passes(hung.began)
    run.cancel()


def test_observers_wait_by_aget_on_their_loop(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("slow", lambda ctx: began.set() or passes(go_on) or "slow")

    async def main():
        run = asyncio.ensure_future(flow.arun("slow"))
        assert await asyncio.to_thread(began.wait, SECONDS)
        waits = asyncio.ensure_future(flow.context.aget("slow"))
        await asyncio.sleep(0)
        assert not waits.done()
        go_on.set()
        return await waits, await run, await flow.context.aget("absent", "default")

    assert asyncio.run(main()) == ("slow", {"slow": "slow"}, "default")
    with pytest.raises(ContextKeyError):
        asyncio.run(flow.context.aget("absent"))


# ---------------------------------------------------------------- what must be awaited, and was not


@pytest.mark.parametrize(
    ("call", "write"),
    [
        (lambda ctx: ctx.get("a", None), r"ctx.get .*; write `await ctx.aget\(...\)`"),
        (lambda ctx: ctx.gather("wrong"), r"ctx.gather .*; write `await ctx.agather\(...\)`"),
        (lambda ctx: ctx.step("s", lambda: 1), r"ctx.step .*; write `await ctx.astep\(...\)`"),
        (lambda ctx: ctx.checkpoint(), r"ctx.checkpoint .*; write `await ctx.acheckpoint\(\)`"),
    ],
    ids=["get", "gather", "step", "checkpoint"],
)
def test_what_would_stop_the_loop_is_refused_in_a_coroutine_and_the_error_says_what_to_write(flow: Flow, call, write: str):
    @flow.task("wrong")
    async def wrong(ctx: Context):
        call(ctx)

    with pytest.raises(TaskFailedError, match=write) as failed:
        flow.run("wrong")

    assert isinstance(failed.value.__cause__, AwaitNeededError)


def test_in_a_thread_that_an_async_task_starts_they_are_allowed(flow: Flow):
    flow.context.set("a", 1)

    @flow.task("read")
    async def read(ctx: Context):
        return await asyncio.to_thread(ctx.get, "a")

    assert flow.run("read") == {"read": 1}


def test_a_plain_task_that_returns_a_coroutine_is_told_to_be_async_and_nothing_is_left_unawaited(flow: Flow):
    closed = []

    async def body():
        return 1

    def wrong(ctx: Context):
        closed.append(body())
        return closed[0]

    flow.add_task("wrong", wrong)

    with pytest.raises(
        TaskFailedError, match="returned a coroutine that nobody awaits; write `async def` for the task"
    ) as failed:
        flow.run("wrong")

    assert isinstance(failed.value.__cause__, AwaitNeededError)
    assert inspect.getcoroutinestate(closed[0]) == inspect.CORO_CLOSED  # or Python would warn that it was never awaited


async def _async_generator(ctx: Context):
    yield 1


def _generator(ctx: Context):
    yield 1


@pytest.mark.parametrize("action", [_async_generator, _generator, functools.partial(_async_generator)])
def test_generators_are_refused_when_they_are_registered(flow: Flow, action):
    with pytest.raises(NotATaskError, match=r"it yields; put chunks out with ctx.stream\(value\)"):
        flow.add_task("task", action)


class Caller:
    """An object that is called like an async function."""

    async def __call__(self, ctx: Context, inputs: int):
        return [inputs, await ctx.aget("a", None)]

    async def method(self, ctx: Context, inputs: int):
        return await self(ctx, inputs)


async def _with_option(option: int, ctx: Context, inputs: int):
    return [inputs + option, await ctx.aget("a", None)]


@pytest.mark.parametrize(
    "action", [Caller(), Caller().method, functools.partial(_with_option, 0)], ids=["object", "method", "partial"]
)
@pytest.mark.parametrize("way", ["run", "arun"])
def test_anything_that_is_called_like_an_async_function_is_an_async_task(flow: Flow, action, way: str):
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("task", 7)]))
    flow.add_task("task", action)

    result = flow.run("start") if way == "run" else asyncio.run(flow.arun("start"))

    assert result == {"task": [7, None]}


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, ValueError])
@pytest.mark.parametrize("way", ["run", "arun"])
def test_whatever_an_async_body_raises_fails_that_task_only(flow: Flow, error: type[BaseException], way: str):
    add_loop(flow)

    @flow.task("bad")
    async def bad(ctx: Context):
        await asyncio.sleep(0)
        raise error("out")

    async def main():
        with pytest.raises(TaskFailedError):
            await flow.arun("bad")
        return await flow.arun("loop")

    if way == "arun":
        assert asyncio.run(main())["loop"][1] == threading.current_thread().name
    else:
        with pytest.raises(TaskFailedError, match=error.__name__) as failed:
            flow.run("bad")
        assert type(failed.value.__cause__) is error
        assert flow.run("loop")["loop"][1] == "liteflow-loop"


def test_an_async_task_is_tried_again_and_then_fails(flow: Flow):
    attempts = []

    @flow.task("call", retry=AT_ONCE)
    async def call(ctx: Context):
        attempts.append(ctx.attempt)
        ctx.set("a", ctx.attempt)
        if ctx.attempt < ctx.inputs["good"]:
            raise ConnectionError("no luck")
        return ctx.attempt

    assert flow.run("call", {"good": 3}) == {"call": 3}
    with pytest.raises(TaskFailedError, match="no luck"):
        flow.run("call", {"good": 4})
    assert attempts == [1, 2, 3, 1, 2, 3]
    assert flow.context.get("a") == 3


def test_an_async_task_that_takes_too_long_is_cancelled_and_tried_again(flow: Flow):
    flow.add_task("hung", Hung(), timeout=0.05, retry=AT_ONCE)
    assert flow.run("hung") == {"hung": 2}

    flow.add_task("hung", Hung(), timeout=0.05)
    with pytest.raises(TaskFailedError) as failed:
        flow.run("hung")
    assert isinstance(failed.value.__cause__, TaskTimeoutError)


@pytest.mark.parametrize("way", ["run", "arun"])
def test_async_tasks_that_change_the_same_key_lose_no_update(flow: Flow, store: str, way: str):
    together = asyncio.Barrier(8)
    flow.context.set("n", 0)
    flow.add_task("fan", lambda ctx: TaskOutput(0, [NextTask("add", spawn_another=True) for _ in range(8)]))

    @flow.task("add")
    async def add(ctx: Context):
        n = await ctx.aget("n")
        if ctx.attempt == 1:
            await together.wait()
        ctx.set("n", n + 1)

    flow.run("fan") if way == "run" else asyncio.run(flow.arun("fan"))

    assert flow.context.get("n") == 8
    assert rows(store, "SELECT sum(attempts) BETWEEN 15 AND 24 FROM tasks WHERE task_id = 'add'") == [(1,)]  # linear in 8
