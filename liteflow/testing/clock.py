"""A clock that stands still until it is turned."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock for `Flow(clock=...)` that moves only when told.

    Args:
        start: the time it shows at first; aware.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 0.0
        self._lock = threading.Lock()
        self._advances = 0
        self._looked = threading.local()  # how often it had been advanced when this thread last looked
        self._waiting: list[threading.Condition] = []

    def now(self) -> datetime:
        """Return the time it shows."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Return the seconds by which it was advanced so far."""
        with self._lock:
            self._looked.at = self._advances
            return self._monotonic

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:  # noqa: ARG002 - its own time passes by `advance` only
        """Wait on a condition that is held, until it is notified or this clock is advanced; since the last look at it counts."""
        with self._lock:
            if getattr(self._looked, "at", self._advances) != self._advances:
                return
            self._waiting.append(condition)
        condition.wait()

    def advance(self, span: timedelta | float) -> None:
        """Let *span* pass, a ``timedelta`` or seconds."""
        span = span if isinstance(span, timedelta) else timedelta(seconds=span)
        with self._lock:
            self._now += span
            self._monotonic += span.total_seconds()
            self._advances += 1
            waiting, self._waiting = self._waiting, []
        for condition in waiting:
            with condition:
                condition.notify_all()

    def jump(self, span: timedelta) -> None:
        """Set the wall clock forward or back, as an operator or NTP may; no time passes."""
        with self._lock:
            self._now += span
