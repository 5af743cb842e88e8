"""How far workers may go ahead of what is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from liteflow.clock import Clock

MOST = 50  # completions
SECONDS = 0.005


class Pace:
    """Counts the attempts that have returned and are not committed; used under the driver's lock.

    A worker takes other work while its completion waits for a common commit, but not without end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting = 0
        self._since = 0.0  # when the first of them began to wait

    def returned(self) -> None:
        """One more attempt has returned."""
        self._waiting += 1
        if self._waiting == 1:
            self._since = self._clock.monotonic()

    def committed(self, *, left: int) -> None:
        """A commit has taken all but so many."""
        self._waiting, self._since = left, self._clock.monotonic()

    def is_far_ahead(self) -> bool:
        """Whether a worker should wait for a commit before it takes other work."""
        return self._waiting >= MOST or (self._waiting > 0 and self._clock.monotonic() - self._since >= SECONDS)
