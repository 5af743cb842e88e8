"""Time and identity: the only use of the clock and of UUIDs."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid5

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

if TYPE_CHECKING:
    from threading import Condition

NAMESPACE = UUID("6f1f7b0e-6f0c-5c56-9f0a-3b1d1c6f2a10")  # of the ids that are derived from names
LONGEST_WAIT = 3600.0  # seconds; the system refuses to wait for years


class Clock(Protocol):
    """Where the engine takes its time from; tests put in a clock of their own."""

    def now(self) -> datetime:
        """Return the current time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for spans within this process."""
        ...

    def wait(self, condition: Condition, seconds: float | None) -> None:
        """Wait on a condition that is held, until it is notified or so many seconds of this clock have passed."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the current time, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wait(self, condition: Condition, seconds: float | None) -> None:
        """Wait on a condition that is held, so many seconds at most."""
        condition.wait(None if seconds is None else min(seconds, LONGEST_WAIT))


def new_id() -> str:
    """Return a new id: a UUID of version 7, so ids sort by the time they were made."""
    return str(uuid7())


def derived_id(*names: str) -> str:
    """Return the id that these names always give: a UUID of version 5."""
    return str(uuid5(NAMESPACE, "\0".join(names)))


_last_second = (datetime.min.replace(tzinfo=UTC), "")  # and its text, as most times are those of the same second


def to_text(moment: datetime) -> str:
    """Return a time as the store keeps it, ``2026-11-23T03:31:17.123456Z``: text order is time order."""
    global _last_second  # noqa: PLW0603 - replaced as a whole: a thread sees the old one or the new one
    second, text = _last_second
    whole = moment.replace(microsecond=0)
    if whole != second:
        text = whole.isoformat()[:19]
        _last_second = (whole, text)
    return f"{text}.{moment.microsecond:06}Z"


def from_text(text: str) -> datetime:
    """Return the aware UTC time that `to_text` wrote."""
    return datetime.fromisoformat(text)
