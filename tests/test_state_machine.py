"""`RunState` in the hands of an adversary: small programs under any schedule, with crashes, failures and pauses anywhere.

Whatever the schedule, a program ends as one that ran undisturbed. The bugs planted at the end show that this would notice, and
each test counts what its schedules brought about, so that none of them is found to have tried nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from liteflow.engine.state import Decision, Request, RunState
from liteflow.model import RunStatus, TaskStatus
from tests.programs import PROGRAMS, any_program
from tests.simulated_run import TROUBLE, Simulation
from tests.simulated_store import BrokenPromiseError
from tests.simulated_tasks import Program, adding, body, many

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from liteflow.engine.state import Entry

# ---------------------------------------------------------------- the promises

SCHEDULES = st.binary(min_size=100, max_size=400)
SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))
WORKERS = st.sampled_from([1, 2, 4])
TROUBLES = ("crash", "failure", "late end", "lost worker", "pause", "retry", "time", "timeout")
FLOOR = 15  # times that each kind of trouble must have had effect in the runs of one test


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_undisturbed_run_on_one_worker_ends_as_it_should(name: str):
    Simulation(PROGRAMS[name], workers=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_whatever_happens_a_run_ends_as_an_undisturbed_one(name: str):
    seen = Counter()

    @SETTINGS
    @given(workers=WORKERS, schedule=SCHEDULES)
    def search(workers: int, schedule: bytes):
        seen.update(Simulation(PROGRAMS[name], workers, schedule).effects)

    search()

    assert_seen(seen, *TROUBLES, *PROGRAMS[name].shows)


def test_whatever_the_program_every_promise_holds_that_needs_not_know_it():
    seen = Counter()

    @SETTINGS
    @given(seed=st.integers(0, 2**32), workers=WORKERS, schedule=SCHEDULES)
    def search(seed: int, workers: int, schedule: bytes):
        seen.update(Simulation(any_program(seed), workers, schedule).effects)

    search()

    assert_seen(seen, *TROUBLES, "late call", "late return", "signal", "checkpoint kept", "idle", "follower")
    assert_seen(seen, "join", "join behind", "join of a merged member")


def test_a_run_that_is_cancelled_at_any_moment_starts_nothing_more_and_ends_cancelled():
    seen = Counter()

    @settings(SETTINGS, max_examples=500)
    @given(name=st.sampled_from(list(PROGRAMS)), cancel_at=st.integers(0, 60), workers=WORKERS, schedule=SCHEDULES)
    def search(name: str, cancel_at: int, workers: int, schedule: bytes):
        seen.update(Simulation(PROGRAMS[name], workers, schedule, cancel_at=cancel_at).effects)

    search()

    assert_seen(seen, "cancel", "cancel of a run that stops", "trouble after a cancel", "cancelled with something left")


def assert_seen(seen: Counter[str], *kinds: str):
    print({kind: times for kind, times in sorted(seen.items()) if times})  # noqa: T201 - pytest -rP shows what was tried
    assert [kind for kind in kinds if seen[kind] < FLOOR] == []


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
    def completed(self, number: int, *asked: Any, **what: Collection[str]) -> Decision:
        return super().completed(number, *asked, outdated=what["outdated"])


class NoStaleRerun(RunState):
    def completed(self, number: int, *asked: Any, **what: Collection[str]) -> Decision:
        clash = [key for key in what["outdated"] if key in what["wrote"]]
        return super().completed(number, *asked, wrote=what["wrote"], outdated=clash)


class RequestsLostInConflict(RunState):
    def completed(self, number: int, requests: Sequence[Request], join: Any = None, **what: Collection[str]) -> Decision:
        return super().completed(number, () if number in self._turns._contends else requests, join, **what)


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


class JoinStartsWithItsFirstMember(RunState):
    def _become_ready(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        first = [e for e in entries if e.status is TaskStatus.PENDING and 0 < len(e.members) < (e.dispatch.joins or 0)]
        self._ready.extend(entry.dispatch.number for entry in first)
        super()._become_ready(entries)


class JoinForgottenByItsMergedMember(RunState):
    def _merge(self, number: int, into: int, decision: Decision) -> None:
        self._holds._watched.pop(number, None)
        super()._merge(number, into, decision)

    def recorded(self) -> dict[str, object]:
        return {**super().recorded(), "live": set(self.live)}


class JoinFreedByItsMergedMember(RunState):
    def _merge(self, number: int, into: int, decision: Decision) -> None:
        self._become_ready(self._holds.completed(number))
        super()._merge(number, into, decision)

    def recorded(self) -> dict[str, object]:
        return {**super().recorded(), "live": set(self.live)}


class EmptyJoinNeverStarts(RunState):
    def _be_ready(self, entry: Entry) -> None:
        if entry.dispatch.joins != 0:
            super()._be_ready(entry)


class MembersAreResults(RunState):
    def completed(self, number: int, requests: Sequence[Request], join: Any = None, **what: Collection[str]) -> Decision:
        decision = super().completed(number, requests, join, **what)
        decision.leaf = not requests and join is None
        return decision


class JoinStartsBesideItsInstance(RunState):
    def _become_ready(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            if entry.dispatch.joins and entry.status is TaskStatus.BEHIND and entry.is_free:
                self._ready.append(entry.dispatch.number)
        super()._become_ready(entries)


class KeysWrittenBeforeAreMissed(RunState):
    def _dispatch(self, request: Request, *rest: Any, **more: Any) -> int:
        return super()._dispatch(request._replace(missing=frozenset(request.wait_for)), *rest, **more)

    def recorded(self) -> dict[str, object]:
        return {**super().recorded(), "live": set(self.live)}


class OneKeyIsEnough(RunState):
    def written(self, keys: Iterable[str]) -> None:
        for key in keys:
            for entry in self._holds._awaited.get(key, ()):
                if entry.status is TaskStatus.PENDING and len(entry.missing) > 1:
                    self._ready.append(entry.dispatch.number)
            super().written([key])


class TriedAgainAtOnce(RunState):
    def retried(self, number: int, not_before: Any) -> Decision:
        decision = super().retried(number, not_before)
        self.due(number)
        return decision


class DueIgnoredAfterLoad(RunState):
    is_loaded = False

    @classmethod
    def load(cls, entries: Iterable[Entry], **rest: Any) -> RunState:
        state = super().load(entries, **rest)
        state.is_loaded = True
        return state

    def due(self, number: int) -> None:
        if not self.is_loaded:
            super().due(number)


class CheckpointedConflictUnseen(RunState):
    def checkpointed(self, number: int, **what: Collection[str]) -> Decision:
        return super().checkpointed(number, wrote=what["wrote"], outdated=())


class FailureWinsOverCancel(RunState):
    def failed(self, number: int) -> Decision:
        self.stopping = None
        return super().failed(number)


class PauseWinsOverCancel(RunState):
    def stop(self, status: RunStatus) -> Decision:
        if status is RunStatus.PAUSED and self.stopping:
            self.stopping = (status, None)
        return super().stop(status)


class CancelledRunStartsMore(RunState):
    def take_ready(self) -> list[int]:
        stopping = self.stopping
        self.stopping = stopping if stopping and stopping[0] is not RunStatus.CANCELLED else None
        numbers = super().take_ready()
        self.stopping = stopping
        return numbers

    def begin(self, number: int) -> int | None:
        stopping = self.stopping
        self.stopping = stopping if stopping and stopping[0] is not RunStatus.CANCELLED else None
        attempt = super().begin(number)
        self.stopping = stopping
        return attempt


class IdleWhileSomethingRuns(RunState):
    @property
    def is_idle(self) -> bool:
        return not self._ready and not self._turns and bool(self.live) and not self.stopping


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
    JoinStartsWithItsFirstMember: "a join starts after all its members",
    JoinForgottenByItsMergedMember: "a run is idle if and only if all of it waits",
    JoinFreedByItsMergedMember: "a join starts after all its members",
    EmptyJoinNeverStarts: "a run is idle if and only if all of it waits",
    MembersAreResults: "what a join waits for is not in the result",
    JoinStartsBesideItsInstance: "what is handed out may start",
    KeysWrittenBeforeAreMissed: "a run is idle if and only if all of it waits",
    OneKeyIsEnough: "nothing starts before its keys are written",
    TriedAgainAtOnce: "nothing starts before its time",
    DueIgnoredAfterLoad: "a run is idle if and only if all of it waits",
    CheckpointedConflictUnseen: "ends as one that was not disturbed",
    FailureWinsOverCancel: "a cancelled run ends cancelled",
    PauseWinsOverCancel: "a cancelled run ends cancelled",
    CancelledRunStartsMore: "nothing starts in a cancelled run",
    IdleWhileSomethingRuns: "a run is idle if and only if all of it waits",
}
ONLY_IN = {  # few schedules of few programs let these show
    NoStaleRerun: "map-reduce on one key",
    TurnsKeptWhileWaiting: "a wait within a turn",
    JoinFreedByItsMergedMember: "members that merge",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: type[RunState]):
    names = [ONLY_IN[bug]] if bug in ONLY_IN else list(PROGRAMS)
    cancels = st.integers(0, 60) if "Cancel" in bug.__name__ else st.none()

    @settings(SETTINGS, max_examples=3_000, phases=[Phase.generate])
    @given(name=st.sampled_from(names), workers=WORKERS, schedule=SCHEDULES, cancel_at=cancels)
    def search(name: str, workers: int, schedule: bytes, cancel_at: int | None):
        Simulation(PROGRAMS[name], workers, schedule, bug, cancel_at)

    with pytest.raises(BrokenPromiseError, match=PLANTED[bug]):
        search()


def test_without_turns_64_tasks_that_change_one_key_would_need_more_than_3_attempts_each():
    every_attempt_reads_before_one_commits = bytes([*range(65)] * 100)

    assert attempts_of_64(64, every_attempt_reads_before_one_commits, NoTurns) > 3 * 64
    assert attempts_of_64(64, every_attempt_reads_before_one_commits) <= 3 * 64
