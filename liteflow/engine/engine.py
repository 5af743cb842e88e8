"""The runs of one flow in this process: starting them, taking them up, finding them."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from liteflow.clock import new_id, to_text
from liteflow.codec import check_key, decode, encode
from liteflow.engine.decision import Entry, Request
from liteflow.engine.driver import RunDriver
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
    SerializationError,
    TaskNotFoundError,
)
from liteflow.model import RunStatus
from liteflow.store.queries import Queries
from liteflow.store.store import Store
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from liteflow.clock import Clock
    from liteflow.engine.task import Task
    from liteflow.executor.base import Executor
    from liteflow.store.database import Database, Transaction

Row = dict[str, Any]
Begun = TypeVar("Begun", bound="RunDriver | Row")


class Start(NamedTuple):
    """How a run begins: what makes two starts under one id the same."""

    task_id: str
    inputs: Mapping[str, Any] | None

    def is_of(self, run: Row) -> bool:
        """Whether *run* was started like this."""
        return run["start_task"] == self.task_id and same(run["inputs"], self.encoded)

    @property
    def encoded(self) -> str | None:
        """The inputs as text."""
        return None if self.inputs is None else encode(dict(self.inputs))


def same(one: str | None, other: str | None) -> bool:
    """Whether two encoded values are equal."""
    if one is None or other is None or one == other:
        return one == other
    return bool(decode(one) == decode(other))


class Engine:
    """What the runs of one flow work with, in this process.

    Args:
        flow: the flow's name.
        tasks: the flow's tasks, by id; may change while runs are live.
        executor: where tasks run.
        database: open.
        clock: its time.
    """

    def __init__(self, flow: str, tasks: dict[str, Task], executor: Executor, database: Database, clock: Clock) -> None:
        self.flow = flow
        self.services = Services(tasks, executor, database, Store(database), Queries(database), clock, Ticker(clock))
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
        items = self._encoded_items(start.inputs)
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

    @staticmethod
    def _encoded_items(inputs: Mapping[str, Any] | None) -> list[tuple[str, str]]:
        items = []
        for key, value in (inputs or {}).items():
            try:
                items.append((check_key(key), encode(value)))
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
        row = {
            "id": run_id, "flow": self.flow, "context_id": context_id, "start_task": start.task_id, "inputs": start.encoded,
            "status": "running", "priority": 0, "owner_id": self.ownership.id, "crashes": 0, "base_version": head.version,
            "seq_reserved": FIRST_BLOCK, "created_at": to_text(now), "started_at": to_text(now),
        }  # fmt: skip
        fence = store.create_run(tx, row, fence=head.fence)
        state = RunState(same)
        journal = Journal(run_id, context_id, now)
        journal.decided(state.start(Request(start.task_id, start.encoded)), state.live)
        store.record(tx, run_id, context_id, journal.batch)
        feed = Feed(0, FIRST_BLOCK)
        return RunDriver(self.services, self._ended, run_id, context_id, fence, state, Values(version), feed, copy_context())

    def _refuse_busy(self, tx: Transaction, context_id: str) -> None:
        holder = self.services.store.live_run_in(tx, context_id)
        if holder is not None:
            raise ContextBusyError(context_id, holder[0], interrupted=self._is_free(tx, *holder))

    def _is_free(self, tx: Transaction, run_id: str, owner: str | None) -> bool:
        """Whether nobody is at work on a live run."""
        if owner == self.ownership.id:
            return run_id not in self.drivers
        return self.ownership.is_gone(None if owner is None else self.services.store.owner(tx, owner))

    def take(self, run_id: str) -> RunDriver:
        """Take up a run that was interrupted, paused or failed.

        Raises:
            RunNotFoundError: no run has this id.
            RunConflictError: it is completed, cancelled, live, or of another flow.
            ContextBusyError: another run holds its context by now.
        """
        return self._begin(run_id, lambda tx: self._take(tx, run_id))

    def _take(self, tx: Transaction, run_id: str) -> RunDriver:
        run = self.services.queries.run(run_id, tx)
        if run is None:
            raise RunNotFoundError(run_id, self.services.database.url_masked)
        self._refuse_to_take(tx, run)
        status = RunStatus(run["status"])
        if not status.holds_context:
            self._refuse_busy(tx, run["context_id"])
        self.ownership.register(tx)
        store, last = self.services.store, run["seq_reserved"]
        feed = Feed(last, last + FIRST_BLOCK)
        now, context_id = self.services.clock.now(), run["context_id"]
        head = store.claim_run(tx, run, self.ownership.id, now=now, seq_reserved=feed.reserved)
        if head is None:  # refused above
            raise RunConflictError(run_id, f"is {status}")
        state = self.load(tx, run_id)
        journal = Journal(run_id, context_id, now)
        journal.decided(state.resume(), state.live)
        store.record(tx, run_id, context_id, journal.batch)
        return RunDriver(
            self.services, self._ended, run_id, context_id, head.fence, state, Values(head.version), feed, copy_context()
        )

    def load(self, tx: Transaction, run_id: str, *, failed: int | None = None) -> RunState:
        """Return the state of a run as recorded."""
        live = self.services.store.load_run(tx, run_id)
        return RunState.load(
            [
                Entry(t.dispatch, t.status, t.attempts, t.merged_into, failures=t.failures, not_before=t.not_before)
                for t in live.entries
            ],
            spawned=live.spawned, produced=live.produced, next_number=live.next_number, failed=failed, equal=same,
        )  # fmt: skip

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
                    taken.append(self.take(run["id"]))
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
        """Let live runs stand still, and end the ownership of this process."""
        for driver in list(self.drivers.values()):
            driver.halt(RunStatus.PAUSED, "its flow was closed")
            driver.over.wait()
        self.services.ticker.close()
        self.ownership.close()
        self.services.database.dispose()
