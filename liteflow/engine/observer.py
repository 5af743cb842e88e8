"""A context as seen from outside any task: by the caller, or by another process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from liteflow.errors import GetTimeoutError
from liteflow.model import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from liteflow.engine.engine import Engine
    from liteflow.model import Version
    from liteflow.store.database import Transaction

POLL_SECONDS = 0.05


class Observer:
    """The port of a stored context, for observers.

    They see what is written, also what is not committed yet; what they write is committed at once.

    Args:
        engine: what knows the store, and the runs driven here.
        context_id: the context.
    """

    def __init__(self, engine: Engine, context_id: str) -> None:
        self._engine, self._id, self.codec = engine, context_id, engine.services.codec

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return the newest text of *key*; while a run is live that is to write it, wait for that."""
        engine = self._engine
        deadline = None if timeout is None else engine.services.clock.monotonic() + timeout
        while True:
            driver = engine.driver_in(self._id)
            if driver is not None:
                newest = driver.newest(key)
                if newest is not None:
                    return newest.text
                text = driver.reading.read(None, key, wait=wait, timeout=timeout)
                if text is not None or not driver.over.has_rung or engine.driver_in(self._id) is None:
                    return text
                continue
            with engine.services.database.read() as tx:
                live = engine.services.store.live_run_in(tx, self._id) is not None
            text = self.peek(key)
            if text is not None or not wait or not live or key.partition("#")[0] not in engine.services.tasks:
                return text
            if deadline is not None and engine.services.clock.monotonic() >= deadline:
                raise GetTimeoutError(f"Key {key}", timeout or 0.0)
            threading.Event().wait(POLL_SECONDS)

    def peek(self, key: str) -> str | None:
        """Return the newest text of *key*."""
        driver = self._engine.driver_in(self._id)
        newest = None if driver is None else driver.newest(key)
        if newest is not None:
            return newest.text
        store = self._engine.services.store
        with self._engine.services.database.read() as tx:
            newest = None if driver is not None else store.open_value(tx, self._id, key)
            return (newest or store.value(tx, self._id, key)).text

    def set(self, items: Sequence[tuple[str, str | None]]) -> None:
        """Commit these writes, and wake who waits for them."""
        self._write(lambda tx: self._engine.services.store.set_values(tx, self._id, items, now=self._engine.services.clock.now()))

    def keys(self) -> list[str]:
        """Return the keys that have a value, in the order of their first writes, then those that running tasks have added."""
        driver, store = self._engine.driver_in(self._id), self._engine.services.store
        written = None if driver is None else driver.written()  # asked before reading: what comes between is not missed
        with self._engine.services.database.read() as tx:
            if written is None:
                written = {key: store.open_value(tx, self._id, key) != Value(0, None) for key in store.open_keys(tx, self._id)}
            keys = dict.fromkeys([*store.keys(tx, self._id), *written])
        return [key for key in keys if written.get(key, True)]

    def update(self, key: str, change: Callable[[str | None], str]) -> str:
        """Replace the text of *key* by what *change* makes of it, again and again until nobody came between."""
        store = self._engine.services.store
        while True:
            with self._engine.services.database.read() as tx:
                seen = store.value(tx, self._id, key)
            text = change(seen.text)

            def work(tx: Transaction, seen_version: int = seen.version, text: str = text) -> int:
                if store.value(tx, self._id, key).version != seen_version:
                    return 0
                return store.set_values(tx, self._id, [(key, text)], now=self._engine.services.clock.now())

            if self._write(work):
                return text

    def _write(self, work: Callable[[Transaction], int]) -> int:
        """Commit, and return once the tasks of a run that is live here see it."""
        version = self._engine.services.database.write(work, sync=True)
        driver = self._engine.driver_in(self._id)
        if driver is not None:
            driver.post(None)
            driver.reading.catch_up(version)
        return version

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first."""
        return self._engine.services.history(self._id, key)

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of *version*."""
        return self._engine.services.at(self._id, version)
