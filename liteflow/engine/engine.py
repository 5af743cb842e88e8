"""The runs of one flow in this process: starting them, taking them up, finding them."""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from liteflow.clock import SystemClock, new_id, to_text
from liteflow.codec import check_key
from liteflow.engine.decision import Entry, Request
from liteflow.engine.driver import RunDriver, Surroundings
from liteflow.engine.journal import Journal
from liteflow.engine.ownership import Ownership
from liteflow.engine.services import Services
from liteflow.engine.state import RunState
from liteflow.engine.streams import FIRST_BLOCK, Feed
from liteflow.engine.ticker import Ticker
from liteflow.engine.values import Values
from liteflow.errors import (
    ContextBusyError,
    LiteFlowError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
    SerializationError,
    TaskNotFoundError,
)
from liteflow.executor.loop import Loop
from liteflow.model import RunStatus
from liteflow.places import of_inputs, of_key
from liteflow.store.queries import Queries
from liteflow.store.store import Store
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from liteflow.clock import Clock
    from liteflow.codec import Codec
    from liteflow.engine.task import Task
    from liteflow.executor.base import Executor
    from liteflow.model import Limits
    from liteflow.store.database import Database, Transaction

Row = dict[str, Any]
CANCELLED = "it was cancelled"
Begun = TypeVar("Begun", bound="RunDriver | Row")


class Start(NamedTuple):
    """How a run begins: what makes two starts under one id the same."""

    task_id: str
    inputs: Mapping[str, Any] | None
    loop: Loop | None = None  # where its ``async`` tasks run

    def encoded(self, codec: Codec, run_id: str) -> str | None:
        """Return the inputs as text."""
        return None if self.inputs is None else codec.encode(dict(self.inputs), of_inputs(run_id))


class Engine:
    """What the runs of one flow work with, in this process.

    Args:
        flow: the flow's name.
        tasks: the flow's tasks, by id; may change while runs are live.
        executor: where tasks run.
        database: open.
        clock: its time.
        codec: how values become text.
        limits: how far a run may go.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what an engine consists of
        self, flow: str, tasks: dict[str, Task], executor: Executor, database: Database, clock: Clock, codec: Codec,
        limits: Limits,
    ) -> None:  # fmt: skip
        self.flow = flow
        ticker = Ticker(clock)
        pacer = ticker if isinstance(clock, SystemClock) else Ticker(SystemClock())
        self.services = Services(
            tasks, executor, Loop(), database, Store(database), Queries(database), clock, ticker, pacer, codec, limits
        )
        self.ownership = Ownership(self.services.store, clock, self.services.ticker)
        self.drivers: dict[str, RunDriver] = {}
        self._lock = threading.Lock()

    # -- starting and taking up ------------------------------------------------------------------------------------

    def start(self, start: Start, context_id: str, run_id: str | None = None) -> RunDriver | Row:
        """Start a run, or return the row of the run that has this id.

        Raises:
            TaskNotFoundError: the flow has no such task.
            ContextBusyError: another run holds the context.
        """
        if start.task_id not in self.services.tasks:
            raise TaskNotFoundError(start.task_id, self.services.tasks)
        items = self._encoded_items(start.inputs, context_id)
        new = new_id() if run_id is None else check_key(run_id, "Run id")

        def work(tx: Transaction) -> RunDriver | Row:
            known = None if run_id is None else self.services.queries.run(run_id, tx)
            return known or self._create(tx, new, start, items, context_id)

        return self._begin(new, work)

    def _begin(self, run_id: str, work: Callable[[Transaction], Begun]) -> Begun:
        """Do *work*, and drive the run that it gives; that is known here from before it is recorded."""
        mine: RunDriver | None = None
        variables = copy_context()  # of the caller: the work may be done by who leads the commit

        def known(tx: Transaction) -> Begun:
            nonlocal mine
            begun = variables.run(work, tx)
            if isinstance(begun, RunDriver):
                mine = begun
                with self._lock:
                    self.drivers[run_id] = mine
            return begun

        try:
            begun = self.services.database.write(known, sync=True)
        except BaseException:
            if mine is not None:
                self._ended(mine)
            raise
        if isinstance(begun, RunDriver):
            self.ownership.registered()
            begun.start()
        return begun

    def _encoded_items(self, inputs: Mapping[str, Any] | None, context_id: str) -> list[tuple[str, str]]:
        items = []
        for key, value in (inputs or {}).items():
            try:
                items.append((check_key(key), self.services.codec.encode(value, of_key(context_id, key))))
            except SerializationError as error:
                raise error.at_key(key) from None
        return items

    def _create(self, tx: Transaction, run_id: str, start: Start, items: list[tuple[str, str]], context_id: str) -> RunDriver:
        """Record a new run, its inputs and its first dispatch."""
        store, now = self.services.store, self.services.clock.now()
        head = store.open_context(tx, context_id, now=now)
        self._refuse_busy(tx, context_id)
        self.ownership.register(tx)
        version = store.set_values(tx, context_id, items, now=now) if items else head.version
        inputs = start.encoded(self.services.codec, run_id)
        row = {
            "id": run_id, "flow": self.flow, "context_id": context_id, "start_task": start.task_id, "inputs": inputs,
            "status": "running", "priority": 0, "owner_id": self.ownership.id, "crashes": 0, "progress_version": version,
            "base_version": head.version, "seq_reserved": FIRST_BLOCK, "created_at": to_text(now), "started_at": to_text(now),
        }  # fmt: skip
        fence = store.create_run(tx, row, fence=head.fence)
        state = RunState(self._equal(run_id))
        journal = Journal(run_id, context_id, now)
        journal.decided(state.start(Request(start.task_id, inputs)), state.live)
        store.record(tx, run_id, journal.batch)
        feed, around = Feed(0, FIRST_BLOCK), Surroundings(copy_context(), start.loop or self.services.loop)
        return RunDriver(self.services, self._ended, row, fence, state, Values(version), feed, around)

    def _equal(self, run_id: str) -> Callable[[str | None, str | None], bool]:
        """Return what tells whether two encoded inputs stand for equal values."""
        return partial(self.services.codec.equal, place=of_inputs(run_id))

    def is_of(self, start: Start, run: Row) -> bool:
        """Whether a run was started like this."""
        if run["flow"] != self.flow or run["start_task"] != start.task_id:
            return False
        return self._equal(run["id"])(run["inputs"], start.encoded(self.services.codec, run["id"]))

    def _refuse_busy(self, tx: Transaction, context_id: str) -> None:
        holder = self.services.store.live_run_in(tx, context_id)
        if holder is not None:
            raise ContextBusyError(context_id, holder[0], interrupted=self._is_free(tx, *holder))

    def _is_free(self, tx: Transaction, run_id: str, owner: str | None) -> bool:
        """Whether nobody is at work on a live run."""
        if owner == self.ownership.id:
            return run_id not in self.drivers
        return self.ownership.is_gone(None if owner is None else self.services.store.owner(tx, owner))

    def take(self, run_id: str, *, loop: Loop | None = None, by_itself: bool = False) -> RunDriver:
        """Take up a run that was interrupted, paused or failed.

        Args:
            run_id: the run.
            loop: where its ``async`` tasks run.
            by_itself: nobody has asked for this very run: leave one paused that brings down its process again and again.

        Raises:
            RunNotFoundError: no run has this id.
            RunConflictError: it is completed, cancelled, live, or of another flow.
            ContextBusyError: another run holds its context by now.
            RunPausedError: it brings down its process.
        """
        taken = self._begin(run_id, lambda tx: self._take(tx, run_id, loop, by_itself=by_itself))
        if isinstance(taken, RunDriver):
            return taken
        raise RunPausedError(run_id, taken["reason"])

    def _take(self, tx: Transaction, run_id: str, loop: Loop | None, *, by_itself: bool) -> RunDriver | Row:
        run = self.services.queries.run(run_id, tx)
        if run is None:
            raise RunNotFoundError(run_id, self.services.database.url_masked)
        self._refuse_to_take(tx, run)
        status = RunStatus(run["status"])
        if not status.holds_context:
            self._refuse_busy(tx, run["context_id"])
        if by_itself and (reason := self._brings_down(tx, run)) is not None:
            return {**run, "reason": reason}
        self.ownership.register(tx)
        store, last = self.services.store, run["seq_reserved"]
        feed = Feed(last, last + FIRST_BLOCK)
        now, context_id = self.services.clock.now(), run["context_id"]
        head = store.claim_run(tx, run, self.ownership.id, now=now, seq_reserved=feed.reserved)
        if head is None:  # refused above
            raise RunConflictError(run_id, f"is {status}")
        state = self.load(tx, run)
        journal = Journal(run_id, context_id, now)
        journal.decided(state.resume(), state.live)
        store.record(tx, run_id, journal.batch)
        around = Surroundings(copy_context(), loop or self.services.loop)
        return RunDriver(self.services, self._ended, run, head.fence, state, Values(head.version), feed, around)

    def _brings_down(self, tx: Transaction, run: Row) -> str | None:
        """Pause a run that has brought down its process too often, so that it is not taken up by itself; return why."""
        store, most = self.services.store, self.services.limits.crashes
        head = store.head(tx, run["context_id"])
        crashes = 0 if head is None else store.crashes(run, head.version)
        if crashes <= most:
            return None
        if run["status"] == RunStatus.PAUSED:
            return str(run["reason"])
        at = ", ".join(t.dispatch.key for t in store.load_run(tx, run).entries if t.status.may_run)
        reason = f"its process died {crashes} times in a row and completed nothing in between; it was at: {at}"
        store.halt_run(tx, run, RunStatus.PAUSED, reason, now=self.services.clock.now(), crashes=crashes)
        return reason

    def load(self, tx: Transaction, run: Row, *, failed: int | None = None) -> RunState:
        """Return the state of a run as recorded, given its row."""
        live = self.services.store.load_run(tx, run)
        return RunState.load(
            [
                Entry(
                    t.dispatch, t.status, t.attempts, t.merged_into, failures=t.failures, not_before=t.not_before,
                    wait_for=t.wait_for, missing=t.missing, members=t.members, join=t.join,
                )
                for t in live.entries
            ],
            spawned=live.spawned, produced=live.produced, next_number=live.next_number, failed=failed,
            equal=self._equal(run["id"]),
        )  # fmt: skip

    def cancel(self, run_id: str) -> None:
        """Cancel a run: what is not completed never will be.

        Raises:
            RunNotFoundError: no run has this id.
            RunConflictError: it is completed, or live elsewhere.
        """
        driver = self.drivers.get(run_id)
        if driver is not None:
            driver.halt(RunStatus.CANCELLED, CANCELLED)
            driver.over.wait()
        self.services.database.write(lambda tx: self._cancel(tx, run_id), sync=True)

    def _cancel(self, tx: Transaction, run_id: str) -> None:
        run = self.services.queries.run(run_id, tx)
        if run is None:
            raise RunNotFoundError(run_id, self.services.database.url_masked)
        status = RunStatus(run["status"])
        if status is RunStatus.CANCELLED:
            return
        if status is RunStatus.COMPLETED:
            raise RunConflictError(run_id, "is completed, so there is nothing left to cancel")
        if status.holds_context and not self._is_free(tx, run_id, run["owner_id"]):
            owner = self.services.store.owner(tx, run["owner_id"]) or {}
            raise RunConflictError(run_id, f"is live in process {owner.get('pid')}; cancel it there, or end that process first")
        self.services.store.halt_run(tx, run, RunStatus.CANCELLED, CANCELLED, now=self.services.clock.now())

    def _refuse_to_take(self, tx: Transaction, run: Row) -> None:
        run_id, status = run["id"], RunStatus(run["status"])
        if run["flow"] != self.flow:
            raise RunConflictError(run_id, f"is of flow {run['flow']}, not of flow {self.flow}; resume it with that flow")
        if status.is_final:
            raise RunConflictError(run_id, f"is {status} and cannot go on; flow.get_run({run_id!r}).result() has its result")
        if status.holds_context and not self._is_free(tx, run_id, run["owner_id"]):
            owner = self.services.store.owner(tx, run["owner_id"]) or {}
            raise RunConflictError(
                run_id, f"is live in process {owner.get('pid')}; wait for it with flow.get_run({run_id!r}).wait()"
            )

    def recover(self) -> list[RunDriver]:
        """Take every run of this flow that is live by its row, and whose owner is gone."""
        taken = []
        for status in (RunStatus.RUNNING, RunStatus.WAITING):
            for run in self.services.queries.runs(self.flow, status=status):
                if run["start_task"] not in self.services.tasks:
                    logger.warning("run %s left alone: this code has no task %s", run["id"], run["start_task"])
                    continue
                try:
                    taken.append(self.take(run["id"], by_itself=True))
                except LiteFlowError as error:
                    logger.info("run %s left alone: %s", run["id"], error)
        return taken

    def _ended(self, driver: RunDriver) -> None:
        """A run is over, as far as this process is concerned."""
        with self._lock:
            if self.drivers.get(driver.run_id) is driver:  # it may have been taken up again
                del self.drivers[driver.run_id]

    # -- finding ---------------------------------------------------------------------------------------------------

    def driver_in(self, context_id: str) -> RunDriver | None:
        """Return the run that this process drives in a context."""
        with self._lock:
            return next((driver for driver in self.drivers.values() if driver.context_id == context_id), None)

    def run(self, run_id: str) -> Row:
        """Return the row of a run.

        Raises:
            RunNotFoundError: no run has this id.
        """
        row = self.services.queries.run(run_id)
        if row is None:
            raise RunNotFoundError(run_id, self.services.database.url_masked)
        return row

    def is_free(self, run: Row) -> bool:
        """Whether nobody is at work on a run that is live by its row."""
        with self.services.database.read() as tx:
            return self._is_free(tx, run["id"], run["owner_id"])

    def close(self) -> None:
        """Let live runs stand still, those that wait excepted, and end the ownership of this process."""
        for driver in list(self.drivers.values()):
            if not driver.leave():
                driver.halt(RunStatus.PAUSED, "its flow was closed")
                driver.over.wait()
        self.services.loop.close()
        self.services.ticker.close()
        self.services.pacer.close()
        self.ownership.close()
        self.services.database.dispose()
