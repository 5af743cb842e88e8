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


class Ticker:
    """Calls back at times of a clock; started with the first call that is due.

    Args:
        clock: whose monotonic time counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_in(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call *callback* once, on the ticker's thread, *seconds* from now; it must be quick."""
        with self._changed:
            if self._closed:
                return
            entry = (self._clock.monotonic() + seconds, next(self._order), callback)
            heapq.heappush(self._due, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="liteflow-ticker", daemon=True)
                self._thread.start()
            elif self._due[0] is entry:
                self._changed.notify()

    def close(self) -> None:
        """Call nothing any more."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()

    def _tick(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001 - one call must not end the thread for all others
                logger.exception("a timed call of the engine failed")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                left = self._due[0][0] - self._clock.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._clock.wait(self._changed, left)
            return None
