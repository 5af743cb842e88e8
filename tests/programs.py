"""Small programs for simulated runs: how each ends depends on no order."""

from __future__ import annotations

from random import Random

from liteflow.engine.state import Request
from tests.simulated_store import GONE, promise
from tests.simulated_tasks import (
    MINUTE,
    Check,
    Fail,
    Get,
    Joined,
    Once,
    Program,
    Set,
    adding,
    body,
    many,
    number,
    reading,
    summing,
)


def count(_inputs: str | None):
    n = yield Get("n", 0)
    yield Set("n", n + 1)
    return n + 1, [Request("count")] if n < 5 else []


def push(inputs: str):
    pushed = yield Get("pushed", ())
    yield Set("pushed", tuple(sorted({*pushed, inputs})))
    return None, [Request("push", inputs + "+")] if inputs in "ab" else []


def put(inputs: str):
    yield Set(f"item{inputs}", inputs)
    return None, [Request("sink", "all")]


def transfer(inputs: str):
    source, target = inputs
    money = [(yield Get(source, 10)), (yield Get(target, 10))]
    yield Set(source, money[0] - 1)
    yield Set(target, money[1] + 1)
    return None, []


def grow(inputs: str):
    later = [Request("grow", inputs[1:])] if inputs[1:] else []
    return (yield Set("size", len(inputs))), [Request("leaf", "1", spawn_another=True), *later]


def look_at_b(_inputs: str | None):
    """It waits for b only if b has been dispatched by then, perhaps holding a turn that b needs."""
    k = yield Get("k", 0)
    yield Get("b", None)
    yield Set("k", k + 100)
    return None, []


def fan(inputs: str):
    """Fan out to as many leaves as its inputs say, with a join of its own."""
    yield from ()
    return int(inputs), many("leaf", range(int(inputs))), Request("inner", inputs, spawn_another=True)


def inner(_inputs: str):
    total = sum((yield Joined()))
    yield Set("total", (yield Get("total", 0)) + total)
    return total, [], Request("rest", spawn_another=True)


def rest(_inputs: str | None):
    yield Set("rests", (yield Get("rests", 0)) + 1 + len((yield Joined())))
    return None, []


def work_round(inputs: str):
    """The barrier of each round is the next turn of the same task."""
    yield Set("sum", (yield Get("sum", 0)) + sum((yield Joined())))
    more = int(inputs) < 3
    return inputs, many("number", [1, 2]) if more else [], Request("round", str(int(inputs) + 1)) if more else None


def share(inputs: str):
    """Dispatch what others dispatch likewise, as members of a join of its own."""
    yield Set("k", (yield Get("k", 0)) + 1)
    members = [Request("shared"), Request("shared"), *many("number", [1])]
    return None, members, Request("sum", inputs, spawn_another=True)


def shared(_inputs: str | None):
    yield Set("seen", (yield Get("k", 0)))
    return 10, []


def work(inputs: str):
    """A member, or the join of such."""
    joined = yield Joined()
    if joined is not None:
        yield Set("total", (yield Get("total", 0)) + sum(joined))
    return int(inputs), []


def write_and_delete(_inputs: str | None):
    """It dispatches those that wait for what it deletes again, and for its own output."""
    yield Set("mine", 1)
    yield Set("mine", GONE)
    waits = [Request("after", wait_for=("go", "pay"))] * 2
    return None, [*waits, Request("own", "1", wait_for=("mine", "split"))]


def poll(inputs: str):
    yield Set("polls", (yield Get("polls", 0)) + 1)
    return None, [Request("poll", str(int(inputs) - 1), delay=MINUTE)] if int(inputs) > 1 else []


def migrate(inputs: str):
    """Move four things, one by one, and look how far it came."""
    for n in range((yield Get(f"done{inputs}", 0)), 4):
        yield Set("moved", (yield Get("moved", 0)) + 1)
        yield Set(f"done{inputs}", n + 1)
        yield Check()
    return None, [Request("report")]


def report(_inputs: str | None):
    moved = yield Get("moved", 0)
    yield Set("seen", moved)
    yield Check()
    return moved, []


def pay(inputs: str):
    """What a step gave once, every later attempt gets."""
    receipt = yield Once(f"pay {inputs}")
    before = yield Get(f"receipt {inputs}", receipt)
    promise(before == receipt, "every attempt gets the recorded result of a step", before, receipt)
    yield Set(f"receipt {inputs}", receipt)
    yield Check()
    yield Set("paid", (yield Get("paid", 0)) + 1)
    mail = yield Once(f"mail {inputs}")
    turn = int(inputs) + 10
    return (receipt, mail), [Request("pay", str(turn))] if turn < 40 else []


def order(inputs: str):
    """A bit of all: a count that is not taken twice, a step, an error, and a join whose members wait."""
    if (yield Get(f"counted {inputs}", 0)) == 0:
        yield Set("orders", (yield Get("orders", 0)) + 1)
        yield Set(f"counted {inputs}", 1)
        yield Check()
    yield Once(f"order {inputs}")
    yield Fail(1)
    members = [Request("pack", inputs, spawn_another=True, wait_for=(f"stock {inputs}",)), Request("label", inputs, delay=MINUTE)]
    return int(inputs), members, Request("ship", inputs, wait_for=("truck",))


def ship(inputs: str):
    yield Set("shipped", (yield Get("shipped", 0)) + sum((yield Joined())))
    return inputs, [Request("tell")]


PROGRAMS = {
    "map-reduce on one key": Program(
        {"start": body(*many("map", range(1, 6))), "map": adding("total", Request("reduce")), "reduce": reading("total")},
        {"total": 15, "reduce": [15]},
        shows=("conflict", "follower"),
    ),
    "diamond": Program(
        {
            "start": body(Request("left"), Request("right")),
            "left": body(Request("bottom"), output=1, steps=[Set("l", 1)]),
            "right": body(Request("bottom"), output=2, steps=[Set("r", 2)]),
            "bottom": reading("left", "right", "l", "r"),
        },
        {"bottom": [1, 2, 1, 2]},
    ),
    "loop": Program({"start": body(Request("count")), "count": count}, {"n": 6, "count": 6}),
    "turns": Program(
        {"start": body(*(Request("push", c) for c in "abcac")), "push": push}, {"pushed": ("a", "a+", "b", "b+", "c")}
    ),
    "fan-out and gather": Program(
        {
            "start": body(Request("gather"), Request("split")),
            "split": body(*many("work", range(4))),
            "work": adding("done"),
            "gather": reading("work", "work#2", "work#3", "work#4"),
        },
        {"gather": ["0", "1", "2", "3"], "done": 6},
    ),
    "merged dispatches": Program(
        {"start": body(*many("put", range(4))), "put": put, "sink": reading(*(f"item{n}" for n in range(4)), default=None)},
        {"sink": ["0", "1", "2", "3"]},
        shows=("follower",),
    ),
    "two keys each": Program(
        {"start": body(*many("transfer", ["ab", "bc", "ca", "ac", "ab", "bc"])), "transfer": transfer},
        {"a": 8, "b": 10, "c": 12},
        shows=("conflict",),
    ),
    "spawning loop": Program(
        {"start": body(Request("grow", "1234")), "grow": grow, "leaf": adding("leaves")}, {"leaves": 4, "size": 1}
    ),
    "turns of several instances": Program(
        {
            "start": body(*many("add", [1, 2]), Request("more")),
            "more": body(Request("add", "4"), Request("add", "8"), *many("add", [16])),
            "add": adding("sum", Request("reduce")),
            "reduce": reading("sum"),
        },
        {"sum": 31, "reduce": [31]},
    ),
    "a wait within a turn": Program(
        {
            "start": body(Request("a"), Request("seed"), Request("c", "1")),
            "seed": body(Request("b", "10")),
            "a": look_at_b,
            "b": adding("k"),
            "c": adding("k", Request("d", "1")),
            "d": adding("k"),
        },
        {"k": 112},
    ),
    "a join and who waits for it": Program(
        {
            "start": body(Request("watch"), Request("fan")),
            "watch": reading("reduce"),
            "fan": body(*many("number", range(4)), join=Request("reduce")),
            "number": number,
            "reduce": summing("total"),
        },
        {"reduce": 6, "total": 6, "numbers": 4, "watch": [6]},
        shows=("join", "conflict"),
    ),
    "joins within joins": Program(
        {
            "start": body(*many("fan", [2, 3, 0]), join=Request("outer")),
            "fan": fan,
            "leaf": number,
            "inner": inner,
            "rest": rest,
            "outer": summing("outers"),
        },
        {"outer": 5, "outers": 5, "total": 4, "rests": 3, "numbers": 5},
        shows=("join",),
    ),
    "rounds": Program(
        {"start": body(*many("number", [1]), join=Request("round", "1")), "number": number, "round": work_round},
        {"round": "3", "sum": 7, "numbers": 5},
        shows=("join",),
    ),
    "members that merge": Program(
        {"start": body(*many("share", "ab")), "share": share, "shared": shared, "number": number, "sum": summing("total")},
        {"total": 42, "numbers": 2, "seen": 2, "k": 2},
        shows=("join", "join of a merged member", "follower"),
    ),
    "a join behind its own task": Program(
        {
            "start": body(*many("fan", "ab"), Request("work", "4")),
            "fan": body(Request("work", "1"), Request("work", "2"), join=Request("work", "8")),
            "work": work,
        },
        {"total": 6},
        shows=("join", "join behind"),
    ),
    "signals": Program(
        {
            "start": body(Request("ship", wait_for=("approval", "paid")), Request("pay"), Request("split")),
            "pay": body(steps=[Set("paid", 1)]),
            "split": write_and_delete,
            "after": reading("go"),
            "own": adding("owns"),
            "ship": reading("approval", "paid"),
        },
        {"ship": ["yes", 1], "after": [7], "owns": 1},
        signals={"approval": "yes", "go": 7},
        before={"approval": "of an earlier run", "mine": 0},
        shows=("signal", "idle"),
    ),
    "members that wait": Program(
        {
            "start": body(
                Request("ask", "1", spawn_another=True, wait_for=("a1",)),
                Request("ask", "2", delay=MINUTE, wait_for=("a2",)),
                join=Request("all", wait_for=("a3",), delay=MINUTE),
            ),
            "ask": adding("asked"),
            "all": reading("a1", "a2", "a3", "asked", steps=[Joined()]),
        },
        {"all": ["x", "y", "z", 3]},
        signals={"a1": "x", "a2": "y", "a3": "z"},
        shows=("signal", "time", "idle", "join"),
    ),
    "delays": Program(
        {
            "start": body(
                Request("poll", "3", delay=MINUTE),
                *[Request("tick", "1", delay=MINUTE)] * 2,
                Request("tick", "1"),
                join=Request("end", delay=MINUTE),
            ),
            "poll": poll,
            "tick": adding("ticks"),
            "end": adding("ends"),
        },
        {"polls": 3, "ticks": 3, "ends": 0},
        shows=("time", "idle", "join"),
    ),
    "retries": Program(
        {
            "start": body(*many("put", range(3)), *many("flaky", [1, 2]), join=Request("sum")),
            "put": put,
            "sink": reading("item0", "item1", "item2", default=None, steps=[Get("item1", None), Fail(2)]),
            "flaky": adding("done", steps=[Get("done", 0), Fail(1)]),
            "sum": body(steps=[Joined()]),
        },
        {"sink": ["0", "1", "2"], "done": 3},
        shows=("time", "idle", "join"),
    ),
    "checkpoints": Program(
        {"start": body(*many("migrate", "ab")), "migrate": migrate, "report": report},
        {"moved": 8, "report": 8, "seen": 8},
        shows=("checkpoint", "checkpoint kept", "conflict at a checkpoint"),
    ),
    "steps": Program(
        {"start": body(*(Request("pay", str(n)) for n in range(3))), "pay": pay},
        {"paid": 12},
        shows=("checkpoint kept", "step kept", "step"),
    ),
    "orders": Program(
        {
            "start": body(*many("order", [1, 2]), join=Request("bill", delay=MINUTE)),
            "order": order,
            "pack": number,
            "label": number,
            "ship": ship,
            "tell": reading("shipped"),
            "bill": summing("billed"),
        },
        {"orders": 2, "numbers": 4, "shipped": 6, "tell": [6], "bill": 3, "billed": 3},
        signals={"stock 1": 1, "stock 2": 1, "truck": 1},
        shows=("signal", "time", "idle", "join", "join behind", "checkpoint kept", "step kept"),
    ),
}


# ---------------------------------------------------------------- a program out of the hat


def any_program(seed: int, *, waits_with_own_inputs: bool = True) -> Program:
    """Return a program of three tasks that do and ask for anything, and of which nothing is known but that it ends.

    With *waits_with_own_inputs*, no dispatch that waits for a key equals one that does not wait for it.
    """

    def ask(chance: Random, depth: int) -> Request:
        waits = tuple(key for key in ("s1", "s2", "start") if chance.random() < 0.1)
        inputs = f"{depth}{chance.choice('ab')}{''.join(waits) if waits_with_own_inputs else ''}"
        delay = MINUTE if chance.random() < 0.15 else None
        return Request(chance.choice(["t1", "t2", "t3"]), inputs, chance.random() < 0.3, delay=delay, wait_for=waits)

    def task(name: str):
        def run(inputs: str | None):
            chance = Random(f"{seed} {name} {inputs}")  # noqa: S311 - no secret: the same at each attempt
            depth = int(inputs[0]) if inputs else 4
            yield Joined()
            for _ in range(chance.randrange(4)):
                key = chance.choice("km")
                read = [Get(key, 0)] * chance.randrange(2)
                then = chance.choice([Check(), Fail(1), Set(key, GONE), Set(key, 1), Set(key, inputs)])
                for step in [*read, then]:  # noqa: UP028 - a list takes no answers
                    yield step
            requests = [ask(chance, depth - 1) for _ in range(chance.randrange(4))] if depth else []
            join = ask(chance, depth - 1) if depth and chance.random() < 0.5 else None
            return inputs, requests, join

        return run

    return Program({name: task(name) for name in ("start", "t1", "t2", "t3")}, {}, signals={"s1": 1, "s2": 2})
