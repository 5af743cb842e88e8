"""One try at executing a dispatch: a buffer of its own, which takes effect when the task returns, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from liteflow.engine.decision import Entry
    from liteflow.engine.reading import Reading
    from liteflow.errors import LiteFlowError
    from liteflow.model import Value, Version

    Change = Callable[[str | None], str]

FLUSH_SECONDS = 0.02


class Host(Protocol):
    """What an attempt asks of the run it belongs to."""

    run_id: str
    reading: Reading

    def buffered(self, attempt: Attempt) -> None: ...  # noqa: D102 - as in `RunDriver`
    def emit(self, attempt: Attempt, task_id: str, text: str) -> None: ...  # noqa: D102 - as in `RunDriver`


class Attempt:
    """The port of a task body's context.

    Attributes:
        run_id: the run.
        dispatch: what is executed.
        attempt: which try it is, from 1.
        failures: how many tries before it failed.
        own: its last write of each key.
        writes: all its writes, in order.
        recorded_writes: how many of them are in the store, as open writes.
        is_recorded: whether the store knows that it began.
        reads: the version of each committed value it read, 0 for an absent key.
        scanned: the context's version when it first asked for the set of keys.
        bases: for each key that it has updated: the committed value that the first update was applied to.
        given_up: why it can do nothing more; ``None`` while it can.
        started_at: when it began.
    """

    def __init__(self, driver: Host, entry: Entry, started_at: datetime) -> None:
        self._driver, self.dispatch, self.started_at = driver, entry.dispatch, started_at
        self.run_id, self.attempt, self.failures = driver.run_id, entry.attempts, entry.failures
        self.own: dict[str, str] = {}
        self.writes: list[tuple[str, str]] = []
        self.recorded_writes = 0
        self.is_recorded = False
        self.reads: dict[str, int] = {}
        self.scanned: int | None = None
        self.bases: dict[str, Value] = {}
        self._changes: dict[int, Change] = {}  # of each write that is an update: its place in order, and what it does
        self.rewritten: list[int] = []
        self.given_up: LiteFlowError | None = None

    @property
    def id(self) -> tuple[int, int]:
        """The number of the dispatch, and which attempt of it this is."""
        return self.dispatch.number, self.attempt

    @property
    def unrecorded(self) -> int:
        """How many of its writes are not in the store yet."""
        return len(self.writes) - self.recorded_writes

    def is_slow(self, now: datetime) -> bool:
        """Whether it has run long enough for others to be told."""
        return (now - self.started_at).total_seconds() >= FLUSH_SECONDS

    def check(self) -> None:
        """Raise why this attempt was given up, if it was."""
        if self.given_up is not None:
            raise self.given_up

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return its own write, else what rule R4 says."""
        self.check()
        text = self.own.get(key)
        return text if text is not None else self._driver.reading.read(self, key, wait=wait, timeout=timeout)

    def peek(self, key: str) -> str | None:
        """Return its own write, else the committed value."""
        self.check()
        text = self.own.get(key)
        return text if text is not None else self._driver.reading.peek(self, key)

    def set(self, items: Sequence[tuple[str, str]]) -> None:
        """Put writes into the buffer."""
        self.check()
        for key, _ in items:
            if key in self.bases:
                self.reads.setdefault(key, self.bases[key].version)
        self.own.update(items)
        self.writes.extend(items)
        self._driver.buffered(self)

    def keys(self) -> list[str]:
        """Return the keys as this attempt sees them."""
        self.check()
        return list(dict.fromkeys([*self._driver.reading.keys(self), *self.own]))

    def update(self, key: str, change: Callable[[str | None], str]) -> str:
        """Change what this attempt sees; `reapply` changes the fresh value if another commit comes between."""
        self.check()
        seen = self.own.get(key)
        if seen is None:
            self.bases[key] = self._driver.reading.value(key)
            seen = self.bases[key].text
        text = self.own[key] = change(seen)
        self._changes[len(self.writes)] = change
        self.writes.append((key, text))
        self._driver.buffered(self)
        return text

    def keys_set(self) -> AbstractSet[str]:
        """Return the keys it has set: those that it has only updated conflict with nobody's change."""
        return {key for place, (key, _) in enumerate(self.writes) if place not in self._changes}

    def is_late(self, newest: Callable[[str], Value]) -> bool:
        """Whether what its updates were applied to has changed since."""
        return any(newest(key).text != base.text for key, base in self.bases.items())

    def reapply(self, fresh: Callable[[str], Value]) -> None:
        """Apply its updates again, in order, to fresh values; raises what they raise."""
        own: dict[str, str] = {}
        self.bases = {key: fresh(key) for key in self.bases}
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
        return self._driver.reading.history(key)

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of a version."""
        return self._driver.reading.at(version)

    def emit(self, task_id: str, text: str) -> None:
        """Add a chunk to the run's stream."""
        self.check()
        self._driver.emit(self, task_id, text)
