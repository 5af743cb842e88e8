"""More flows to be killed, of tasks that wait for one another, for keys and for times, and of bodies that commit on their way."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from liteflow import AwaitNeededError, Context, Flow, NextTask, RetryPolicy, TaskOutput

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 0.03  # seconds


def joins(flow: Flow) -> None:
    """A join of members of which one joins others, one is tried again, and two are one."""

    @flow.task("join.start")
    def start(ctx: Context):
        members = [NextTask("join.part", n, spawn_another=True) for n in (1, 2)]
        return TaskOutput("", [*members, NextTask("join.same", 1), NextTask("join.same", 1)], join=NextTask("join.end"))

    @flow.task("join.part", retry=RetryPolicy(9, 0.002))
    def part(ctx: Context, inputs: int):
        ctx.update("parts", lambda parts: parts + 10**inputs, default=0)
        if inputs == 2:
            return TaskOutput(inputs, [NextTask("join.leaf", n, spawn_another=True) for n in (3, 4)], join=NextTask("join.sum"))
        return TaskOutput(inputs, [], join=NextTask("join.none"))

    flow.task("join.same")(lambda ctx: "same")
    flow.task("join.leaf")(lambda ctx: ctx.inputs)
    flow.task("join.none")(lambda ctx: ctx.joined)
    flow.task("join.sum")(lambda ctx: sum(ctx.joined or []))

    @flow.task("join.end")
    def end(ctx: Context):
        return [ctx.joined, sorted(ctx.gather("join.leaf")), ctx.get("join.sum")]


def signals(flow: Flow) -> None:
    """Dispatches that wait for keys, which tasks write that wait for a time."""

    @flow.task("signal.start")
    def start(ctx: Context):
        ctx.set("first", 1)
        ship = NextTask("signal.ship", wait_for=["first", "second", "third"])
        return TaskOutput(
            "", [ship, NextTask("signal.write", "second", True, delay=0.004), NextTask("signal.write", "third", True)]
        )

    @flow.task("signal.write")
    def write(ctx: Context, inputs: str):
        ctx.set(inputs, len(inputs))

    @flow.task("signal.ship")
    def ship(ctx: Context):
        return [ctx.get(key) for key in ("first", "second", "third")]


def steps(flow: Flow) -> None:
    """A body that fails after its steps, and is tried again: a step that is recorded never runs again."""

    def once(ctx: Context, name: str, value: object) -> object:
        services = flow._opened().services
        with services.database.read() as tx:
            number = services.queries.tasks(ctx.run_id)[-1][0]
            if name in services.store.steps(tx, ctx.run_id, number):
                ctx.update("steps that ran again", lambda names: [*names, name], default=[])
                ctx.checkpoint()
        return value

    @flow.task("step.pay", retry=RetryPolicy(9, 0.002))
    def pay(ctx: Context):
        first = ctx.step("reserve", once, ctx, "reserve", (1, 2))
        ctx.set("reserved", first)
        second = ctx.step("charge", once, ctx, "charge", {"paid": first})
        if ctx.attempt < 2:
            raise OSError
        return TaskOutput(second, [NextTask("step.turn", 2)])

    @flow.task("step.turn")
    def turn(ctx: Context, inputs: int):
        """Each turn of a loop has steps of its own."""
        ctx.set("last", ctx.step("turn", once, ctx, "turn", inputs))
        return TaskOutput(inputs, [NextTask("step.turn", inputs - 1)] if inputs else [])


def checkpoints(flow: Flow) -> None:
    """Bodies that look how far they came; two of them change one key."""

    @flow.task("check.start")
    def start(ctx: Context):
        ctx.set("doomed", 1)
        return TaskOutput("", [NextTask("check.count", name, spawn_another=True) for name in "ab"])

    @flow.task("check.count")
    def count(ctx: Context, inputs: str):
        for n in range(ctx.get(f"done by {inputs}", 0), 4):
            ctx.set(f"done by {inputs}", n + 1)
            ctx.update("total", lambda total: total + 1, default=0)
            ctx.stream(f"{inputs}{n}")
            ctx.checkpoint()
        if "doomed" in ctx:
            ctx.delete("doomed")
        return inputs


def coroutines(flow: Flow) -> None:
    """Async tasks that wait for each other, for a step and for a checkpoint."""

    @flow.task("async.start")
    async def start(ctx: Context):
        names = [NextTask("async.part", n, spawn_another=True) for n in range(3)]
        return TaskOutput("", [NextTask("async.last"), *names])

    @flow.task("async.part")
    async def part(ctx: Context, inputs: int):
        ctx.set(f"part {inputs}", await ctx.astep("square", asyncio.sleep, 0.001, inputs * inputs))
        await ctx.acheckpoint()
        ctx.stream(inputs)
        return await ctx.aget("async.other", None) or ctx.key

    @flow.task("async.last")
    async def last(ctx: Context):
        try:
            ctx.get("part 0")
        except AwaitNeededError:
            ctx.set("refused", True)
        return [await ctx.agather("async.part"), await ctx.aget("async.part#2")]


def timeouts(flow: Flow) -> None:
    """A body whose time is over, and that goes on all the same."""

    @flow.task("time.start", timeout=PATIENCE, retry=RetryPolicy(9, 0.002))
    def start(ctx: Context):
        ctx.set("who", ctx.attempt > 1)
        ctx.stream("begun")
        if ctx.attempt == 1:
            wait_until(lambda: ctx.cancelled)
        return TaskOutput(None, [NextTask("time.end")])

    @flow.task("time.end")
    def end(ctx: Context):
        return ctx.get("who")


def wait_until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.002)
