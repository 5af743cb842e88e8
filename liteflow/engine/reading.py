"""What the tasks of a run see of its context: rule R4, on the values that are committed."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from liteflow.bell import Bell
from liteflow.engine.waits import Deadline, Waiter, Waits
from liteflow.errors import TaskNotFoundError
from liteflow.lazily import asyncio

if TYPE_CHECKING:
    from liteflow.engine.attempt import Attempt
    from liteflow.engine.services import Services
    from liteflow.engine.state import RunState
    from liteflow.engine.values import Values
    from liteflow.model import Dispatch, Value, Version


class Host(Protocol):
    """What a run does when somebody in it begins to wait."""

    run_id: str
    context_id: str

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
        state: who is to produce what.
        values: the committed values.
        host: the run itself.
    """

    def __init__(self, services: Services, state: RunState, values: Values, host: Host) -> None:
        self._services, self._state, self._host = services, state, host
        self.values, self.waits = values, Waits(state)
        self.lock = threading.Lock()
        self._next_publish: Bell | None = None  # once somebody waits for it
        self._committing = self._over = False

    def committing(self) -> None:
        """A commit is under way; called under the lock."""
        self._committing = True

    def published(self, *, over: bool) -> None:
        """The commit has succeeded: show what it holds; with *over*, nothing more will come. Called under the lock."""
        self._committing, self._over = False, self._over or over
        if self._next_publish is not None:
            self._next_publish.ring()
            self._next_publish = None
        self.waits.wake(self.values.publish())
        if over:
            self.waits.wake_all()

    def catch_up(self, version: int) -> None:
        """Wait until tasks see what others have committed, up to *version*."""
        with self.lock:
            while not self._over and (self.values.version < version or self._committing):
                self.wait_published()

    # -- one value -------------------------------------------------------------------------------------------------

    def read(self, attempt: Attempt | None, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return the committed text of *key* by rule R4, ``None`` for none; *attempt* is ``None`` for an observer."""
        deadline = Deadline(timeout, self._services.clock)
        while isinstance(found := self._look(attempt, key, wait=wait), Waiter):
            self._wait(attempt, found, deadline)
        return found

    async def aread(self, attempt: Attempt, key: str, *, wait: bool, timeout: float | None) -> str | None:  # noqa: ASYNC109 - the twin of `read`
        """Return what `read` does, waiting on the event loop."""
        deadline = Deadline(timeout, self._services.clock)
        await self._no_commit()
        while isinstance(found := self._look(attempt, key, wait=wait), Waiter):
            await self._hear(found, deadline)
        return found

    def _look(self, attempt: Attempt | None, key: str, *, wait: bool) -> str | Waiter | None:
        """Return the text of *key*, or whom to wait for before another look."""
        number = None if attempt is None else attempt.dispatch.number
        while True:
            with self.lock:
                self.when_published(attempt)
                over = self._over
                if not over and self._state.must_wait(key, number):
                    return self._begin_wait(key, number)
                value = self.values.committed(key)
                evictions = self.values.evictions
                if value is not None:
                    self._saw(attempt, key, value)
                    if value.text is not None or not wait or over or key not in self._services.tasks:
                        return value.text
                    return self._begin_wait(key, number)
            self._load(key, evictions)

    def _begin_wait(self, key: str, number: int | None) -> Waiter:
        waiter = self.waits.begin(key, number)
        self._host.end_hopeless()
        return waiter

    def _wait(self, attempt: Attempt | None, waiter: Waiter, deadline: Deadline) -> None:
        try:
            self._host.start()
            with self._services.executor.blocked() if attempt is not None else nullcontext():
                waiter.wait(deadline)
        finally:
            with self.lock:
                self.waits.end(waiter)

    async def _hear(self, waiter: Waiter, deadline: Deadline) -> None:
        try:
            self._host.start()
            await waiter.heard(deadline)
        finally:
            with self.lock:
                self.waits.end(waiter)
        await self._no_commit()

    async def _no_commit(self) -> None:
        """Wait on the event loop until no commit is under way, so that others on the loop go on meanwhile."""
        while True:
            with self.lock:
                if not self._committing:
                    return
                bell = self._coming()
            await bell.heard()

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

    def _saw(self, attempt: Attempt | None, key: str, value: Value) -> None:
        """Remember the first version of *key* that *attempt* has read."""
        if attempt is not None:
            attempt.reads.setdefault(key, value.version)

    def _load(self, key: str, evictions: int) -> None:
        """Get a value that is not cached; without the lock, as the database may be waiting for it."""
        with self._services.database.read() as tx:
            value = self._services.store.value(tx, self._host.context_id, key)
        with self.lock:
            self.values.loaded(key, value, evictions)

    # -- many values -----------------------------------------------------------------------------------------------

    def gather(self, attempt: Attempt, task_id: str) -> list[tuple[str, str]]:
        """Return keys and outputs of all instances of a task but the caller's own, in dispatch order, once they are there."""
        deadline = Deadline(None, self._services.clock)
        while (waiter := self._wait_for_all(attempt, task_id)) is not None:
            self._wait(attempt, waiter, deadline)
        return self._outputs(attempt, task_id)

    async def agather(self, attempt: Attempt, task_id: str) -> list[tuple[str, str]]:
        """Return what `gather` does, waiting on the event loop."""
        deadline = Deadline(None, self._services.clock)
        await self._no_commit()
        while (waiter := self._wait_for_all(attempt, task_id)) is not None:
            await self._hear(waiter, deadline)
        return await asyncio.to_thread(self._outputs, attempt, task_id)

    def _wait_for_all(self, attempt: Attempt, task_id: str) -> Waiter | None:
        """Return whom to wait for before another look, unless all instances of a task are done."""
        if task_id not in self._services.tasks:
            raise TaskNotFoundError(task_id, self._services.tasks)
        with self.lock:
            self.when_published(attempt)
            instances, own = self._state.instances.get(task_id, {}), attempt.dispatch.key
            active = next((key for key in reversed(instances) if key != own), None)
            if active is not None and not self._over:  # the newest: once that is done, most others are
                return self._begin_wait(active, attempt.dispatch.number)
            attempt.gathered.setdefault(task_id, self.values.version)
            return None

    def _outputs(self, attempt: Attempt, task_id: str) -> list[tuple[str, str]]:
        with self._services.database.read() as tx:
            outputs = self._services.store.outputs_of_task(tx, self._host.run_id, self._host.context_id, task_id)
        return [(key, text) for key, text in outputs if key != attempt.dispatch.key]

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
                loaded = self._services.store.keys(tx, self._host.context_id)
            with self.lock:
                self.values.loaded_keys(loaded, version)

    # -- what is recorded of the run -------------------------------------------------------------------------------

    def steps(self, number: int) -> dict[str, str]:
        """Return the results of the steps of a dispatch, by name."""
        with self._services.database.read() as tx:
            return self._services.store.steps(tx, self._host.run_id, number)

    def joined(self, join: Dispatch) -> list[tuple[str, str]]:
        """Return keys and outputs that a join finds, in dispatch order."""
        with self._services.database.read() as tx:
            return self._services.store.outputs_of_members(tx, self._host.run_id, self._host.context_id, join)

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first."""
        return self._services.history(self._host.context_id, key)

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of *version*."""
        return self._services.at(self._host.context_id, version)

    # -- the end of a commit ---------------------------------------------------------------------------------------

    def _coming(self) -> Bell:
        """Return what rings at the end of the next commit."""
        self._next_publish = self._next_publish or Bell()
        return self._next_publish

    def wait_published(self) -> None:
        """Wait for the end of the next commit; called under the lock, which others may take meanwhile."""
        bell = self._coming()
        self.lock.release()
        try:
            bell.wait()
        finally:
            self.lock.acquire()

    def when_published(self, attempt: Attempt | None) -> None:
        """Wait for the end of a commit under way: tasks see what is committed, all of it together."""
        while self._committing:
            self.wait_published()
        if attempt is not None:
            attempt.check()
