"""Carries one run out: state <-> store <-> executor. The only writer of a run.

What happens is posted as an event. Whoever leads the next commit takes all events, has the scribe ask the state what follows,
records it in one transaction, and shows and starts it once that has succeeded. So the state, the store and what tasks see move
in one order.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from liteflow.bell import Bell
from liteflow.engine.attempt import FLUSH_SECONDS, Attempt
from liteflow.engine.events import Checkpoint, Event, Halt, Step, updated
from liteflow.engine.inbox import SECONDS, Inbox
from liteflow.engine.reading import Reading
from liteflow.engine.scribe import FLUSH_AT, Scribe
from liteflow.errors import LiteFlowError, RunCancelledError, RunPausedError
from liteflow.lazily import asyncio
from liteflow.model import RunStatus, Value
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Context as Variables

    from liteflow.engine.services import Services
    from liteflow.engine.state import RunState
    from liteflow.engine.streams import Feed
    from liteflow.engine.task import Task
    from liteflow.engine.values import Values
    from liteflow.executor.loop import Loop
    from liteflow.store.database import Transaction


_thread = threading.local()  # is_ending: the job of this thread ends once its event is posted


class Surroundings(NamedTuple):
    """What a run takes over from the code that began it.

    Attributes:
        variables: the context variables that its tasks see.
        loop: where its ``async`` tasks run.
    """

    variables: Variables
    loop: Loop


class RunDriver:
    """One run, driven by this process.

    Args:
        services: what it works with.
        on_end: told when it is over, as far as this process is concerned.
        row: the run, as recorded.
        fence: the token with which it commits.
        state: what is recorded of its dispatches.
        values: the committed values of its context.
        feed: its stream.
        around: what it takes over from the code that began it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a run
        self, services: Services, on_end: Callable[[RunDriver], None], row: Mapping[str, object], fence: int, state: RunState,
        values: Values, feed: Feed, around: Surroundings,
    ) -> None:  # fmt: skip
        self.run_id, self.context_id, base = str(row["id"]), str(row["context_id"]), int(str(row["base_version"]))
        self.feed, self.codec, self.limits = feed, services.codec, services.limits
        self._services, self._on_end = services, on_end
        self._fence, self._state, self._values, self._around = fence, state, values, around
        self.reading = Reading(services, state, values, self)
        self._scribe = Scribe(services, self.run_id, self.context_id, base, state, values, feed, self.reading.waits)
        self._lock = self.reading.lock
        self._inbox = Inbox(partial(services.pacer.call_in, SECONDS, self._commit_now))
        self._returned: deque[Event] = deque()  # what has come of async tasks, and is not in the inbox yet
        self._unbegun = 0  # jobs that the executor has still to begin
        self._flush_due = False
        self._block: int | None = None
        self.error: LiteFlowError | None = None
        self.over = Bell()

    # -- starting tasks --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Hand what is ready to those who run it, and see that what is delayed will be."""
        with self._lock:
            numbers = self._take_ready()
            waits = self._state.is_idle and not self._scribe.is_waiting
            uncommitted = bool(self._inbox)  # somebody may be waiting for what that gives
        self._submit(numbers, next_here=False)
        if waits or uncommitted:
            self.post(None)

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
            task = self._services.tasks.get(self._state.live[number].dispatch.task_id)
            if task is not None and task.is_async:
                self._submit_to_loop(number)
            else:
                self._unbegun += 1
                self._services.executor.submit(_Job(self, number), next_here=next_here)
                next_here = False

    def _submit_to_loop(self, number: int) -> None:
        try:
            self._around.loop.start(partial(self._aperform, number), self._around.variables.copy())
        except LiteFlowError as error:
            self.post(Halt(RunStatus.PAUSED, str(error), at_once=True))

    def perform(self, number: int, job: _Job) -> None:
        """Run one attempt, on a thread of the executor."""
        try:
            begun = self._begin(number, partial(self._services.executor.abandon, job), jobs=1)
            if begun is not None:
                task, attempt = begun
                event = self._around.variables.copy().run(task.perform, attempt)
                attempt.returned()
                _thread.is_ending = True
                self.post(event)
                _thread.is_ending = False
                self._wait_for_commits()
        except Exception as error:  # noqa: BLE001 - an error of ours must not leave the run hanging
            self.refused(error)

    async def _aperform(self, number: int) -> None:
        """Run one attempt of an ``async`` task, on the event loop."""
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        assert current is not None  # noqa: S101 - a coroutine that runs is a task's
        try:
            begun = self._begin(number, partial(_cancel_on, loop, current))
            if begun is not None:
                task, attempt = begun
                event: Event = await task.aperform(attempt)
                attempt.returned()
                if current.cancelling() and attempt.given_up is None:  # not by us: its loop ends
                    event = Halt(RunStatus.PAUSED, f"the event loop of task {attempt.dispatch.key} has ended", at_once=True)
                self._returned.append(event)
                self._services.ticker.call_in(0.0, self._take_returned)  # not here: a commit would stop the loop
        except Exception as error:  # noqa: BLE001 - as in `perform`
            self._services.ticker.call_in(0.0, partial(self.refused, error))

    def _take_returned(self) -> None:
        events = [self._returned.popleft() for _ in range(len(self._returned))]
        if events:
            self.post(*events)

    def _begin(self, number: int, abandon: Callable[[], None], *, jobs: int = 0) -> tuple[Task, Attempt] | None:
        """Begin an attempt, unless there is a reason not to; so many *jobs* of the executor have begun with it."""
        with self._lock:
            self._unbegun -= jobs
            entry = self._state.live[number]
            task = self._services.tasks.get(entry.dispatch.task_id)
            began = self._state.begin(number) if task is not None else None
            if task is not None and began is not None:
                attempt = Attempt(self, entry, self._services.clock.now(), is_async=task.is_async)
                attempt.abandon = abandon
                self._scribe.attempts[number] = attempt
        if task is None:
            why = f"waits for task {entry.dispatch.task_id}, which the code does not have; add it and resume"
            self.post(Halt(RunStatus.PAUSED, why, at_once=False))
        if task is None or began is None:
            return None
        self._flush_later()
        if task.timeout is not None:
            seconds = task.timeout.total_seconds()
            attempt.expire = self._services.ticker.call_in(seconds, lambda: self.post(task.timed_out(attempt)))
        return task, attempt

    # -- commits ---------------------------------------------------------------------------------------------------

    def post(self, *events: Event) -> None:
        """Have *events* taken into the next commit; it is led here if nobody leads one, unless it may wait for more."""
        with self._lock:
            if self.over.has_rung:
                return
            is_to_queue = self._inbox.put(events, may_wait=self._unbegun > 0)
        if is_to_queue:
            self._services.database.join_commit(self)

    def _commit_now(self) -> None:
        with self._lock:
            overdue = self._inbox.overdue()
        if overdue:
            self.post(None)

    def record(self, event: Checkpoint | Step) -> None:
        """Have *event* on the disk; if that cannot be, the attempt is given up."""
        self.post(event)
        if not self.over.has_rung:
            event.done.wait()

    def _wait_for_commits(self) -> None:
        """Keep a worker from going far ahead of what is committed: a crash would undo it."""
        is_far_ahead = self._inbox.is_full
        if is_far_ahead:
            with self._lock:
                while self._inbox.is_full and not self.over.has_rung:
                    self.reading.wait_published()

    def wants_sync(self) -> bool:
        """Take what happened; return whether its commit must be on the disk before anybody hears of it."""
        with self._lock:
            inbox = self._inbox
            inbox.take()
            self._block = self.feed.next_block(inbox.completions)
            may_end = inbox.leaves > 0 and len(self._state.lines) <= inbox.completions
            return may_end or inbox.is_waited_for or self._state.stopping is not None or self._block is not None

    def apply(self, tx: Transaction) -> None:
        """Decide what follows from what happened, and record it."""
        if self.over.has_rung:
            return
        store = self._services.store
        version = store.check_fence(tx, self.run_id, self.context_id, self._fence)
        with self._lock:
            self.reading.committing()
            if version != self._values.version:
                self._scribe.catch_up(tx)
            journal = self._scribe.write(self._inbox.taken, tx)
            if self._block is not None:
                journal.batch.run["to_seq_reserved"] = self._block
        store.record(tx, self.run_id, journal.batch)

    def committed(self) -> None:
        """The commit has succeeded: show what it holds, and start what it dispatched."""
        if self.over.has_rung:
            return
        with self._lock:
            taken = self._inbox.committed()
            ended = self._scribe.ending
            if ended is not None:
                self.error = self._ended_with(*ended)
                self.over.ring()
            self.feed.publish(reserved=self._block)
            self.reading.published(over=ended is not None)
            self.end_hopeless()
            numbers = self._take_ready()
            late, self._scribe.late = self._scribe.late, []
        self._submit(numbers, next_here=getattr(_thread, "is_ending", False))
        if late:
            for event in updated(late, self.reading.value):
                self.post(event)
        if self._inbox.is_waited_for:
            self._answer(event for event in taken if event not in late)
        if ended is not None:
            self._close()
        elif self._inbox.has_more:
            self._services.database.join_commit(self)

    def refused(self, error: Exception) -> None:
        """The commit has failed: nothing more of this run is recorded here; the store still holds it as it was."""
        with self._lock:
            if self.error is None:
                self.error = error if isinstance(error, LiteFlowError) else LiteFlowError(f"run {self.run_id}: {error!r}")
                logger.error("run %s stopped here: %s", self.run_id, error)
            attempts = list(self._scribe.attempts.values())
            for attempt in attempts:
                attempt.given_up = self.error
            self._scribe.attempts.clear()
            self.over.ring()
            self.reading.published(over=True)
        self._close()

    def _ended_with(self, status: RunStatus, reason: str | None) -> LiteFlowError | None:
        if status is RunStatus.PAUSED:
            return RunPausedError(self.run_id, reason or "")
        return RunCancelledError(self.run_id, reason or "") if status is RunStatus.CANCELLED else self._scribe.failure

    def _close(self) -> None:
        self.feed.close()
        self._answer(self._inbox.close())
        self._on_end(self)

    @staticmethod
    def _answer(events: Iterable[Event]) -> None:
        """Let those go on who wait for what they asked to be recorded."""
        for event in events:
            if isinstance(event, Checkpoint | Step):
                event.done.ring()

    # -- stopping --------------------------------------------------------------------------------------------------

    def halt(self, status: RunStatus, reason: str) -> None:
        """Give up what runs, and let the run stand in *status*."""
        self.post(Halt(status, reason, at_once=True))

    def leave(self) -> bool:
        """Let go of the run, if all of it waits: it stays as it is, for whoever takes it up next. Return whether it did."""
        with self._lock:
            if not (self._scribe.is_waiting and self._state.is_idle) or self._inbox.is_queued or self.over.has_rung:
                return False
            self.error = RunPausedError(self.run_id, "its flow was closed while it waits")
            self.over.ring()
            self.reading.published(over=True)
        self._close()
        return True

    def end_hopeless(self) -> None:
        """End the waits that nothing can fulfil any more; in a run that is to stand still, give up who waits."""
        for number in self.reading.waits.hopeless():
            if self._state.stopping:
                self._scribe.give_up(self._scribe.attempts[number])
            else:
                self.reading.waits.deadlock(number)

    # -- what attempts ask for -------------------------------------------------------------------------------------

    def newest(self, key: str) -> Value | None:
        """Return what a running attempt has last written to *key*, ``None`` if none has."""
        for attempt in reversed(self._running()):
            own = attempt.own  # a checkpoint puts another in its place
            if key in own:
                return Value(0, own[key])
        return None

    def written(self) -> dict[str, bool]:
        """Return the keys that running attempts have written, and whether they have given them a value."""
        return {key: text is not None for attempt in self._running() for key, text in list(attempt.own.items())}

    def _running(self) -> list[Attempt]:
        """Return the attempts whose writes are not committed, oldest first."""
        with self._lock:
            self.reading.when_published(None)
            return list(self._scribe.attempts.values())

    def emit(self, attempt: Attempt, task_id: str, text: str) -> None:
        """Add a chunk to the stream."""
        dispatch = attempt.dispatch
        while not self.feed.put(dispatch.number, dispatch.key, attempt.attempt, task_id, text):
            self.post(None)
            self.feed.wait_for_block()
            attempt.check()
        if not self._flush_due:
            self._flush_later()

    def buffered(self, attempt: Attempt) -> None:
        """*attempt* has put writes into its buffer: have them recorded soon."""
        if attempt.unrecorded >= FLUSH_AT and not attempt.is_async:
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
            open_attempts = [a for a in self._scribe.attempts.values() if not a.is_recorded or a.unrecorded]
            due = self.feed.has_unrecorded or any(a.is_recorded or a.is_slow(now) for a in open_attempts)
        if due:
            self.post(None)
        if open_attempts:
            self._flush_later()


class _Job:
    """One attempt, as an executor is given it."""

    __slots__ = ("_driver", "_number")

    def __init__(self, driver: RunDriver, number: int) -> None:
        self._driver, self._number = driver, number

    def __call__(self) -> None:
        self._driver.perform(self._number, self)


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)
