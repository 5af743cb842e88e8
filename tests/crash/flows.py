"""Flows to be killed: each is a function that registers tasks, whose end is the same however often they are interrupted.

The ids of their tasks differ, so that several of them fit into one `Flow`.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liteflow import Context, Flow, NextTask, RetryPolicy, StreamChunk, TaskOutput
from tests.crash import waiting_flows

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_REST = 0.06  # seconds
MORE_THAN_A_BLOCK = 1_100  # chunks, or writes


class Commits:
    """Tells task bodies that a commit has happened; whoever wraps the database's commits keeps it informed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def happened(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def rest(self) -> None:
        """Wait for the next commit, which records what was written so far as open; not for ever."""
        with self._changed:
            seen = self._count
            self._changed.wait_for(lambda: self._count > seen, LONGEST_REST)


commits = Commits()


@dataclass(frozen=True)
class Shape:
    """A flow to be killed.

    Attributes:
        register: puts its tasks on a flow.
        start: its first task.
        workers: how many threads it has.
        in_order: whether every run of it writes the same values in the same order.
        merging: keys of instances that take one turn more or less, as dispatches come before or after their start.
    """

    register: Callable[[Flow], None]
    start: str
    workers: int = 2
    in_order: bool = False
    merging: tuple[str, ...] = ()


def chain(flow: Flow) -> None:
    @flow.task("chain.one")
    def one(ctx: Context, inputs: Any):
        ctx.set("path", ["one"])
        ctx.stream("in one")
        return TaskOutput(1, [NextTask("chain.two", {"seen": 1})])

    @flow.task("chain.two")
    def two(ctx: Context, inputs: Any):
        ctx.set("path", [*ctx.get("path"), "two"])
        return TaskOutput(inputs["seen"] + 1, [NextTask("chain.three", {"seen": 2})])

    @flow.task("chain.three")
    def three(ctx: Context, inputs: Any):
        ctx.set("path", [*ctx.get("path"), "three"])
        ctx.stream("in three")
        return inputs["seen"] + 1


def fan_out_and_join(flow: Flow) -> None:
    @flow.task("fan.out")
    def out(ctx: Context):
        squares = [NextTask("fan.square", n, spawn_another=True) for n in (1, 2, 3)]
        return TaskOutput("out", [NextTask("fan.join"), *squares])

    @flow.task("fan.square")
    def square(ctx: Context, inputs: int):
        ctx.set(f"squared {inputs}", inputs)
        return inputs * inputs

    @flow.task("fan.join")
    def join(ctx: Context):
        return sum(ctx.get(key) for key in ("fan.square", "fan.square#2", "fan.square#3"))


def loop(flow: Flow) -> None:
    @flow.task("loop.turn")
    def turn(ctx: Context):
        count = ctx.get("count", 0) + 1
        ctx.set("count", count)
        ctx.stream(f"turn {count}")
        if count == 4:
            commits.rest()
        return TaskOutput(count, [NextTask("loop.turn")] if count < 8 else [NextTask("loop.end")])

    @flow.task("loop.end")
    def end(ctx: Context):
        return ctx.get("count")


def map_reduce(flow: Flow) -> None:
    @flow.task("map.start")
    def start(ctx: Context):
        ctx.set("collector", [])
        return TaskOutput("mapped", [NextTask("map.each", spawn_another=True) for _ in range(4)])

    @flow.task("map.each")
    def each(ctx: Context):
        collector = ctx.get("collector")
        collector.append("item")
        ctx.set("collector", collector)
        return TaskOutput("", [NextTask("map.reduce")])

    @flow.task("map.reduce")
    def reduce(ctx: Context):
        return ctx.get("collector")


def merged(flow: Flow) -> None:
    """Dispatches that merge into one that waits or runs, and others that become its further turns."""

    @flow.task("merge.start")
    def start(ctx: Context):
        return TaskOutput("", [NextTask("merge.each", n, spawn_another=True) for n in (1, 2, 3)])

    @flow.task("merge.each")
    def each(ctx: Context, inputs: int):
        ctx.set(f"part {inputs}", inputs)
        return TaskOutput(inputs, [NextTask("merge.reduce"), NextTask("merge.log", inputs % 2)])

    @flow.task("merge.reduce")
    def reduce(ctx: Context):
        parts = [ctx.get(f"part {n}", 0) for n in (1, 2, 3)]
        commits.rest()
        return TaskOutput(parts)

    @flow.task("merge.log")
    def log(ctx: Context, inputs: int):
        ctx.set(f"logged {inputs}", True)


def failure(flow: Flow) -> None:
    @flow.task("fail.start")
    def start(ctx: Context):
        return TaskOutput("", [NextTask("fail.good"), NextTask("fail.bad")])

    @flow.task("fail.good")
    def good(ctx: Context):
        ctx.set("good runs", ctx.get("good runs", 0) + 1)
        return "good"

    @flow.task("fail.bad")
    def bad(ctx: Context):
        ctx.set("bad was here", ctx.get("bad was here", 0) + 1)
        ctx.stream("trying")
        if not ctx.get("mended", False):
            commits.rest()
            msg = "not mended yet"
            raise RuntimeError(msg)
        return TaskOutput("bad", [NextTask("fail.after")])

    @flow.task("fail.after")
    def after(ctx: Context):
        return [ctx.get("good runs", 0) > 0 or ctx.get("fail.good"), ctx.get("bad was here")]


def streams(flow: Flow) -> None:
    @flow.task("stream.start")
    def start(ctx: Context):
        ctx.set("told", 0)
        return TaskOutput("", [NextTask("stream.talk", name, spawn_another=True) for name in ("a", "b")])

    @flow.task("stream.talk")
    def talk(ctx: Context, inputs: str):
        for n in range(9):
            ctx.get_stream().put(StreamChunk(inputs, n))
            ctx.set(f"last of {inputs}", n)
            if n % 3 == 2:
                commits.rest()
        return TaskOutput(f"{inputs} is done", [NextTask("stream.sum")])

    @flow.task("stream.sum")
    def add(ctx: Context):
        return [ctx.get(f"last of {name}", None) for name in ("a", "b")]


def large(flow: Flow) -> None:
    """More chunks than a block of numbers, and more writes than an attempt keeps to itself."""

    @flow.task("large.write")
    def write(ctx: Context):
        for n in range(MORE_THAN_A_BLOCK):
            ctx.set(f"key {n % 10}", n)
            ctx.stream(n)
        return TaskOutput(MORE_THAN_A_BLOCK, [NextTask("large.read")])

    @flow.task("large.read")
    def read(ctx: Context):
        return sum(ctx.get(f"key {n}") for n in range(10))


def retries(flow: Flow) -> None:
    @flow.task("retry.start", retry=RetryPolicy(4, 0.005, jitter=False))
    def start(ctx: Context):
        ctx.set("tries", ctx.get("tries", 0) + 1)
        ctx.stream("trying")
        if ctx.attempt < 3:
            msg = "try again"
            raise OSError(msg)
        return TaskOutput("done", [NextTask("retry.end", delay=0.01)])

    @flow.task("retry.end")
    def end(ctx: Context):
        return ctx.get("tries")


def updates(flow: Flow) -> None:
    @flow.task("update.start")
    def start(ctx: Context):
        return TaskOutput("", [NextTask("update.add", n, spawn_another=True) for n in range(4)])

    @flow.task("update.add")
    def add(ctx: Context, inputs: int):
        ctx.update("total", lambda total: total + 10**inputs, default=0)
        commits.rest()
        ctx.update("total", lambda total: total + 10**inputs, default=0)


def nonces(flow: Flow) -> None:
    """Each execution draws a number, and puts it wherever a task can put something: all must agree in the end."""

    @flow.task("nonce.start")
    def start(ctx: Context):
        return draw(ctx, [NextTask("nonce.draw", n, spawn_another=True) for n in range(3)])

    @flow.task("nonce.draw")
    def fork(ctx: Context, inputs: dict[str, Any]):
        return draw(ctx, [NextTask("nonce.next", n, spawn_another=True) for n in range(2)] if inputs["own"] else [])

    @flow.task("nonce.next")
    def leaf(ctx: Context):
        return draw(ctx, [])


def nonces_of_one_worker(flow: Flow) -> None:
    """The same, with waits for what others have drawn, a loop, and one thread for all."""

    @flow.task("wait.start")
    def start(ctx: Context):
        return draw(ctx, [NextTask("wait.reader"), NextTask("wait.late"), NextTask("wait.turn")])

    @flow.task("wait.reader")
    def reader(ctx: Context):
        return draw(ctx, [], read="wait.late")

    @flow.task("wait.late")
    def late(ctx: Context):
        return draw(ctx, [])

    @flow.task("wait.turn")
    def turn(ctx: Context):
        turns = ctx.get("turns", 0) + 1
        ctx.set("turns", turns)
        return draw(ctx, [NextTask("wait.turn")] if turns < 4 else [])


def draw(ctx: Context, then: list[NextTask], *, read: str | None = None) -> TaskOutput:
    """Leave a number that nobody draws twice in context, output, what is dispatched, the stream, and the number of chunks."""
    nonce = secrets.randbits(50)
    ctx.set(f"nonce of {ctx.key}", nonce)
    ctx.set(f"drawn {nonce}", ctx.key)
    found = None if read is None else ctx.get(read)["nonce"]
    for place in range(nonce % 4 + 1):
        ctx.stream(nonce)
        if place == 1:
            commits.rest()
    ctx.set(f"count of {ctx.key}", nonce % 4 + 1)
    sent = [NextTask(task.id, {"own": task.inputs, "by": ctx.key, "nonce": nonce}, task.spawn_another) for task in then]
    return TaskOutput({"nonce": nonce, "read": found, "sent": len(sent), "from": ctx.inputs}, sent)


SHAPES = {
    "chain": Shape(chain, "chain.one", in_order=True),
    "fan-out": Shape(fan_out_and_join, "fan.out"),
    "loop": Shape(loop, "loop.turn", in_order=True),
    "map-reduce": Shape(map_reduce, "map.start", merging=("map.reduce",)),
    "merged": Shape(merged, "merge.start", merging=("merge.reduce", "merge.log")),
    "failure": Shape(failure, "fail.start"),
    "streams": Shape(streams, "stream.start", merging=("stream.sum",)),
    "large": Shape(large, "large.write", in_order=True),
    "retries": Shape(retries, "retry.start", in_order=True),
    "updates": Shape(updates, "update.start"),
    "blocking get": Shape(fan_out_and_join, "fan.out", workers=1),
    "joins": Shape(waiting_flows.joins, "join.start"),
    "signals": Shape(waiting_flows.signals, "signal.start"),
    "steps": Shape(waiting_flows.steps, "step.pay"),
    "checkpoints": Shape(waiting_flows.checkpoints, "check.start"),
    "coroutines": Shape(waiting_flows.coroutines, "async.start"),
    "timeouts": Shape(waiting_flows.timeouts, "time.start"),
}
NONCE_SHAPES = {
    "nonces": Shape(nonces, "nonce.start", workers=3),
    "nonces of one worker": Shape(nonces_of_one_worker, "wait.start", workers=1),
}
ALL_SHAPES = SHAPES | NONCE_SHAPES
