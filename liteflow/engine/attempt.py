"""One try at executing a dispatch: a buffer of its own, which takes effect when the task returns, or never."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from liteflow.bell import Bell
from liteflow.clock import derived_id
from liteflow.engine.events import Checkpoint, Step
from liteflow.errors import InvalidKeyError, LimitExceededError, RunCancelledError
from liteflow.model import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from liteflow.codec import Codec
    from liteflow.engine.decision import Entry
    from liteflow.engine.reading import Reading
    from liteflow.engine.ticker import Call
    from liteflow.errors import LiteFlowError
    from liteflow.model import Limits, Version

    Change = Callable[[str | None], str | None]

FLUSH_SECONDS = 0.02
TURN_SECONDS = 0.0005  # given to who waits for a first chunk: the interpreter would give a body that computes ten times that


class Host(Protocol):
    """What an attempt asks of the run it belongs to."""

    run_id: str
    context_id: str
    reading: Reading
    codec: Codec
    limits: Limits

    def buffered(self, attempt: Attempt) -> None: ...  # noqa: D102 - as in `RunDriver`
    def emit(self, attempt: Attempt, task_id: str, text: str) -> None: ...  # noqa: D102 - as in `RunDriver`
    def record(self, event: Checkpoint | Step) -> None: ...  # noqa: D102 - as in `RunDriver`


class Attempt:
    """The port of a task body's context.

    Attributes:
        run_id: the run.
        context_id: the context it happens in.
        codec: how its values become text.
        dispatch: what is executed.
        attempt: which try it is, from 1.
        failures: how many tries before it failed.
        is_async: whether its body runs on an event loop.
        own: its last write of each key, ``None`` for one it has deleted.
        writes: all its writes since its last checkpoint, in order.
        recorded_writes: how many of them are in the store, as open writes.
        is_recorded: whether the store knows that it began.
        reads: the version of each committed value it read since its last checkpoint, 0 for an absent key.
        scanned: the context's version when it first asked for the set of keys.
        gathered: of each task whose outputs it gathered, the context's version then.
        earlier: what it read before its last checkpoint.
        looked: the context's version at that checkpoint, if it had asked for the set of keys by then.
        is_outdated: whether something of that had changed by the checkpoint.
        bases: for each key that it has updated: the committed value that the first update was applied to.
        update_error: what an update raised when a checkpoint applied it to a fresh value.
        kept_seq: the number of its last chunk that a checkpoint has committed.
        abandon: has nobody wait for its body any more.
        expire: the call that is to give it up when its time is over, if it has a time.
        started_at: when it began.
    """

    def __init__(self, host: Host, entry: Entry, started_at: datetime, *, is_async: bool = False) -> None:
        self._host, self.dispatch, self.started_at, self.is_async = host, entry.dispatch, started_at, is_async
        self.run_id, self.context_id, self.codec = host.run_id, host.context_id, host.codec
        self.attempt, self.failures = entry.attempts, entry.failures
        self._lock = threading.Lock()  # the body may write while it waits for a checkpoint
        self.own: dict[str, str | None] = {}
        self.writes: list[tuple[str, str | None]] = []
        self.recorded_writes = 0
        self.is_recorded = False
        self.reads: dict[str, int] = {}
        self.scanned: int | None = None
        self.gathered: dict[str, int] = {}
        self.earlier: dict[str, int] = {}
        self.looked: int | None = None
        self.is_outdated = False
        self.bases: dict[str, Value] = {}
        self.update_error: Exception | None = None
        self._changes: dict[int, Change] = {}  # of each write that is an update: its place in order, and what it does
        self.rewritten: list[int] = []
        self._chunks = self.kept_seq = 0
        self._steps: dict[str, str] | None = None
        self._step_names: set[str] = set()
        self._error: LiteFlowError | None = None
        self._ended: str | None = None
        self.abandon: Callable[[], None] = _nothing
        self.expire: Call | None = None

    @property
    def id(self) -> tuple[int, int]:
        """The number of the dispatch, and which attempt of it this is."""
        return self.dispatch.number, self.attempt

    @property
    def unrecorded(self) -> int:
        """How many of its writes are not in the store yet."""
        return len(self.writes) - self.recorded_writes

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this dispatch, and for nothing else."""
        return derived_id(self.context_id, self.run_id, str(self.dispatch.number))

    @property
    def all_reads(self) -> dict[str, int]:
        """What it read, as it is recorded; ``task#*`` stands for the outputs of all instances of a task."""
        return {**self.reads, **self.earlier, **{f"{task}#*": version for task, version in self.gathered.items()}}

    def is_slow(self, now: datetime) -> bool:
        """Whether it has run long enough for others to be told."""
        return (now - self.started_at).total_seconds() >= FLUSH_SECONDS

    @property
    def given_up(self) -> LiteFlowError | None:
        """Why it can do nothing more; ``None`` while it can."""
        if self._error is None and self._ended is not None:
            why = f"for task {self.dispatch.key} it is over: it has {self._ended}"
            self._error = RunCancelledError(self.run_id, why)
        return self._error

    @given_up.setter
    def given_up(self, why: LiteFlowError) -> None:
        self._error = why

    def has_ended(self, how: str) -> None:
        """It has "returned" or "failed", and can do nothing more."""
        self._ended = how

    @property
    def has_read(self) -> bool:
        """Whether it has looked at anything that others may change."""
        return bool(
            self.reads or self.gathered or self.earlier or self.is_outdated
            or self.scanned is not None or self.looked is not None
        )  # fmt: skip

    def returned(self) -> None:
        """Its body has come to an end: its time does not matter any more."""
        if self.expire is not None:
            self.expire.cancel()

    def check(self) -> None:
        """Raise why this attempt was given up, if it was."""
        if (self._error is not None or self._ended is not None) and self.given_up is not None:
            raise self.given_up

    # -- values ----------------------------------------------------------------------------------------------------

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return its own write, else what rule R4 says."""
        self.check()
        return self.own[key] if key in self.own else self._host.reading.read(self, key, wait=wait, timeout=timeout)

    async def aget(self, key: str, *, wait: bool, timeout: float | None) -> str | None:  # noqa: ASYNC109 - the twin of `get`
        """Return its own write, else what rule R4 says, waiting on the event loop."""
        self.check()
        return self.own[key] if key in self.own else await self._host.reading.aread(self, key, wait=wait, timeout=timeout)

    def peek(self, key: str) -> str | None:
        """Return its own write, else the committed value."""
        self.check()
        return self.own[key] if key in self.own else self._host.reading.peek(self, key)

    def set(self, items: Sequence[tuple[str, str | None]]) -> None:
        """Put writes into the buffer."""
        self.check()
        with self._lock:
            for key, _ in items:
                if key in self.bases:
                    self.reads.setdefault(key, self.bases[key].version)
            self.own.update(items)
            self.writes.extend(items)
        self._host.buffered(self)

    def keys(self) -> list[str]:
        """Return the keys as this attempt sees them."""
        self.check()
        keys = dict.fromkeys([*self._host.reading.keys(self), *self.own])
        return [key for key in keys if key not in self.own or self.own[key] is not None]

    def update(self, key: str, change: Callable[[str | None], str]) -> str:
        """Change what this attempt sees; `reapply` changes the fresh value if another commit comes between."""
        self.check()
        while True:
            base = None if key in self.own else self._host.reading.value(key)  # without the lock, as it may wait for a commit
            with self._lock:
                if key not in self.own:
                    if base is None:
                        continue  # a checkpoint has come between
                    self.bases[key] = base
                text = change(self.own[key] if key in self.own else self.bases[key].text)
                self.own[key] = text
                self._changes[len(self.writes)] = change
                self.writes.append((key, text))
            self._host.buffered(self)
            return text

    def keys_set(self) -> AbstractSet[str]:
        """Return the keys it has set: those that it has only updated conflict with nobody's change."""
        if not self._changes:
            return {key for key, _ in self.writes}
        return {key for place, (key, _) in enumerate(self.writes) if place not in self._changes}

    def is_late(self, newest: Callable[[str], Value]) -> bool:
        """Whether what its updates were applied to has changed since."""
        return bool(self.bases) and any(newest(key).text != base.text for key, base in self.bases.items())

    def reapply(self, fresh: Callable[[str], Value]) -> None:
        """Apply its updates again, in order, to fresh values; raises what they raise."""
        own: dict[str, str | None] = {}
        bases = {key: fresh(key) for key in list(self.bases)}
        with self._lock:
            self.bases |= bases
            for place, (key, text) in enumerate(self.writes):
                change = self._changes.get(place)
                own[key] = text if change is None else change(own[key] if key in own else self.bases[key].text)
                if own[key] != text:
                    self.writes[place] = (key, own[key])
                    if place < self.recorded_writes:
                        self.rewritten.append(place)
            self.own = own

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of a key."""
        self.check()
        return self._host.reading.history(key)

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of a version."""
        self.check()
        return self._host.reading.at(version)

    # -- what others have put out ----------------------------------------------------------------------------------

    def gather(self, task_id: str) -> list[tuple[str, str]]:
        """Return keys and outputs of all other instances of a task, waiting for them."""
        self.check()
        return self._host.reading.gather(self, task_id)

    async def agather(self, task_id: str) -> list[tuple[str, str]]:
        """Return keys and outputs of all other instances of a task, waiting for them on the event loop."""
        self.check()
        return await self._host.reading.agather(self, task_id)

    def joined(self) -> list[tuple[str, str]] | None:
        """Return keys and outputs of those that it was dispatched to join; ``None`` if it is no join."""
        self.check()
        return None if self.dispatch.joins is None else self._host.reading.joined(self.dispatch)

    # -- what takes effect before the end --------------------------------------------------------------------------

    def emit(self, task_id: str, text: str) -> None:
        """Add a chunk to the run's stream."""
        self.check()
        if self._chunks == self._host.limits.chunks:
            raise LimitExceededError(f"task {self.dispatch.key} has put out {self._chunks} chunks", "chunks", self._chunks)
        self._chunks += 1
        self._host.emit(self, task_id, text)
        if self._chunks == 1 and not self.is_async:
            time.sleep(TURN_SECONDS)

    def step(self, name: str) -> str | None:
        """Return the recorded result of a step, ``None`` if there is none yet."""
        self.check()
        if name in self._step_names:
            raise InvalidKeyError("Step name", name, "was used before in this attempt; give each step a name of its own")
        self._step_names.add(name)
        if self._steps is None:
            self._steps = self._host.reading.steps(self.dispatch.number)
        return self._steps.get(name)

    def record_step(self, name: str, text: str) -> None:
        """Have the result of a step on the disk."""
        self.check()
        self._host.record(Step(self, name, text, Bell()))
        self.check()

    def checkpoint(self) -> None:
        """Commit what it has written so far."""
        self.check()
        self._host.record(Checkpoint(self, Bell()))
        self.check()
        error, self.update_error = self.update_error, None
        if error is not None:
            raise error

    def kept(self, first_version: int, last_version: int, seq: int, *, is_outdated: bool) -> None:
        """A checkpoint commits its writes of these versions, and its chunks up to *seq*: what follows is a new transaction."""
        self.is_outdated |= is_outdated
        count = last_version - first_version + 1
        with self._lock:
            committed = {key: Value(version, text) for version, (key, text) in enumerate(self.writes[:count], first_version)}
            self.earlier = {**self.reads, **self.earlier}
            self.earlier |= {key: value.version for key, value in committed.items() if key in self.earlier}
            if self.scanned is not None or self.looked is not None:
                self.looked = last_version
            self.writes = self.writes[count:]  # those that the body has made meanwhile
            self.own = dict(self.writes)
            self._changes = {place - count: change for place, change in self._changes.items() if place >= count}
            self.bases = {key: base for key, base in (self.bases | committed).items() if key in self.own}
            self.reads, self.rewritten = {}, []
            self.recorded_writes, self.kept_seq, self.scanned = 0, seq, None


def _nothing() -> None:
    """Abandon nobody."""
