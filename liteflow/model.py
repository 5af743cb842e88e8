"""The nouns of LiteFlow: frozen values that every other module speaks in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from liteflow.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

Seconds = float | timedelta


@dataclass(frozen=True, slots=True)
class NextTask:
    """A request to run a task next.

    Attributes:
        id: the task to run.
        inputs: handed to the task as its ``inputs`` argument.
        spawn_another: start a second instance when one is active already, instead of merging into it.
        delay: start no earlier than this long after the dispatch; seconds or a ``timedelta``; takes up no thread.
        wait_for: start once all these keys have been written since the run began, by its tasks or from outside (signals);
            takes up no thread.
    """

    id: str
    inputs: Any = None
    spawn_another: bool = False
    delay: Seconds | None = field(default=None, kw_only=True)
    wait_for: Sequence[str] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What a task returns: its output, and the tasks to run next.

    Attributes:
        output: the value that becomes the value of the instance's key.
        next_tasks: the tasks to dispatch; ``None`` and an empty list both mean none.
        join: a task to start once, when all of *next_tasks* have completed; it finds their outputs in ``ctx.joined``.
    """

    output: Any
    next_tasks: Sequence[NextTask] | None = None
    join: NextTask | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a task is tried, and how long apart. The wait is recorded, and takes up no thread.

    Attributes:
        max_attempts: tries in all, the first one counted; at least 1.
        initial_interval: from the first failure to the second try; seconds or a ``timedelta``.
        backoff_factor: by how much each wait is longer than the one before; at least 1.
        max_interval: the longest wait.
        jitter: whether each wait is cut by up to a half, at random, so that those who failed together do not return together.
        retry_on: the exceptions after which it is tried again; `TerminalError` never is.
    """

    max_attempts: int = 3
    initial_interval: Seconds = 1.0
    backoff_factor: float = 2.0
    max_interval: Seconds = 60.0
    jitter: bool = True
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.max_attempts < 1:
            raise InvalidOptionError("max_attempts", self.max_attempts, "counts the first try; give at least 1")
        if self.backoff_factor < 1:
            raise InvalidOptionError("backoff_factor", self.backoff_factor, "would shorten the waits; give at least 1")
        for name in ("initial_interval", "max_interval"):
            check_span(name, getattr(self, name))

    def wait_after(self, failures: int, chance: float = 0.0) -> timedelta:
        """Return how long to wait after so many failures; *chance*, from 0 to 1, decides by how much it is cut."""
        longest = check_span("max_interval", self.max_interval)
        try:
            wait = min(check_span("initial_interval", self.initial_interval) * self.backoff_factor ** (failures - 1), longest)
        except OverflowError:
            wait = longest
        return wait * (1 - chance / 2) if self.jitter else wait


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a run may grow before something is taken to be wrong with it; each at least 1.

    Attributes:
        tasks: dispatches of a run; one more pauses it, and it goes on under a higher limit.
        dispatches: next tasks of one attempt; more fail the attempt.
        chunks: stream chunks of one attempt; one more fails the attempt.
        value_bytes: of one value as text; a larger one is refused where it is set.
        crashes: how often in a row a run may bring down its process without completing anything, before `Flow.recover` and
            a start under its id leave it paused.
    """

    tasks: int = 1_000_000
    dispatches: int = 100_000
    chunks: int = 1_000_000
    value_bytes: int = 64 * 2**20
    crashes: int = 10

    def __post_init__(self) -> None:
        """Refuse what would let nothing run."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InvalidOptionError(name, value, "lets nothing run; give a whole number of at least 1")


def check_span(name: str, span: Seconds) -> timedelta:
    """Return a span of time as a ``timedelta``.

    Raises:
        InvalidOptionError: it is negative, no number, or without end.
    """
    try:
        found = span if isinstance(span, timedelta) else timedelta(seconds=span)
    except (TypeError, ValueError, OverflowError):
        raise InvalidOptionError(name, span, "is no span of time; give seconds or a timedelta") from None
    if found < timedelta(0):
        raise InvalidOptionError(name, span, "lies in the past; give seconds or a timedelta of at least 0")
    return found


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """One value of a stream.

    Attributes:
        task_id: who the chunk says it is from; the task's id for an output's chunk.
        value: the value.
        seq: its number in the run's stream, rising, never used twice.
        key: the instance that wrote it.
        attempt: which attempt of that instance wrote it, from 1.
    """

    task_id: str
    value: Any
    seq: int = field(default=0, kw_only=True, compare=False)
    key: str = field(default="", kw_only=True, compare=False)
    attempt: int = field(default=0, kw_only=True, compare=False)


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens in such a run by itself or by ``resume``."""
        return self in (RunStatus.COMPLETED, RunStatus.CANCELLED)

    @property
    def holds_context(self) -> bool:
        """Whether such a run keeps other runs out of its context."""
        return self in (RunStatus.RUNNING, RunStatus.WAITING)


class TaskStatus(StrEnum):
    """Where a dispatch stands."""

    PENDING = "pending"  # may start
    RUNNING = "running"  # an attempt is recorded as begun
    BEHIND = "behind"  # one more turn of an instance that is still active
    MERGED = "merged"  # another dispatch of the same instance does its work
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def may_run(self) -> bool:
        """Whether such a dispatch runs, or may start."""
        return self in (TaskStatus.PENDING, TaskStatus.RUNNING)

    @property
    def is_final(self) -> bool:
        """Whether such a dispatch is done for good (a failed one runs again after ``resume``)."""
        return self in (TaskStatus.MERGED, TaskStatus.COMPLETED, TaskStatus.CANCELLED)


class Dispatch(NamedTuple):
    """A recorded request to run a task: one row, one future execution.

    Attributes:
        number: its place in the order of dispatches of its run, from 1.
        task_id: the task to execute.
        instance: 1 for the instance whose key is the task's id, n for ``id#n``.
        inputs: the encoded inputs; ``None`` when it has none.
        dispatched_by: the number of the dispatch that asked for it; ``None`` for the run's first.
        joins: how many dispatches it waits for as their join; ``None`` if it is none.
    """

    number: int
    task_id: str
    instance: int = 1
    inputs: str | None = None
    dispatched_by: int | None = None
    joins: int | None = None

    @property
    def key(self) -> str:
        """The name of the instance, which is the context key of its output."""
        return self.task_id if self.instance == 1 else f"{self.task_id}#{self.instance}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text, the only form in which one is stored.

    Attributes:
        type: the qualified name of the exception's class.
        message: what ``str`` gave, or why it gave nothing.
        traceback: the formatted traceback, with notes and causes.
    """

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One dispatch as ``Run.tasks()`` shows it; times are aware UTC.

    Attributes:
        number: its place in the order of dispatches of its run, from 1.
        key: the instance that executes it.
        task_id: the task.
        status: where it stands.
        attempts: how many tries have begun.
        inputs: what it was given.
        dispatched_by: the number of the dispatch that asked for it; ``None`` for the run's first.
        merged_into: the number of the dispatch that does its work, if it was merged.
        dispatched_at: when it was asked for.
        started_at: when its last attempt began.
        finished_at: when it completed.
        error: what its last failed attempt raised.
        not_before: when it may start, or be tried again, at the earliest.
        wait_for: the keys that it waits, or waited, for.
    """

    number: int
    key: str
    task_id: str
    status: TaskStatus
    attempts: int
    inputs: Any
    dispatched_by: int | None
    merged_into: int | None
    dispatched_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Failure | None
    not_before: datetime | None = None
    wait_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One committed write of a context key, as ``Context.history`` shows it."""

    version: int
    key: str
    value: Any
    run_id: str | None
    task_key: str | None
    attempt: int | None
    written_at: datetime


class Value(NamedTuple):
    """A committed value: the version that wrote it, and its text; ``None`` for a deleted or absent key."""

    version: int
    text: str | None


ABSENT = Value(0, None)
