"""The public API as users type it. Read by mypy and pyright, never run: each line must be accepted as it stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

import liteflow.executor
from liteflow import (
    Context,
    Executor,
    Flow,
    Limits,
    LiteFlowError,
    NextTask,
    PoolExecutor,
    RetryPolicy,
    Run,
    StreamChunk,
    TaskFailedError,
    TaskOutput,
    TerminalError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

executor: Executor = PoolExecutor(ThreadPoolExecutor(max_workers=4))
Flow()
Flow(ThreadPoolExecutor(max_workers=1))
Flow(liteflow.executor.PoolExecutor(), Context("user-42"), name="orders")
Flow(context=Context(store="sqlite:///jobs.db"), store="sqlite:///jobs.db", durability="full")
Flow(pickle=True, limits=Limits(tasks=100, value_bytes=1 << 20))
flow = Flow(executor=executor)


@flow.task("greet")
def greet(context: Context) -> TaskOutput:
    return TaskOutput(output="Hello World!")


@flow.task()
def plain(ctx: Context, inputs: dict[str, int]) -> int:
    total: int = ctx.get("total", 0)
    return total + inputs["n"]


@flow.task()
def fan_out(ctx: Context) -> TaskOutput:
    ctx.set("left", 2)
    ctx.update("total", lambda total: total + 1, 0)
    ctx.logger.info("attempt %d of %s in run %s", ctx.attempt, ctx.key, ctx.run_id)
    ctx.get_stream().put(StreamChunk(ctx.task_id, 0.5))
    ctx.stream("half-way")
    if ctx.inputs is None:
        message = "nothing to do"
        raise TerminalError(message)
    parts = [NextTask("plain", {"n": n}, spawn_another=True) for n in range(2)]
    return TaskOutput(None, parts)


@flow.task(retry=3, timeout=30)
def pay(ctx: Context) -> TaskOutput:
    receipt = ctx.step("charge", str.upper, ctx.idempotency_key)
    assert_type(receipt, str)
    if not ctx.cancelled:
        ctx.checkpoint()
    assert_type(ctx.gather("plain"), list[Any])
    assert_type(ctx.joined, list[Any] | None)
    ctx.delete("left")
    ship = NextTask("ship", wait_for=["approval"], delay=timedelta(days=1))
    return TaskOutput(receipt, [ship, NextTask("plain", delay=0.5)], join=NextTask("fan_out"))


async def ask(question: str) -> bool:
    return question == "ship?"


@flow.task("ship", retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=1)), timeout=timedelta(minutes=1))
async def ship(ctx: Context) -> bool:
    assert_type(await ctx.astep("ask", ask, "ship?"), bool)
    assert_type(await ctx.agather("plain"), list[Any])
    await ctx.acheckpoint()
    approval: str = await ctx.aget("approval", timeout=5)
    return approval == "yes"


async def awaited() -> AsyncIterator[Any]:
    assert_type(await flow.arun("pay", {"n": 1}, run_id="tuesday"), dict[str, Any])
    async for chunk in flow.astream("pay"):
        assert_type(chunk, StreamChunk)
        yield chunk.value
    run = flow.get_run("tuesday")
    assert_type(await run.aresult(timeout=5), dict[str, Any])
    async for chunk in run.astream(after=2):
        yield chunk.seq
    run.cancel()


# What a decorator gives back is the function itself.
assert_type(greet(Context()), TaskOutput)
assert_type(plain(Context(), {"n": 1}), int)
flow.add_task("again", greet)


def runs() -> None:
    with Flow(store="sqlite://") as scoped:
        assert_type(scoped, Flow)
        assert_type(scoped.run("greet"), dict[str, Any])
    flow.run("greet", {"n": 1}, run_id="monday", context=Context())
    run = flow.start("greet", inputs={"n": 1})
    assert_type(run, Run)
    assert_type(run.id, str)
    assert_type(run.result(timeout=5), dict[str, Any])
    assert_type(run.context, Context)
    assert_type(flow.resume(run.id), Run)
    assert_type(flow.get_run("monday"), Run)
    assert_type(flow.recover(), list[Run])
    assert_type(flow.runs(status="failed", limit=10), list[Run])
    for record in run.tasks():
        assert_type(record.key, str)
        assert_type(record.attempts, int)
    flow.close()


def streams() -> Iterator[Any]:
    for chunk in flow.stream("greet"):
        assert_type(chunk, StreamChunk)
        yield chunk.value
    for chunk in flow.get_run("monday").stream(after=3, view="final"):
        yield chunk.seq, chunk.key, chunk.attempt


def contexts() -> None:
    context = flow.context
    assert_type(context, Context)
    assert_type(flow.get_context(), Context)
    context.from_dict({"a": 1})
    assert_type(context.to_dict(), dict[str, Any])
    assert_type("a" in context, bool)
    for key in context.keys():  # noqa: SIM118 - the method is part of the API
        assert_type(key, str)
    for version in context.history("a"):
        assert_type(version.version, int)
    assert_type(context.at(3), Context)
    context.get("a", timeout=1.5)


def errors() -> str:
    try:
        flow.run("greet")
    except TaskFailedError as error:
        return error.run_id + error.task_id + error.cause_type
    except LiteFlowError as error:
        return error.code
    return ""
