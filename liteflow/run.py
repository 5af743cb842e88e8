"""`Run`: one execution of a flow, as its caller sees it."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from liteflow.bell import Bell
from liteflow.clock import SystemClock, from_text
from liteflow.codec import decode
from liteflow.context import Context, PortContext
from liteflow.engine.observer import Observer
from liteflow.engine.streams import Chunk, Follower
from liteflow.engine.waits import Deadline
from liteflow.errors import GetTimeoutError, LiteFlowError, RunCancelledError, RunConflictError, RunPausedError, TaskFailedError
from liteflow.lazily import asyncio
from liteflow.model import Failure, RunStatus, StreamChunk, TaskRecord, TaskStatus
from liteflow.places import of_inputs, of_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from liteflow.engine.driver import RunDriver
    from liteflow.engine.engine import Engine

_CLOCK = SystemClock()  # a caller waits in its own time, whatever the clock of the flow is
POLL_SECONDS = 0.05
INTERRUPT_SECONDS = 0.8


class Run:
    """One execution of a flow.

    Attributes:
        id: its id.
    """

    def __init__(self, engine: Engine, run_id: str, driver: RunDriver | None = None) -> None:
        self.id = run_id
        self._engine, self._driver = engine, driver

    @property
    def status(self) -> RunStatus:
        """Where it stands, as recorded."""
        if self._has_completed:
            return RunStatus.COMPLETED
        return RunStatus(self._engine.run(self.id)["status"])

    @property
    def reason(self) -> str | None:
        """Why it stands there, in words; ``None`` when there is nothing to say."""
        reason: str | None = self._engine.run(self.id)["reason"]
        return reason

    @property
    def error(self) -> TaskFailedError | None:
        """What failed it, if it failed."""
        if self._driver is not None and isinstance(self._driver.error, TaskFailedError):
            return self._driver.error
        row = self._engine.services.queries.failed_task(self.id)
        return None if row is None else TaskFailedError(row[0], row[1], self.id, Failure(*row[2:5]))

    @property
    def context(self) -> Context:
        """The context in which it happens."""
        return PortContext(self._context_id, Observer(self._engine, self._context_id))

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait until it stands still, but no longer than *timeout* seconds; return where it stands."""
        deadline = Deadline(timeout, _CLOCK)
        with self._engine.services.executor.blocked():  # for a task that waits for another run
            while deadline.left != 0.0 and (news := self._news()) is not None:
                news.wait(self._longest_wait(deadline))
        return self.status

    def _news(self) -> Bell | None:
        """Return what rings when it stands still, unless it does; of a run that is driven elsewhere nothing ever rings."""
        self._driver = self._engine.drivers.get(self.id, self._driver)
        if self._driver is not None and not self._driver.over.has_rung:
            return self._driver.over
        if self._is_lost or self._has_completed:
            return None
        return Bell() if self._is_live() else None

    def _longest_wait(self, deadline: Deadline) -> float | None:
        if self._driver is not None and not self._driver.over.has_rung:
            return deadline.left
        return POLL_SECONDS if deadline.left is None else min(POLL_SECONDS, deadline.left)

    @property
    def _has_completed(self) -> bool:
        """Whether this process drove it to its end."""
        return self._driver is not None and self._driver.over.has_rung and self._driver.error is None

    @property
    def _is_lost(self) -> bool:
        """Whether this process drove it, and could not go on."""
        error = None if self._driver is None else self._driver.error
        return error is not None and not isinstance(error, RunPausedError | RunCancelledError | TaskFailedError)

    def _is_live(self) -> bool:
        """Whether somebody is at work on it, here or elsewhere."""
        row = self._engine.run(self.id)
        if row["id"] in self._engine.drivers:
            return True
        status = RunStatus(row["status"])
        return status is RunStatus.QUEUED or (status.holds_context and not self._engine.is_free(row))

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, and return the output of every instance that dispatched nothing, by instance key.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TaskFailedError: a task of it failed.
            RunPausedError: it stands still until somebody resumes it.
            RunCancelledError: it was cancelled.
            GetTimeoutError: it did not end within *timeout*.
            StoreError: this process could not go on recording it.
        """
        return self._ended(self.wait(timeout), timeout)

    async def aresult(self, timeout: float | None = None) -> dict[str, Any]:  # noqa: ASYNC109 - the twin of `result`
        """Return what `result` does, waiting on the event loop."""
        deadline = Deadline(timeout, _CLOCK)
        while deadline.left != 0.0 and (news := await asyncio.to_thread(self._news)) is not None:
            await news.heard(self._longest_wait(deadline))
        return await asyncio.to_thread(self._ended, self.status, timeout)

    def _ended(self, status: RunStatus, timeout: float | None) -> dict[str, Any]:
        if status is RunStatus.COMPLETED:
            codec, result = self._engine.services.codec, self._engine.services.queries.result(self.id)
            return {key: codec.decode(text, of_key(self._context_id, key)) for key, text in result}
        if self._driver is not None and self._driver.error is not None and self._is_lost:
            raise self._driver.error
        if status is RunStatus.FAILED and (error := self.error) is not None:
            raise error
        if status is RunStatus.PAUSED:
            raise RunPausedError(self.id, self.reason or "")
        if status is RunStatus.CANCELLED:
            raise RunCancelledError(self.id, self.reason or "it was cancelled")
        if self._is_live():
            raise GetTimeoutError(f"The result of run {self.id}", timeout or 0.0)
        raise RunConflictError(self.id, f"was interrupted: its process is gone; go on with flow.resume({self.id!r})")

    def stream(self, after: int = 0, view: Literal["live", "final"] = "live") -> Iterator[StreamChunk]:
        """Yield its chunks, first the recorded ones, then those to come, until it stands still.

        Args:
            after: the number of the last chunk that was seen; 0 for all.
            view: ``"live"`` for chunks as they are written; a higher ``attempt`` of a key withdraws the earlier ones. ``"final"``
                for committed ones only, in the same order: a chunk waits there for the attempts that wrote before it.
        """
        follower = self._follower(after, view)
        return (chunk for chunks in follower for chunk in self._shown(chunks))

    async def astream(self, after: int = 0, view: Literal["live", "final"] = "live") -> AsyncIterator[StreamChunk]:
        """Yield what `stream` does, waiting on the event loop."""
        async for chunks in self._follower(after, view):
            for chunk in self._shown(chunks):
                yield chunk

    def _follower(self, after: int, view: str) -> Follower:
        if view not in ("live", "final"):
            msg = f'view is {view!r}; write "live" or "final"'
            raise LiteFlowError(msg)
        queries, driver = self._engine.services.queries, self._driver

        def read(seq: int) -> list[tuple[Chunk, bool]]:
            return [
                (Chunk(number, task_id, key, 0, attempt, text), status == "committed")
                for number, task_id, key, attempt, text, status in queries.stream(self.id, after=seq)
            ]

        return Follower(after, view, read=read, feed=None if driver is None else driver.feed, is_live=self._is_live)

    def _shown(self, chunks: list[Chunk]) -> Iterator[StreamChunk]:
        """Yield chunks as their reader gets them."""
        codec = self._engine.services.codec
        for chunk in chunks:
            yield chunk.shown(codec.decode(chunk.text, of_key(self._context_id, chunk.key)))

    @cached_property
    def _context_id(self) -> str:
        return self._driver.context_id if self._driver is not None else str(self._engine.run(self.id)["context_id"])

    def tasks(self) -> list[TaskRecord]:
        """Return one record a dispatch, in dispatch order."""
        shown, where = self._engine.services.shown, of_inputs(self.id)
        return [
            TaskRecord(
                number, key, task_id, TaskStatus(status), attempts, shown(inputs, where), by, merged, from_text(dispatched),
                started and from_text(started), finished and from_text(finished),
                Failure(*error) if error[0] is not None else None, not_before and from_text(not_before),
                tuple(decode(wait_for)) if wait_for else (),
            )
            for number, key, task_id, status, attempts, inputs, by, merged, dispatched, started, finished, not_before, wait_for,
            *error in self._engine.services.queries.tasks(self.id)
        ]  # fmt: skip

    def cancel(self) -> None:
        """End it for good: what runs is given up, what is not completed never will be; what completed is kept.

        Raises:
            RunConflictError: it is completed, or live in another process.
        """
        self._engine.cancel(self.id)

    def interrupt(self) -> bool:
        """Let it stand still at once, resumable; return whether this process drives it."""
        if self._driver is None or self._driver.over.has_rung:
            return False
        threading.Thread(
            target=self._driver.halt, args=(RunStatus.PAUSED, "interrupted"), name="liteflow-interrupt", daemon=True
        ).start()
        self._driver.over.wait(INTERRUPT_SECONDS)
        return True

    def __repr__(self) -> str:
        """Name the run."""
        return f"Run({self.id!r})"
