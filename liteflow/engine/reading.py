"""What the tasks of a run see of its context: rule R4, on the values that are committed."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from liteflow.engine.waits import Waits

if TYPE_CHECKING:
    from liteflow.engine.attempt import Attempt
    from liteflow.engine.services import Services
    from liteflow.engine.state import RunState
    from liteflow.engine.values import Values
    from liteflow.model import Value, Version


class Host(Protocol):
    """What a run does when somebody in it begins to wait."""

    def end_hopeless(self) -> None:
        """End the waits that nothing can fulfil any more; called under the lock."""
        ...

    def start(self) -> None:
        """Start what may run because somebody waits."""
        ...


class Reading:
    """Reads, and waits, in the context of a live run.

    While a commit is under way the state is ahead of what is committed, so reads wait for its end.

    Args:
        services: what the run works with.
        context_id: its context.
        state: who is to produce what.
        values: the committed values.
        host: the run itself.
    """

    def __init__(self, services: Services, context_id: str, state: RunState, values: Values, host: Host) -> None:
        self._services, self._context_id, self._state, self._host = services, context_id, state, host
        self.values, self.waits = values, Waits(state)
        self.lock = threading.Lock()
        self._published = threading.Condition(self.lock)
        self._committing = self._over = False

    def committing(self) -> None:
        """A commit is under way; called under the lock."""
        self._committing = True

    def published(self, *, over: bool) -> None:
        """The commit has succeeded: show what it holds; with *over*, nothing more will come. Called under the lock."""
        self._committing, self._over = False, self._over or over
        self._published.notify_all()
        self.waits.wake(self.values.publish())
        if over:
            self.waits.wake_all()

    def catch_up(self, version: int) -> None:
        """Wait until tasks see what others have committed, up to *version*."""
        with self.lock:
            self._published.wait_for(lambda: self._over or (self.values.version >= version and not self._committing))

    def read(self, attempt: Attempt | None, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return the committed text of *key* by rule R4, ``None`` for none; *attempt* is ``None`` for an observer."""
        number = None if attempt is None else attempt.dispatch.number
        began = self._services.clock.monotonic()
        while True:
            waiter, evictions = None, 0
            with self.lock:
                self.when_published(attempt)
                over = self._over
                if not over and self._state.must_wait(key, number):
                    waiter = self.waits.begin(key, number)
                else:
                    value = self.values.committed(key)
                    if value is None:
                        evictions = self.values.evictions
                    else:
                        self._saw(attempt, key, value)
                        if value.text is not None or not wait or over or key not in self._services.tasks:
                            return value.text
                        waiter = self.waits.begin(key, number)
                self._host.end_hopeless()
            if waiter is None:
                self._load(key, evictions)
                continue
            try:
                self._host.start()
                with self._services.executor.blocked() if attempt is not None else nullcontext():
                    waiter.wait(began, timeout, self._services.clock)
            finally:
                with self.lock:
                    self.waits.end(waiter)

    def peek(self, attempt: Attempt, key: str) -> str | None:
        """Return the committed text of *key*, ``None`` for none."""
        value = self.value(key)
        attempt.check()
        self._saw(attempt, key, value)
        return value.text

    def value(self, key: str) -> Value:
        """Return the committed value of *key*, without noting that anybody has read it."""
        while True:
            with self.lock:
                self.when_published(None)
                value, evictions = self.values.committed(key), self.values.evictions
            if value is not None:
                return value
            self._load(key, evictions)

    def wait_published(self) -> None:
        """Wait for the end of the next commit; called under the lock."""
        self._published.wait()

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first."""
        return self._services.history(self._context_id, key)

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of *version*."""
        return self._services.at(self._context_id, version)

    def _saw(self, attempt: Attempt | None, key: str, value: Value) -> None:
        """Remember the first version of *key* that *attempt* has read."""
        if attempt is not None:
            attempt.reads.setdefault(key, value.version)

    def _load(self, key: str, evictions: int) -> None:
        """Get a value that is not cached; without the lock, as the database may be waiting for it."""
        with self._services.database.read() as tx:
            value = self._services.store.value(tx, self._context_id, key)
        with self.lock:
            self.values.loaded(key, value, evictions)

    def keys(self, attempt: Attempt | None) -> list[str]:
        """Return all keys of the context, and remember that *attempt* has seen them."""
        while True:
            with self.lock:
                self.when_published(attempt)
                keys, version = self.values.keys(), self.values.version
                if keys is not None:
                    if attempt is not None and attempt.scanned is None:
                        attempt.scanned = version
                    return keys
            with self._services.database.read() as tx:
                loaded = self._services.store.keys(tx, self._context_id)
            with self.lock:
                self.values.loaded_keys(loaded, version)

    def when_published(self, attempt: Attempt | None) -> None:
        """Wait for the end of a commit under way: tasks see what is committed, all of it together."""
        while self._committing:
            self._published.wait()
        if attempt is not None:
            attempt.check()
