"""`RunState` in the hands of an adversary: small programs under any schedule, with crashes, failures and pauses anywhere.

Whatever the schedule, a program ends as one that ran undisturbed. The bugs planted at the end show that this would notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from liteflow.engine.state import Decision, Request, RunState
from liteflow.model import RunStatus, TaskStatus
from tests.simulation import TROUBLE, WAIT, BrokenPromiseError, Get, Program, Set, Simulation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from liteflow.engine.state import Entry

# ---------------------------------------------------------------- the programs: how each ends depends on no order


def body(*requests: Request, output: object = None, steps: Iterable[Get | Set] = ()):
    def run(_inputs: str | None):
        yield from steps
        return output, list(requests)

    return run


def adding(key: str, *requests: Request):
    """A task that adds its inputs to a key."""

    def run(inputs: str | None):
        yield Set(key, (yield Get(key, 0)) + int(inputs or 0))
        return inputs, list(requests)

    return run


def reading(*keys: str, default: object = WAIT):
    """A task whose output is what it reads."""

    def run(_inputs: str | None):
        values = {}
        for key in keys:
            values[key] = yield Get(key, default)
        return list(values.values()), []

    return run


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


def many(task: str, inputs: Iterable[object]) -> list[Request]:
    return [Request(task, str(value), spawn_another=True) for value in inputs]


PROGRAMS = {
    "map-reduce on one key": Program(
        {"start": body(*many("map", range(1, 6))), "map": adding("total", Request("reduce")), "reduce": reading("total")},
        {"total": 15, "reduce": [15]},
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
    ),
    "two keys each": Program(
        {"start": body(*many("transfer", ["ab", "bc", "ca", "ac", "ab", "bc"])), "transfer": transfer}, {"a": 8, "b": 10, "c": 12}
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
}


# ---------------------------------------------------------------- the promises

SCHEDULES = st.binary(min_size=100, max_size=400)
SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))
WORKERS = st.sampled_from([1, 2, 4])


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_undisturbed_run_on_one_worker_ends_as_it_should(name: str):
    Simulation(PROGRAMS[name], workers=1)


@pytest.mark.parametrize("name", PROGRAMS)
@SETTINGS
@given(workers=WORKERS, schedule=SCHEDULES)
def test_whatever_happens_a_run_ends_as_an_undisturbed_one(name: str, workers: int, schedule: bytes):
    Simulation(PROGRAMS[name], workers, schedule)


def attempts_of_64(workers: int, schedule: bytes, kind: type[RunState] = RunState) -> int:
    """Return how many attempts it takes 64 tasks that change one key, the first task left aside."""
    adders = Program({"start": body(*many("add", range(64))), "add": adding("sum")}, {"sum": 2016})
    return Simulation(adders, workers, bytes(choice % TROUBLE for choice in schedule), kind).attempts - 1


@pytest.mark.parametrize("workers", [1, 2, 4, 64])
@settings(SETTINGS, max_examples=10)
@given(schedule=st.binary(min_size=600, max_size=900))
def test_64_tasks_that_change_one_key_need_at_most_3_attempts_each(workers: int, schedule: bytes):
    assert attempts_of_64(workers, schedule) <= 3 * 64


# ---------------------------------------------------------------- planted bugs


class NoConflictCheck(RunState):
    def completed(self, number: int, requests: Sequence[Request], _join: None = None, **what: Collection[str]) -> Decision:
        return super().completed(number, requests, outdated=what["outdated"])


class NoStaleRerun(RunState):
    def completed(self, number: int, requests: Sequence[Request], _join: None = None, **what: Collection[str]) -> Decision:
        clash = [key for key in what["outdated"] if key in what["wrote"]]
        return super().completed(number, requests, wrote=what["wrote"], outdated=clash)


class RequestsLostInConflict(RunState):
    def completed(self, number: int, requests: Sequence[Request], _join: None = None, **what: Collection[str]) -> Decision:
        return super().completed(number, () if number in self._turns._contends else requests, **what)


class FollowersLostInConflict(RunState):
    def _conflict(self, number: int, keys: Collection[str]) -> Decision:
        decision = super()._conflict(number, keys)
        for follower in self.lines[self.live[number].dispatch.key][1:]:
            self._merge(follower, number, Decision())
        return decision


class NoMergeOnResume(RunState):
    def resume(self) -> Decision:
        self._merge_followers = lambda _number, _decision: None
        decision = super().resume()
        del self._merge_followers
        return decision


class InstanceNumbersReused(RunState):
    @classmethod
    def load(cls, entries: Iterable[Entry], **rest: Any) -> RunState:
        return super().load(entries, **{**rest, "spawned": {}})

    def recorded(self) -> dict[str, object]:
        return {**super().recorded(), "spawned": None}  # so that it shows in nothing but what follows


class OldestInstanceByDispatch(RunState):
    @classmethod
    def load(cls, entries: Iterable[Entry], **rest: Any) -> RunState:
        state = super().load(entries, **rest)
        state.instances = {}
        for key, line in sorted(state.lines.items(), key=lambda item: item[1]):
            state.instances.setdefault(state.live[line[0]].dispatch.task_id, {})[key] = None
        return state


class TurnsKeptWhileWaiting(RunState):
    def blocks(self, number: int, key: str) -> bool:
        contends = self._turns._contends.pop(number, None)
        closes = super().blocks(number, key)
        if contends is not None:
            self._turns._contends[number] = contends
        return closes


class PausedWithNothingLeft(RunState):
    def _settle(self, decision: Decision) -> Decision:
        super()._settle(decision)
        if self.stopping and decision.run is RunStatus.COMPLETED:
            decision.run = self.stopping[0]
        return decision


class FailureStopsNothing(RunState):
    def begin(self, number: int) -> int | None:
        stopping, self.stopping = self.stopping, None
        attempt = super().begin(number)
        self.stopping = stopping
        return attempt


class TurnsSideBySide(RunState):
    def _dispatch(self, request: Request, by: int | None, decision: Decision, *rest: Any, **more: Any) -> int:
        watched = super()._dispatch(request, by, decision, *rest, **more)
        new = decision.dispatched[-1]
        if new.status is TaskStatus.BEHIND:
            self._ready.append(new.dispatch.number)
        return watched

    def begin(self, number: int) -> int | None:
        if number in self.live and self.live[number].status is TaskStatus.BEHIND:
            self.live[number].status = TaskStatus.PENDING
        return super().begin(number)


class NoTurns(RunState):
    def _conflict(self, number: int, keys: Collection[str]) -> Decision:
        decision = super()._conflict(number, keys)
        self._ready.extend(self._turns._in_line)
        self._turns._in_line.clear()
        return decision


PLANTED = {
    NoConflictCheck: "ends as one that was not disturbed",
    NoStaleRerun: "sees what its dispatcher wrote",
    RequestsLostInConflict: "ends as one that was not disturbed",
    FollowersLostInConflict: "what was decided is what was recorded",
    NoMergeOnResume: "only what runs has followers",
    InstanceNumbersReused: "no instance number is used twice",
    OldestInstanceByDispatch: "what was decided is what was recorded",
    TurnsKeptWhileWaiting: "something can go on",
    PausedWithNothingLeft: "something can go on",
    FailureStopsNothing: "nothing starts in a run that is to stand still",
    TurnsSideBySide: "an instance runs one dispatch at a time",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: type[RunState]):
    names = ["a wait within a turn"] if bug is TurnsKeptWhileWaiting else list(PROGRAMS)  # few schedules let it show

    @settings(SETTINGS, max_examples=3_000, phases=[Phase.generate])
    @given(name=st.sampled_from(names), workers=WORKERS, schedule=SCHEDULES)
    def search(name: str, workers: int, schedule: bytes):
        Simulation(PROGRAMS[name], workers, schedule, bug)

    with pytest.raises(BrokenPromiseError, match=PLANTED[bug]):
        search()


def test_without_turns_64_tasks_that_change_one_key_would_need_more_than_3_attempts_each():
    every_attempt_reads_before_one_commits = bytes([*range(65)] * 100)

    assert attempts_of_64(64, every_attempt_reads_before_one_commits, NoTurns) > 3 * 64
    assert attempts_of_64(64, every_attempt_reads_before_one_commits) <= 3 * 64
