"""One thread that calls back at due times, and sleeps when nothing is due."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from liteflow.clock import Clock

FEW = 100  # calls that were taken back are cleared away once there are more, and they are most


class Call:
    """A call that is to come, unless it is taken back."""

    __slots__ = ("_ticker", "callback", "due", "order")

    def __init__(self, ticker: Ticker, due: float, order: int, callback: Callable[[], None]) -> None:
        self._ticker, self.due, self.order = ticker, due, order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Call) -> bool:
        """Whether it is due first."""
        return (self.due, self.order) < (other.due, other.order)

    def cancel(self) -> None:
        """Take it back; nothing of what it would have called is kept."""
        if self.callback is not None:
            self.callback = None
            self._ticker.taken_back()


class Ticker:
    """Calls back at times of a clock; started with the first call that is due.

    Args:
        clock: whose monotonic time counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: list[Call] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_in(self, seconds: float, callback: Callable[[], None]) -> Call:
        """Call *callback* once, on the ticker's thread, *seconds* from now; it must be quick."""
        with self._changed:
            call = Call(self, self._clock.monotonic() + seconds, next(self._order), callback)
            if self._closed:
                return call
            heapq.heappush(self._due, call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="liteflow-ticker", daemon=True)
                self._thread.start()
            elif self._due[0] is call:
                self._changed.notify()
            return call

    def taken_back(self) -> None:
        """One more call was taken back: clear those away when they are most of all."""
        with self._changed:
            self._cancelled += 1
            if self._cancelled > max(FEW, len(self._due) // 2):
                self._due = [call for call in self._due if call.callback is not None]
                heapq.heapify(self._due)
                self._cancelled = 0

    def close(self) -> None:
        """Call nothing any more."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()

    def _tick(self) -> None:
        while (call := self._next()) is not None:
            callback, call.callback = call.callback, None
            try:
                if callback is not None:
                    callback()
            except Exception:  # noqa: BLE001 - one call must not end the thread for all others
                logger.exception("a timed call of the engine failed")

    def _next(self) -> Call | None:
        with self._changed:
            while not self._closed:
                left = self._due[0].due - self._clock.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)
                self._clock.wait(self._changed, left)
            return None
