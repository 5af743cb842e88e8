"""`RunState` in the hands of an adversary, once more: joins, awaited keys, delays, retries, checkpoints, cancellation.

What the simulation checks of each of them stands in `Simulation.begin`, `Simulation.hand_out` and at the end of each run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liteflow.engine.state import Decision, Request, RunState
from liteflow.model import RunStatus
from tests.simulation import CHECKPOINT, TRIES, AgainError, BrokenPromiseError, Get, Program, Set, Simulation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

EXAMPLES = 250
EFFECTS = {"crash": 300, "pause": 300, "failure": 100, "lost worker": 100, "timeout": 100, "cancel": 50, "signal": 300,
           "retry": 300, "checkpoint": 300}  # fmt: skip  # at least so often over all examples


def body(*requests: Request, output: object = None, join: Request | None = None):
    def run(_inputs: str | None):
        yield from ()
        return (output, list(requests)) if join is None else (output, list(requests), join)

    return run


def parts(*inputs: str) -> list[Request]:
    return [Request("part", value, spawn_another=True) for value in inputs]


def part(inputs: str):
    yield Set(f"part {inputs}", inputs)
    return inputs, []


def merge(_inputs: str | None):
    """The join: all that its members wrote is there."""
    found = [None] * 3
    for place, name in enumerate("abc"):
        found[place] = yield Get(f"part {name}", None)
    merges = yield Get("merges", 0)
    yield Set("merges", merges + 1)
    return found, []


def nested(inputs: str):
    yield Set(f"part {inputs}", inputs)
    return inputs, parts(inputs * 2, inputs * 3), Request("inner", spawn_another=True)


def inner(_inputs: str | None):
    done = yield Get("inners", 0)
    yield Set("inners", done + 1)
    return None, []


def flaky(_inputs: str | None):
    yield Set("tried", (yield TRIES))
    if (yield TRIES) < 3:
        raise AgainError
    return "done", [Request("after", delay=4)]


def careful(inputs: str):
    """It commits on its way, and goes on where it was."""
    done = yield Get(f"done {inputs}", 0)
    while done < 3:
        total = yield Get("total", 0)
        done += 1
        yield Set("total", total + 1)
        yield Set(f"done {inputs}", done)
        yield CHECKPOINT
    return done, []


def ship(_inputs: str | None):
    approval = yield Get("approval")
    return [approval, (yield Get("paid"))], []


def pay(_inputs: str | None):
    yield Set("paid", "yes")
    return None, [Request("ship", wait_for=("approval", "paid"))]


PROGRAMS = {
    "join": Program(
        {"start": body(*parts(*"abc"), join=Request("merge")), "part": part, "merge": merge}, {"merge": [*"abc"], "merges": 1}
    ),
    "join of nothing": Program({"start": body(join=Request("merge")), "merge": merge}, {"merge": [None] * 3, "merges": 1}),
    "join of one thrice": Program(
        {"start": body(*[Request("part", "a")] * 3, Request("part", "b"), join=Request("merge")), "part": part, "merge": merge},
        {"merge": ["a", "b", None], "merges": 1},
    ),
    "join of what another waits for": Program(
        {
            "start": body(Request("part", "a"), Request("again")),
            "again": body(Request("part", "a"), Request("part", "c"), join=Request("merge")),
            "part": part, "merge": merge,
        },
        {"merge": ["a", None, "c"], "merges": 1},
    ),
    "joins behind each other": Program(
        {
            "start": body(*[Request("fork", name, spawn_another=True) for name in "ab"]),
            "fork": lambda inputs: body(*parts(inputs), join=Request("inner"))(None),
            "part": part, "inner": inner,
        },
        {"inners": 2, "part a": "a", "part b": "b"},
    ),
    "nested joins": Program(
        {
            "start": body(*[Request("nested", name, spawn_another=True) for name in "ab"], join=Request("merge")),
            "nested": nested, "part": part, "inner": inner, "merge": merge,
        },
        {"inners": 2, "merges": 1, "part aaa": "aaa", "part bb": "bb"},
    ),
    "signals": Program(
        {"start": body(Request("pay"), Request("ship", wait_for=("approval", "paid"))), "pay": pay, "ship": ship},
        {"ship": ["signal", "yes"]}, signals=("approval",),
    ),
    "a signal from within": Program(
        {
            "start": body(Request("ship", wait_for=("approval", "paid")), Request("pay", delay=5), output=1),
            "pay": pay, "ship": ship,
        },
        {"ship": ["signal", "yes"]}, signals=("approval",),
    ),
    "retries and delays": Program(
        {"start": body(Request("flaky"), *parts("a")), "flaky": flaky, "part": part, "after": part},
        {"flaky": "done", "part a": "a"},
    ),
    "a join of what waits": Program(
        {
            "start": body(
                Request("part", "a", delay=3), Request("flaky"), Request("ship", wait_for=("approval",)), join=Request("merge")
            ),
            "part": part, "flaky": flaky, "after": part, "ship": body(), "merge": merge,
        },
        {"merges": 1, "flaky": "done"}, signals=("approval",),
    ),
    "checkpoints": Program(
        {"start": body(*[Request("careful", name, spawn_another=True) for name in "abc"]), "careful": careful},
        {"total": 9, "done a": 3, "done b": 3, "done c": 3},
    ),
    "cancelled": Program(
        {
            "start": body(*parts(*"ab"), Request("flaky"), Request("ship", wait_for=("approval",)), join=Request("merge")),
            "part": part, "flaky": flaky, "after": part, "ship": body(), "merge": merge,
        },
        {"merges": 1}, signals=("approval",), may_be_cancelled=True,
    ),
}  # fmt: skip

SETTINGS = settings(
    derandomize=True, database=None, deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck)
)
SCHEDULES = st.binary(min_size=100, max_size=400)
WORKERS = st.sampled_from([1, 2, 4])


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_undisturbed_run_on_one_worker_ends_as_it_should(name: str):
    Simulation(PROGRAMS[name], workers=1)


@pytest.mark.parametrize("name", PROGRAMS)
@SETTINGS
@given(workers=WORKERS, schedule=SCHEDULES)
def test_whatever_happens_a_run_ends_as_an_undisturbed_one(name: str, workers: int, schedule: bytes):
    simulation = Simulation(PROGRAMS[name], workers, schedule)

    assert simulation.store.run is RunStatus.COMPLETED or "cancel" in simulation.effects


def effects_of(kind: type[RunState], seeds: int) -> Counter[str]:
    """Run every program under so many schedules; return how often each kind of trouble had an effect."""
    effects: Counter[str] = Counter()
    for seed in range(seeds):
        for program in PROGRAMS.values():
            schedule = bytes((seed * 37 + n * n * 11) % 256 for n in range(200))
            effects.update(Simulation(program, 1 + seed % 4, schedule, kind).effects)
    return effects


def test_every_kind_of_trouble_has_an_effect():
    effects = effects_of(RunState, seeds=200)

    print(f"state machine: {200 * len(PROGRAMS)} schedules, {dict(effects)}")  # noqa: T201 - the figures of the suite
    assert {what for what, least in EFFECTS.items() if effects[what] < least} == set()


# ---------------------------------------------------------------- planted bugs


class JoinStartsWithItsFirstMember(RunState):
    def _become_ready(self, entries: Iterable[Any]) -> None:
        entries = list(entries)
        for entry in entries:
            if entry.dispatch.joins and len(entry.members) < entry.dispatch.joins:
                entry.members.clear()
        super()._become_ready(entries)


class JoinForgotWhoWasMerged(RunState):
    def _merge(self, number: int, into: int, decision: Decision) -> None:
        self._holds.merged = lambda number, _into: self._holds.completed(number)
        super()._merge(number, into, decision)
        del self._holds.merged


class KeysOfTheDispatcherMissed(RunState):
    def written(self, keys: Iterable[str]) -> None:
        super().written(key for key in keys if key != "paid")


class TriedAgainAtOnce(RunState):
    def retried(self, number: int, not_before: Any) -> Decision:
        decision = super().retried(number, not_before)
        self.live[number].is_due = True
        self._become_ready([self.live[number]])
        return decision


class TimesForgottenOnLoad(RunState):
    def resume(self) -> Decision:
        decision = super().resume()
        self._holds.delayed.clear()
        return decision


class FailureWinsOverCancel(RunState):
    def failed(self, number: int) -> Decision:
        decision = super().failed(number)
        self.stopping = (RunStatus.FAILED, number)
        return self._settle(decision)


class CheckpointWithoutCheck(RunState):
    def checkpointed(self, number: int, *, wrote: Collection[str], **_: Collection[str]) -> Decision:
        return super().checkpointed(number, wrote=wrote, outdated=())


class IdleTooEarly(RunState):
    @property
    def is_idle(self) -> bool:
        return not self._ready and bool(self.live) and not self.stopping


PLANTED = {
    JoinStartsWithItsFirstMember: "what was decided is what was recorded",
    JoinForgotWhoWasMerged: "what was decided is what was recorded",
    KeysOfTheDispatcherMissed: "what was decided is what was recorded",
    TriedAgainAtOnce: "nothing starts before its time",
    TimesForgottenOnLoad: "something can go on",
    FailureWinsOverCancel: "what was decided is what was recorded",
    CheckpointWithoutCheck: "the run ends as one that was not disturbed",
    IdleTooEarly: "a run is idle if nothing of it runs, or may",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: type[RunState]):
    with pytest.raises(BrokenPromiseError) as found:
        effects_of(bug, seeds=400)

    assert found.value.args[0] == PLANTED[bug]
