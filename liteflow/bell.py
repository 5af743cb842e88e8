"""Waiting for one event, on a thread or on an event loop."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from liteflow.lazily import asyncio
from liteflow.signals import Gate, is_main_thread

if TYPE_CHECKING:
    from collections.abc import Callable


class Bell:
    """Rings once; whoever waits for it, or comes later, goes on."""

    __slots__ = ("_callbacks", "_lock", "_rung")

    def __init__(self) -> None:
        self._rung = False
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def has_rung(self) -> bool:
        """Whether it has."""
        return self._rung

    def ring(self) -> None:
        """Let all go on who wait."""
        with self._lock:
            self._rung = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _call(self, callback: Callable[[], None]) -> bool:
        """Have *callback* called, on the thread that rings; return ``False``, and call nothing, if it has rung."""
        with self._lock:
            if not self._rung:
                self._callbacks.append(callback)
            return not self._rung

    def wait(self, timeout: float | None = None) -> bool:
        """Wait on this thread, so many seconds at most; return whether it has rung."""
        if not self._rung and is_main_thread():
            self._wait_for_signals_too(timeout)
        elif not self._rung:
            gate = threading.Lock()
            gate.acquire()
            if self._call(gate.release):
                gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        return self._rung

    def _wait_for_signals_too(self, timeout: float | None) -> None:
        ends = math.inf if timeout is None else time.monotonic() + timeout
        with Gate.lent() as gate:
            if self._call(gate.open):
                while not self._rung and (left := ends - time.monotonic()) > 0:
                    gate.wait(left)

    async def heard(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - the twin of `wait`
        """Wait on the running event loop, so many seconds at most; return whether it has rung."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def callback() -> None:
            with suppress(RuntimeError):  # that loop is closed: nobody waits on it any more
                loop.call_soon_threadsafe(resolve)

        if self._call(callback):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await future
        return self._rung
