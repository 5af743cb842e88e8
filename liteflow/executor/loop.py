"""Where ``async`` tasks run: an event loop, the caller's or one on a thread of its own."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from liteflow.errors import LiteFlowError
from liteflow.lazily import asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context as Variables

PATIENCE = 1.0  # seconds that closing waits for coroutines that were cancelled


class Loop:
    """An event loop for any number of coroutines.

    Args:
        loop: the caller's; without one, a loop of our own is started with the first coroutine, on a daemon thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop, self._is_ours = loop, loop is None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, body: Callable[[], Coroutine[Any, Any, None]], variables: Variables) -> None:
        """Have the coroutine that *body* makes run on the loop, under these context variables; it must not raise.

        Raises:
            LiteFlowError: the caller's loop is closed.
        """
        try:
            self._opened().call_soon_threadsafe(self._begin, body, variables)
        except RuntimeError as error:
            raise LiteFlowError("the event loop on which the run's async tasks were to run is closed") from error

    def _begin(self, body: Callable[[], Coroutine[Any, Any, None]], variables: Variables) -> None:
        task = asyncio.get_running_loop().create_task(body(), context=variables)
        self._tasks.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def _opened(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_ours and (self._loop is None or self._pid != os.getpid()):  # a forked child has no thread of ours
                self._pid, self._tasks = os.getpid(), set()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._live, args=[self._loop], name="liteflow-loop", daemon=True)
                self._thread.start()
            assert self._loop is not None  # noqa: S101 - either the caller's or the one just made
            return self._loop

    @staticmethod
    def _live(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def close(self) -> None:
        """Cancel what still runs, and end our thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if self._is_ours:
                self._loop = self._thread = None
        if thread is not None and loop is not None and self._pid == os.getpid():
            loop.call_soon_threadsafe(loop.create_task, self._end())
            thread.join(PATIENCE)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        asyncio.get_running_loop().stop()
