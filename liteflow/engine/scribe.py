"""Asks the state what follows from what happened, and writes it down: the heart of a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liteflow.engine.events import Broke, Checkpoint, Done, Halt, Step
from liteflow.engine.journal import Journal
from liteflow.errors import ConflictError, LimitExceededError, LiteFlowError, RunCancelledError, TaskFailedError
from liteflow.model import RunStatus, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from liteflow.engine.attempt import Attempt
    from liteflow.engine.decision import Decision, Entry, Request
    from liteflow.engine.events import Event
    from liteflow.engine.services import Services
    from liteflow.engine.state import RunState
    from liteflow.engine.streams import Feed
    from liteflow.engine.values import Values
    from liteflow.engine.waits import Waits
    from liteflow.model import Failure, Value
    from liteflow.store.database import Transaction

FLUSH_AT = 10_000  # writes of an attempt
MOST_NAMED = 3  # of what a waiting run waits for


class Scribe:
    """Decides and records for one run; all its methods are called under the driver's lock.

    Args:
        services: what the run works with.
        run_id: the run.
        context_id: its context.
        base_version: where its context stood when the run began.
        state: the run as recorded.
        values: the committed values of its context.
        feed: its stream.
        waits: who waits for what.

    Attributes:
        attempts: those that run, by the number of their dispatch.
        late: those whose updates are to be applied to what has changed since.
        ending: how the run stands now, and why, once it does.
        failure: what has failed it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self, services: Services, run_id: str, context_id: str, base_version: int, state: RunState, values: Values, feed: Feed,
        waits: Waits,
    ) -> None:  # fmt: skip
        self._services, self._run_id, self._context_id, self._base = services, run_id, context_id, base_version
        self._state, self._values, self._feed, self._waits = state, values, feed, waits
        self.attempts: dict[int, Attempt] = {}
        self.late: list[Done | Checkpoint] = []
        self.ending: tuple[RunStatus, str | None] | None = None
        self.failure: TaskFailedError | None = None
        self._given_up: list[Attempt] = []  # and still among those that run
        self._halt_reason: str | None = None
        self._waits_for: str | None = None  # by its row

    def write(self, events: Iterable[Event], tx: Transaction) -> Journal:
        """Return what is to be recorded of these events, in order."""
        self._tx, self._now = tx, self._services.clock.now()
        journal = Journal(self._run_id, self._context_id, self._now)
        committed: set[tuple[int, int]] = set()
        lost: set[tuple[int, int]] = set()
        for event in events:
            if isinstance(event, Halt):
                self.halted(event)
            elif event is not None and event.attempt.given_up is None:
                took_effect = self._happened(event, journal)
                if took_effect is not None:
                    (committed if took_effect else lost).add(event.attempt.id)
        given_up, self._given_up = self._given_up, []
        for attempt in given_up:
            if self.attempts.get(attempt.dispatch.number) is attempt:
                lost.add(attempt.id)
                self._comes_to_nothing(attempt, "cancelled", journal)
                self._follows(self._state.given_up(attempt.dispatch.number), journal)
        self._record_open(journal, committed, lost)
        self._stands(journal)
        return journal

    def _happened(self, event: Done | Broke | Checkpoint | Step, journal: Journal) -> bool | None:
        """Return whether what an attempt wrote takes effect, ``None`` if that is still open."""
        if isinstance(event, Step):
            journal.step(event.attempt, event.name, event.text)
            return None
        if isinstance(event, Broke):
            return self._broke(event, journal)
        if event.attempt.is_late(self._newest):
            self.late.append(event)
            return None
        return self._done(event, journal) if isinstance(event, Done) else self._checkpoint(event, journal)

    def _newest(self, key: str) -> Value:
        return self._values.newest(key, self._load)

    def _load(self, key: str) -> Value:
        return self._services.store.value(self._tx, self._context_id, key)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _done(self, event: Done, journal: Journal) -> bool | None:
        """An attempt returned: commit what it did, unless what it read has changed under it."""
        attempt, dispatch, key = event.attempt, event.attempt.dispatch, event.attempt.dispatch.key
        if self._is_too_many(len(event.requests) + (event.join is not None)):
            return None
        requests = [self._held(request, attempt) for request in event.requests]
        join = None if event.join is None else self._held(event.join, attempt)
        wrote = {*attempt.keys_set(), key}
        attempt.writes.append((key, event.output))
        decision = self._state.completed(
            dispatch.number, requests, join, wrote=wrote, outdated=self._outdated(attempt, wrote)
        )  # fmt: skip
        if decision.conflicted:
            attempt.writes.pop()
            self._comes_to_nothing(attempt, "conflicted", journal)
            attempt.given_up = ConflictError(key)
        else:
            del self.attempts[dispatch.number]
            self._commit_writes(attempt, journal)
            self._values.touched_at[dispatch.task_id] = self._values.version
            for request in [*requests, join] if join is not None else requests:
                self._values.touched_at[request.task_id] = self._values.version
            seq = self._feed.output(dispatch.number, key, attempt.attempt, dispatch.task_id, event.output)
            journal.completed(attempt, version=self._values.version, seq=seq, leaf=decision.leaf)
            attempt.has_ended("returned")
        self._follows(decision, journal)
        return not decision.conflicted

    def _checkpoint(self, event: Checkpoint, journal: Journal) -> bool:
        """An attempt asks for what it wrote to be committed while it goes on."""
        attempt = event.attempt
        wrote = attempt.keys_set()
        outdated = self._outdated(attempt, wrote)
        decision = self._state.checkpointed(attempt.dispatch.number, wrote=wrote, outdated=outdated)
        if decision.conflicted:
            self._comes_to_nothing(attempt, "conflicted", journal)
            attempt.given_up = ConflictError(attempt.dispatch.key)
            self._follows(decision, journal)
            return False
        if not attempt.is_recorded:
            journal.begun(attempt)
        first = self._commit_writes(attempt, journal)
        attempt.kept(first, self._values.version, self._feed.last, is_outdated=bool(outdated))
        return True

    def _commit_writes(self, attempt: Attempt, journal: Journal) -> int:
        """Commit what an attempt has written; return the version of its first write."""
        first, writes = self._values.version + 1, list(attempt.writes)  # while the body goes on
        if attempt.is_recorded:
            journal.kept(attempt, first)
        journal.wrote(attempt, "committed", first, len(writes))
        for key, text in writes:
            self._values.stage(key, text)
        self._state.written(key for key, text in writes if text is not None)
        return first

    def _held(self, request: Request, attempt: Attempt) -> Request:
        """Return a request with what it must wait for from now on."""
        if request.delay is None and not request.wait_for:
            return request
        own = {key for key, text in attempt.writes if text is not None}
        missing = frozenset(key for key in request.wait_for if key not in own and not self._has_been_written(key))
        return request._replace(not_before=self._now + request.delay if request.delay else None, missing=missing)

    def _has_been_written(self, key: str) -> bool:
        """Whether somebody has written a key since the run began."""
        value = self._newest(key)
        return value.version > self._base and (
            value.text is not None or self._services.store.was_written(self._tx, self._context_id, key, since=self._base)
        )

    def _is_too_many(self, more: int) -> bool:
        """Whether the run would have more dispatches than it may: then it stands still."""
        most = self._services.limits.tasks
        if self._state.next_number - 1 + more <= most:
            return False
        error = LimitExceededError("the run was to dispatch one task more than it may", "tasks", most)
        self.halted(Halt(RunStatus.PAUSED, str(error), at_once=True))
        return True

    def _outdated(self, attempt: Attempt, wrote: AbstractSet[str]) -> list[str]:
        """Return the keys an attempt had read that others have changed since.

        `""` stands for what no write of its own can clash with: the set of keys, what it gathered, all from before a checkpoint.
        """
        if not attempt.has_read:
            return []
        values, reads, scanned = self._values, attempt.reads, attempt.scanned
        outdated = [key for key, version in reads.items() if self._newest(key).version != version]
        if scanned is not None:
            outdated += [key for key in wrote if key not in reads and self._newest(key).version > scanned]
        if (
            attempt.is_outdated
            or any(seen is not None and values.keys_changed_at > seen for seen in (scanned, attempt.looked))
            or any(values.touched_at.get(task, 0) > version for task, version in attempt.gathered.items())
            or any(self._newest(key).version != version for key, version in attempt.earlier.items())
        ):
            outdated.append("")
        return outdated

    def _broke(self, event: Broke, journal: Journal) -> bool:
        """An attempt failed, and with it the run, unless it is tried again."""
        attempt, failure, again_in = event.attempt, event.failure, event.again_in
        number, key = attempt.dispatch.number, attempt.dispatch.key
        decision = self._state.failed(number) if again_in is None else self._state.retried(number, self._now + again_in)
        self._comes_to_nothing(attempt, "timed_out" if event.timed_out else "failed", journal, failure)
        if event.timed_out and isinstance(event.cause, LiteFlowError):
            self._give_up(attempt, event.cause)
        else:
            attempt.has_ended("failed")
        if again_in is None and self.failure is None:
            self.failure = TaskFailedError(attempt.dispatch.task_id, key, self._run_id, failure)
            self.failure.__cause__ = event.cause
            self._halt_reason = f"task {key} failed with {failure.type.rpartition('.')[2]}: {failure.message}"
            journal.batch.run["to_failed_task"] = number
        self._follows(decision, journal)
        return False

    def _comes_to_nothing(self, attempt: Attempt, how: str, journal: Journal, failure: Failure | None = None) -> None:
        del self.attempts[attempt.dispatch.number]
        journal.ended(attempt, how, failure)
        journal.wrote(attempt, "lost")
        self._feed.withdraw(attempt.dispatch.number, attempt.attempt, attempt.kept_seq)

    def _give_up(self, attempt: Attempt, why: LiteFlowError) -> None:
        """Let an attempt do nothing more, and wait for it no longer."""
        attempt.given_up = why
        self._waits.fail(attempt.dispatch.number, why)
        attempt.abandon()

    # -- the run ---------------------------------------------------------------------------------------------------

    def halted(self, event: Halt) -> None:
        """The run is to stand still."""
        if self._halt_reason is None or event.status is RunStatus.CANCELLED:
            self._halt_reason = event.reason
        self._ends(self._state.stop(event.status).run)
        if event.at_once:
            for attempt in self.attempts.values():
                self.give_up(attempt)

    def give_up(self, attempt: Attempt) -> None:
        """The run is to stand still, and this attempt keeps it from that."""
        self._given_up.append(attempt)
        self._give_up(attempt, RunCancelledError(self._run_id, self._halt_reason or "it stands still"))

    def _follows(self, decision: Decision, journal: Journal) -> None:
        self._ends(decision.run)
        journal.decided(decision, self._state.live)

    def _ends(self, status: RunStatus | None) -> None:
        if status is not None:
            self.ending = (status, None if status is RunStatus.COMPLETED else self._halt_reason)

    def _stands(self, journal: Journal) -> None:
        """Record how the run stands, if that changes: it is over, or waits, or waits no longer."""
        if self.ending is not None:
            journal.run_stands(*self.ending)
            return
        reason = waits_for(self._state.live.values()) if self._state.is_idle else None
        if reason != self._waits_for:
            self._waits_for = reason
            journal.run_stands(RunStatus.RUNNING if reason is None else RunStatus.WAITING, reason)

    @property
    def is_waiting(self) -> bool:
        """Whether the run's row says that it waits."""
        return self._waits_for is not None

    def _record_open(self, journal: Journal, committed: set[tuple[int, int]], lost: set[tuple[int, int]]) -> None:
        """Record what running attempts have written and said so far, and that those which spoke or take their time run.

        What an attempt has written after a checkpoint waits until that is committed.
        """
        chunks = self._feed.take_unrecorded()
        spoke = {chunk.number for chunk in chunks}
        for number, attempt in self.attempts.items():
            if not attempt.is_recorded and (number in spoke or attempt.is_slow(self._now) or attempt.unrecorded >= FLUSH_AT):
                journal.begun(attempt)
            if attempt.is_recorded and attempt.id not in committed:
                journal.wrote(attempt, "open")
        for chunk in chunks:
            if (chunk.number, chunk.attempt) in committed and chunk.number in self.attempts:  # by a checkpoint
                self.attempts[chunk.number].kept_seq = chunk.seq
        journal.chunks(chunks, committed, lost)

    # -- what others have written ----------------------------------------------------------------------------------

    def catch_up(self, tx: Transaction) -> None:
        """Others have written to the context."""
        since = self._services.store.writes_since(tx, self._context_id, self._values.version)
        self._state.written(self._values.outside(since))


def waits_for(entries: Iterable[Entry]) -> str:
    """Say for what dispatches wait, in words: for a time or a key; joins wait for others that do."""
    held = [e for e in entries if e.status is TaskStatus.PENDING and not e.members and not e.is_free]
    reasons = [
        f"task {entry.dispatch.key} waits for {' and '.join(sorted(entry.missing))}"
        if entry.missing
        else f"task {entry.dispatch.key} is due at {entry.not_before:%Y-%m-%d %H:%M:%S} UTC"
        for entry in held[:MOST_NAMED]
    ]
    more = len(held) - MOST_NAMED
    return "; ".join(reasons + [f"{more} more tasks wait"] * (more > 0))
