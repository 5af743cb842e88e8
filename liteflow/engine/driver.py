"""Carries one run out: state <-> store <-> executor. The only writer of a run.

What happens is posted as an event. Whoever leads the next commit takes all events, asks the state what follows, records it in
one transaction, and shows and starts it once that has succeeded. So the state, the store and what tasks see move in one order.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from liteflow.engine.attempt import FLUSH_SECONDS, Attempt
from liteflow.engine.events import Broke, Done, Event, Halt, updated
from liteflow.engine.journal import Journal
from liteflow.engine.pace import Pace
from liteflow.engine.reading import Reading
from liteflow.engine.streams import HEADROOM
from liteflow.errors import LiteFlowError, RunCancelledError, RunPausedError, TaskFailedError
from liteflow.model import RunStatus
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context as Variables

    from liteflow.engine.decision import Decision
    from liteflow.engine.services import Services
    from liteflow.engine.state import RunState
    from liteflow.engine.streams import Feed
    from liteflow.engine.values import Values
    from liteflow.model import Failure, Value
    from liteflow.store.database import Transaction

FLUSH_AT = 1_000  # writes of an attempt
MOST_EVENTS = HEADROOM  # in one commit

_thread = threading.local()  # is_ending: the job of this thread ends once its event is posted


class RunDriver:
    """One run, driven by this process.

    Args:
        services: what it works with.
        on_end: told when it is over, as far as this process is concerned.
        run_id: the run.
        context_id: its context.
        fence: the token with which it commits.
        state: the run as recorded.
        values: the committed values of its context.
        feed: its stream.
        variables: the context variables that its tasks see.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self, services: Services, on_end: Callable[[RunDriver], None], run_id: str, context_id: str, fence: int, state: RunState,
        values: Values, feed: Feed, variables: Variables,
    ) -> None:  # fmt: skip
        self.run_id, self.context_id, self.feed = run_id, context_id, feed
        self._services, self._on_end = services, on_end
        self._fence, self._state, self._values, self._variables = fence, state, values, variables
        self.reading = Reading(services, context_id, state, values, self)
        self._lock = self.reading.lock
        self._inbox: deque[Event] = deque()
        self._taken: list[Event] = []
        self._queued = self._has_more = False  # it takes part in a commit to come; has more than the one under way takes
        self._pace = Pace(services.clock)
        self._late: list[Done] = []  # those whose updates were applied to what has changed since
        self._attempts: dict[int, Attempt] = {}
        self._flush_due = False
        self._block: int | None = None
        self._ending: tuple[RunStatus, str | None] | None = None
        self._halt_reason: str | None = None
        self._failure: TaskFailedError | None = None
        self.error: LiteFlowError | None = None
        self.over = threading.Event()

    # -- starting tasks --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Hand what is ready to the executor, and see that what is delayed will be."""
        with self._lock:
            numbers = self._take_ready()
        self._submit(numbers, next_here=False)

    def _take_ready(self) -> list[int]:
        """Return what is to be started now, and have the ticker call for what is delayed."""
        for number, moment in self._state.take_delayed():
            left = moment - self._services.clock.now()
            self._services.ticker.call_in(left.total_seconds(), partial(self._due, number))
        return self._state.take_ready()

    def _due(self, number: int) -> None:
        with self._lock:
            self._state.due(number)
        self.start()

    def _submit(self, numbers: list[int], *, next_here: bool) -> None:
        for number in numbers:
            self._services.executor.submit(partial(self._perform, number), next_here=next_here)
            next_here = False

    def _perform(self, number: int) -> None:
        """Run one attempt, on a thread of the executor."""
        try:
            self._attempt(number)
        except Exception as error:  # noqa: BLE001 - an error of ours must not leave the run hanging
            self.refused(error)

    def _attempt(self, number: int) -> None:
        with self._lock:
            entry = self._state.live[number]
            task = self._services.tasks.get(entry.dispatch.task_id)
            began = self._state.begin(number) if task is not None else None
            if began is not None:
                attempt = self._attempts[number] = Attempt(self, entry, self._services.clock.now())
        if task is None:
            why = f"waits for task {entry.dispatch.task_id}, which the code does not have; add it and resume"
            self.post(Halt(RunStatus.PAUSED, why, at_once=False))
        elif began is not None:
            self._flush_later()
            event = self._variables.copy().run(task.perform, attempt)
            _thread.is_ending = True
            self.post(event)
            _thread.is_ending = False
            self._wait_for_commits()

    # -- commits ---------------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Have *event* taken into the next commit; it is led here if nobody leads one."""
        with self._lock:
            if self.over.is_set():
                return
            self._inbox.append(event)
            if isinstance(event, Done):
                self._pace.returned()
            if self._queued:
                return
            self._queued = True
        self._services.database.join_commit(self)

    def _wait_for_commits(self) -> None:
        """Keep a worker from going far ahead of what is committed: a crash would undo it."""
        with self._lock:
            while self._pace.is_far_ahead() and not self.over.is_set():
                self.reading.wait_published()

    def wants_sync(self) -> bool:
        """Take what happened; return whether its commit must be on the disk before anybody hears of it."""
        with self._lock:
            taken = min(len(self._inbox), MOST_EVENTS)
            self._taken = [self._inbox.popleft() for _ in range(taken)]
            self._queued = self._has_more = bool(self._inbox)
            done = [event for event in self._taken if isinstance(event, Done)]
            self._block = self.feed.next_block(len(done))
            ends = len(self._state.lines) <= len(done) and not all(event.requests for event in done)
            breaks = self._state.stopping is not None or any(isinstance(event, Broke | Halt) for event in self._taken)
            return ends or breaks or self._block is not None

    def apply(self, tx: Transaction) -> None:
        """Decide what follows from what happened, and record it."""
        if self.over.is_set():
            return
        store = self._services.store
        version = store.check_fence(tx, self.run_id, self.context_id, self._fence)
        load = partial(store.value, tx, self.context_id)
        with self._lock:
            self.reading.committing()
            if version != self._values.version:
                self._values.outside(store.writes_since(tx, self.context_id, self._values.version))
            journal = Journal(self.run_id, self.context_id, self._services.clock.now())
            before = self._values.version
            self._decide(journal, load)
            if self._values.version != before:
                journal.batch.version = self._values.version
            if self._block is not None:
                journal.batch.run["to_seq_reserved"] = self._block
        store.record(tx, self.run_id, self.context_id, journal.batch)

    def _decide(self, journal: Journal, load: Callable[[str], Value]) -> None:
        """Ask the state what follows from each event, in order."""
        committed: set[tuple[int, int]] = set()
        lost: set[tuple[int, int]] = set()
        for event in self._taken:
            if isinstance(event, Halt):
                self._halted(event)
            elif event is None or event.attempt.given_up is not None:
                continue
            elif isinstance(event, Done) and event.attempt.is_late(partial(self._values.newest, load=load)):
                self._late.append(event)
            else:
                del self._attempts[event.attempt.dispatch.number]
                ok = self._done(event, journal, load) if isinstance(event, Done) else self._broke(event, journal)
                (committed if ok else lost).add(event.attempt.id)
        for attempt in [attempt for attempt in self._attempts.values() if attempt.given_up is not None]:
            del self._attempts[attempt.dispatch.number]
            lost.add(attempt.id)
            self._come_to_nothing(attempt, "cancelled", journal)
            self._follows(self._state.given_up(attempt.dispatch.number), journal)
        chunks = self.feed.take_unrecorded()
        self._record_open(journal, {chunk.number for chunk in chunks})
        journal.chunks(chunks, committed, lost)
        if self._ending is not None:
            journal.run_stands(*self._ending)

    def _done(self, event: Done, journal: Journal, load: Callable[[str], Value]) -> bool:
        """An attempt returned: commit what it did, unless what it read has changed under it."""
        attempt, output, requests = event
        dispatch, now = attempt.dispatch, self._services.clock.now()
        requests = [request._replace(not_before=now + request.delay) if request.delay else request for request in requests]
        wrote = {*attempt.keys_set(), dispatch.key}
        attempt.writes.append((dispatch.key, output))
        decision = self._state.completed(dispatch.number, requests, wrote=wrote, outdated=self._outdated(attempt, wrote, load))
        if decision.conflicted:
            attempt.writes.pop()
            self._come_to_nothing(attempt, "conflicted", journal)
        else:
            first = self._values.version + 1
            if attempt.is_recorded:
                journal.kept(attempt, first)
            journal.wrote(attempt, "committed", first)
            for key, text in attempt.writes:
                self._values.stage(key, text)
            seq = self.feed.output(dispatch.number, dispatch.key, attempt.attempt, dispatch.task_id, output)
            journal.completed(attempt, version=self._values.version, seq=seq, leaf=decision.leaf)
            attempt.given_up = RunCancelledError(self.run_id, f"for task {attempt.dispatch.key} it is over: it has returned")
        self._follows(decision, journal)
        return not decision.conflicted

    def _outdated(self, attempt: Attempt, wrote: set[str], load: Callable[[str], Value]) -> list[str]:
        """Return the keys an attempt had read that others have changed since; `""` stands for the set of keys."""
        values, reads, scanned = self._values, attempt.reads, attempt.scanned
        outdated = [key for key, version in reads.items() if values.newest(key, load).version != version]
        if scanned is not None:
            outdated += [key for key in wrote if key not in reads and values.newest(key, load).version > scanned]
            if values.grown_at > scanned:
                outdated.append("")
        return outdated

    def _broke(self, event: Broke, journal: Journal) -> bool:
        """An attempt failed, and with it the run, unless it is tried again."""
        attempt, failure, cause, again_in = event
        number = attempt.dispatch.number
        if again_in is None:
            decision = self._state.failed(number)
        else:
            decision = self._state.retried(number, self._services.clock.now() + again_in)
        self._come_to_nothing(attempt, "failed", journal, failure)
        if again_in is None and self._failure is None:
            key = attempt.dispatch.key
            self._failure = TaskFailedError(attempt.dispatch.task_id, key, self.run_id, failure)
            self._failure.__cause__ = cause
            self._halt_reason = f"task {key} failed with {failure.type.rpartition('.')[2]}: {failure.message}"
            journal.batch.run["to_failed_task"] = number
        self._follows(decision, journal)
        return False

    def _halted(self, event: Halt) -> None:
        """The run is to stand still."""
        self._halt_reason = self._halt_reason or event.reason
        self._ends(self._state.stop(event.status).run)
        if event.at_once:
            for attempt in self._attempts.values():
                self._give_up(attempt)

    def _follows(self, decision: Decision, journal: Journal) -> None:
        self._ends(decision.run)
        journal.decided(decision, self._state.live)

    def _come_to_nothing(self, attempt: Attempt, how: str, journal: Journal, failure: Failure | None = None) -> None:
        journal.ended(attempt, how, failure)
        journal.wrote(attempt, "lost")
        self.feed.withdraw(attempt.dispatch.number, attempt.attempt)

    def _ends(self, status: RunStatus | None) -> None:
        if status is not None:
            self._ending = (status, None if status is RunStatus.COMPLETED else self._halt_reason)

    def _record_open(self, journal: Journal, spoke: set[int]) -> None:
        """Record what running attempts have written so far, and that those which spoke or take their time run."""
        now = self._services.clock.now()
        for number, attempt in self._attempts.items():
            if not attempt.is_recorded and (number in spoke or attempt.is_slow(now) or attempt.unrecorded >= FLUSH_AT):
                journal.begun(attempt)
            if attempt.is_recorded:
                journal.wrote(attempt, "open")

    def committed(self) -> None:
        """The commit has succeeded: show what it holds, and start what it dispatched."""
        if self.over.is_set():
            return
        self._taken = []
        with self._lock:
            ended = self._ending
            if ended is not None:
                self.error = self._ended_with(*ended)
                self.over.set()
            self._pace.committed(left=sum(isinstance(event, Done) for event in self._inbox))
            self.feed.publish(reserved=self._block)
            self.reading.published(over=ended is not None)
            self.end_hopeless()
            numbers = self._take_ready()
        self._submit(numbers, next_here=getattr(_thread, "is_ending", False))
        late, self._late = self._late, []
        for event in updated(late, self.reading.value):
            self.post(event)
        if ended is not None:
            self._close()
        elif self._has_more:
            self._services.database.join_commit(self)

    def refused(self, error: Exception) -> None:
        """The commit has failed: nothing more of this run is recorded here; the store still holds it as it was."""
        with self._lock:
            if self.error is None:
                self.error = error if isinstance(error, LiteFlowError) else LiteFlowError(f"run {self.run_id}: {error!r}")
                logger.error("run %s stopped here: %s", self.run_id, error)
            for attempt in self._attempts.values():
                attempt.given_up = self.error
            self._attempts.clear()
            self.over.set()
            self.reading.published(over=True)
        self._close()

    def _ended_with(self, status: RunStatus, reason: str | None) -> LiteFlowError | None:
        if status is RunStatus.PAUSED:
            return RunPausedError(self.run_id, reason or "")
        return RunCancelledError(self.run_id, reason or "") if status is RunStatus.CANCELLED else self._failure

    def _close(self) -> None:
        self.feed.close()
        self._on_end(self)

    # -- stopping --------------------------------------------------------------------------------------------------

    def halt(self, status: RunStatus, reason: str) -> None:
        """Give up what runs, and let the run stand in *status*."""
        self.post(Halt(status, reason, at_once=True))

    def end_hopeless(self) -> None:
        """End the waits that nothing can fulfil any more; in a run that is to stand still, give up who waits."""
        for number in self.reading.waits.hopeless():
            if self._state.stopping:
                self._give_up(self._attempts[number])
            else:
                self.reading.waits.deadlock(number)

    def _give_up(self, attempt: Attempt) -> None:
        attempt.given_up = RunCancelledError(self.run_id, self._halt_reason or "it stands still")
        self.reading.waits.fail(attempt.dispatch.number, attempt.given_up)

    # -- what attempts ask for -------------------------------------------------------------------------------------

    def newest(self, key: str) -> str | None:
        """Return what a running attempt has last written to *key*, ``None`` if none has."""
        return next((attempt.own[key] for attempt in reversed(self._running()) if key in attempt.own), None)

    def written(self) -> list[str]:
        """Return the keys that running attempts have written."""
        return [key for attempt in self._running() for key in list(attempt.own)]

    def _running(self) -> list[Attempt]:
        """Return the attempts whose writes are not committed, oldest first."""
        with self._lock:
            self.reading.when_published(None)
            return list(self._attempts.values())

    def emit(self, attempt: Attempt, task_id: str, text: str) -> None:
        """Add a chunk to the stream."""
        dispatch = attempt.dispatch
        while not self.feed.put(dispatch.number, dispatch.key, attempt.attempt, task_id, text):
            self.post(None)
            self.feed.wait_for_block()
            attempt.check()
        self._flush_later()

    def buffered(self, attempt: Attempt) -> None:
        """*attempt* has put writes into its buffer: have them recorded soon."""
        if attempt.unrecorded >= FLUSH_AT:
            self.post(None)
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._services.ticker.call_in(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        now = self._services.clock.now()
        with self._lock:
            self._flush_due = False
            open_attempts = [a for a in self._attempts.values() if not a.is_recorded or a.unrecorded]
            due = self.feed.has_unrecorded or any(a.is_recorded or a.is_slow(now) for a in open_attempts)
        if due:
            self.post(None)
        if open_attempts:
            self._flush_later()
