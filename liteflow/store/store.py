"""What the engine records and loads: one method, one transaction's worth, one legal transition.

Methods that take a `Transaction` are called inside one and state their conditions; the statements are Core, compiled once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from liteflow.clock import from_text, to_text
from liteflow.codec import decode
from liteflow.errors import LeaseLostError
from liteflow.model import ABSENT, Dispatch, RunStatus, TaskStatus, Value
from liteflow.store import statements as sql
from liteflow.store.tables import owners

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Executable

    from liteflow.store.database import Database, Transaction

Row = dict[str, Any]


class Head(NamedTuple):
    """Where a context stands: its last version, and the fencing token of who may commit to it."""

    version: int
    fence: int


@dataclass(slots=True)
class LiveTask:
    """A dispatch that is not final, as recorded; *members* are the live dispatches that it waits for as their join."""

    dispatch: Dispatch
    status: TaskStatus
    attempts: int
    merged_into: int | None
    failures: int
    not_before: datetime | None
    wait_for: tuple[str, ...] = ()
    missing: set[str] = field(default_factory=set)
    join: int | None = None
    members: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The live part of a run, all that a process needs to go on with it."""

    entries: list[LiveTask]
    spawned: dict[str, int]
    produced: list[str]
    next_number: int


@dataclass(slots=True)
class Batch:
    """What one transaction records of one run; each list holds the rows of one statement.

    Attributes:
        dispatched: new rows of ``tasks``.
        completed: dispatches that completed.
        moved: dispatches whose status changed otherwise.
        merged: dispatches that another one does the work of.
        begun: attempts recorded as running.
        ended: attempts that came to nothing: new rows of ``attempts``.
        writes: new rows of ``writes``, committed or open.
        rewritten: open writes whose value has changed before their commit.
        kept: attempts whose open writes and chunks are committed.
        lost: attempts whose open writes and chunks are lost.
        chunks: new rows of ``chunks``.
        steps: new rows of ``steps``.
        cancels: whether all that is not completed is cancelled.
        run: the columns of the run's row that change.
    """

    dispatched: list[Row] = field(default_factory=list)
    completed: list[Row] = field(default_factory=list)
    moved: list[Row] = field(default_factory=list)
    merged: list[Row] = field(default_factory=list)
    begun: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    writes: list[Row] = field(default_factory=list)
    rewritten: list[Row] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    lost: list[Row] = field(default_factory=list)
    chunks: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    cancels: bool = False
    run: Row = field(default_factory=dict)


class Store:
    """The engine's view of a database.

    Args:
        database: an open `Database`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def _run(self, tx: Transaction, statement: Executable, **params: object) -> Any:  # noqa: ANN401 - a DBAPI cursor
        text, _, values = self.database.compile(statement)
        return tx.execute(text, values(params))

    def _many(self, tx: Transaction, statement: Executable, rows: Sequence[Row]) -> None:
        text, _, values = self.database.compile(statement)
        if len(rows) == 1:
            tx.execute(text, values(rows[0]))
        else:
            tx.executemany(text, map(values, rows))

    # -- contexts --------------------------------------------------------------------------------------------------

    def head(self, tx: Transaction, context_id: str) -> Head | None:
        """Return where a context stands, and keep others from moving it until the transaction ends; ``None`` if there is none."""
        row = self._run(tx, sql.CONTEXT_HEAD, id=context_id).fetchone()
        return None if row is None else Head(*row)

    def open_context(self, tx: Transaction, context_id: str, *, now: datetime) -> Head:
        """Return where a context stands; one that is new begins at version 0."""
        head = self.head(tx, context_id)
        if head is None:
            head = Head(0, 0)
            self._run(tx, sql.NEW_CONTEXT, id=context_id, fence=0, created_at=to_text(now))
        return head

    def set_values(self, tx: Transaction, context_id: str, items: Iterable[tuple[str, str | None]], *, now: datetime) -> int:
        """Commit writes that come from outside any task, in order.

        Returns:
            The context's version afterwards.
        """
        first = self.open_context(tx, context_id, now=now).version + 1
        rows = [
            {"context_id": context_id, "version": version, "key": key, "value": text, "status": "committed", "run_id": None,
             "number": None, "attempt": None, "position": None, "written_at": to_text(now)}
            for version, (key, text) in enumerate(items, first)
        ]  # fmt: skip
        self._many(tx, sql.NEW_WRITE, rows)
        return first + len(rows) - 1

    def value(self, tx: Transaction, context_id: str, key: str) -> Value:
        """Return the newest committed value of a key, or `ABSENT`."""
        row = self._run(tx, sql.VALUE, context_id=context_id, key=key).fetchone()
        return ABSENT if row is None else Value(*row)

    def open_value(self, tx: Transaction, context_id: str, key: str) -> Value | None:
        """Return what a running attempt has last written to a key and not committed yet, ``None`` for nothing."""
        row = self._run(tx, sql.OPEN_VALUE, context_id=context_id, key=key).fetchone()
        return None if row is None else Value(0, row[0])

    def open_keys(self, tx: Transaction, context_id: str) -> list[str]:
        """Return the keys that running attempts have written and not committed yet, in the order of their first writes."""
        return [row[0] for row in self._run(tx, sql.OPEN_KEYS, context_id=context_id).fetchall()]

    def keys(self, tx: Transaction, context_id: str) -> dict[str, int]:
        """Return the keys that have a value, each with its version, in the order they were first written."""
        return dict(self._run(tx, sql.KEYS, context_id=context_id).fetchall())

    def writes_since(self, tx: Transaction, context_id: str, version: int) -> list[tuple[int, str, str | None]]:
        """Return the committed writes after *version*: version, key and text, in order."""
        return [tuple(row) for row in self._run(tx, sql.WRITES_SINCE, context_id=context_id, since=version).fetchall()]

    def was_written(self, tx: Transaction, context_id: str, key: str, *, since: int) -> bool:
        """Whether a value was committed to a key after version *since*."""
        return self._run(tx, sql.WAS_WRITTEN, context_id=context_id, key=key, since=since).fetchone() is not None

    # -- runs ------------------------------------------------------------------------------------------------------

    def live_run_in(self, tx: Transaction, context_id: str) -> tuple[str, str | None] | None:
        """Return the id and the owner of the run that holds a context, if one does."""
        row = self._run(tx, sql.LIVE_RUN_IN, context_id=context_id).fetchone()
        return None if row is None else (row[0], row[1])

    def create_run(self, tx: Transaction, run: Row, *, fence: int) -> int:
        """Record a run as running and owned; nobody else may hold its context.

        Args:
            tx: the transaction.
            run: the columns of its row.
            fence: the context's fencing token before.

        Returns:
            The fencing token with which its owner commits.
        """
        self._run(tx, sql.NEW_RUN, **run)
        self._run(tx, sql.RAISE_FENCE, of_id=run["context_id"])
        return fence + 1

    def claim_run(self, tx: Transaction, run: Row, owner: str, *, now: datetime, seq_reserved: int) -> Head | None:
        """Take a run that nobody works on, and shut out whoever did: its attempts are lost, its token is void.

        A run that is completed or cancelled cannot be claimed. The caller has made sure that its owner is gone.

        Args:
            tx: the transaction.
            run: its row, as read in this transaction.
            owner: who takes it.
            now: the current time.
            seq_reserved: the highest stream number that the new owner may show.

        Returns:
            Where its context stands now, with the new owner's token; ``None`` if it is final.
        """
        head = self.open_context(tx, run["context_id"], now=now)
        claimed = self._run(
            tx, sql.CLAIM_RUN, of_id=run["id"], by_owner=owner,
            to_crashes=self.crashes(run, head.version) if run["status"] == RunStatus.RUNNING else 0,
            to_progress=head.version, to_seq=seq_reserved,
        )  # fmt: skip
        return self._shut_out(tx, run, now=now) if claimed.rowcount else None

    @staticmethod
    def crashes(run: Row, version: int) -> int:
        """Return how often in a row a run has brought down its process without completing anything.

        Args:
            run: its row.
            version: where its context stands.
        """
        if run["status"] == RunStatus.PAUSED:
            return int(run["crashes"])  # not 0 if that is why it is paused
        if run["status"] != RunStatus.RUNNING:
            return 0  # nothing of it ran
        return run["crashes"] + 1 if run["progress_version"] == version else 1

    def halt_run(  # noqa: PLR0913 - how a run stands, and why
        self, tx: Transaction, run: Row, status: RunStatus, reason: str, *, now: datetime, crashes: int = 0
    ) -> bool:
        """Let a run that nobody works on stand in *status*, paused or cancelled; its attempts are lost.

        Args:
            tx: the transaction.
            run: its row, as read in this transaction.
            status: paused or cancelled.
            reason: why it stands there.
            now: the current time.
            crashes: how often in a row it has brought down its process, if that is why.

        Returns:
            Whether it does: one that is completed or cancelled cannot be halted.
        """
        cancels = status is RunStatus.CANCELLED
        halted = self._run(
            tx, sql.HALT_RUN, of_id=run["id"], to_status=status.value, to_reason=reason,
            to_finished_at=to_text(now) if cancels else None, to_crashes=crashes,
        )  # fmt: skip
        if not halted.rowcount:
            return False
        self._shut_out(tx, run, now=now)
        if cancels:
            self._run(tx, sql.CANCEL_TASKS, of_run=run["id"])
        return True

    def _shut_out(self, tx: Transaction, run: Row, *, now: datetime) -> Head:
        """End what a former owner had under way: its attempts are lost, its token is void."""
        run_id = run["id"]
        self._run(tx, sql.LOST_ATTEMPTS, of_run=run_id, how="lost", lost_at=to_text(now))
        self._run(tx, sql.FREE_TASKS, of_run=run_id)
        self._run(tx, sql.LOSE_ALL_WRITES, of_run=run_id)
        self._run(tx, sql.LOSE_ALL_CHUNKS, of_run=run_id)
        self._run(tx, sql.RAISE_FENCE, of_id=run["context_id"])
        return self.open_context(tx, run["context_id"], now=now)

    def load_run(self, tx: Transaction, run: Row) -> LiveRun:
        """Return the live part of a run, given its row."""
        run_id = run["id"]
        entries = []
        for row in self._run(tx, sql.LIVE_TASKS, run_id=run_id).fetchall():
            number, task_id, instance, inputs, by, status, tried, merged_into, failures, not_before, wait_for, join, joins = row
            keys = tuple(decode(wait_for)) if wait_for else ()
            missing = {k for k in keys if not self.was_written(tx, run["context_id"], k, since=run["base_version"])}
            entries.append(LiveTask(
                Dispatch(number, task_id, instance, inputs, by, joins), TaskStatus(status), tried, merged_into, failures,
                not_before and from_text(not_before), keys, missing, join,
            ))  # fmt: skip
        self._load_members(tx, run_id, {entry.dispatch.number: entry for entry in entries})
        return LiveRun(
            entries,
            dict(self._run(tx, sql.SPAWNED, run_id=run_id).fetchall()),
            [row[0] for row in self._run(tx, sql.PRODUCED, run_id=run_id).fetchall()],
            (self._run(tx, sql.LAST_NUMBER, run_id=run_id).fetchone()[0] or 0) + 1,
        )

    def _load_members(self, tx: Transaction, run_id: str, live: dict[int, LiveTask]) -> None:
        """Tell each join which live dispatches it waits for: its members, and those that do the work of merged ones."""
        for number, entry in live.items():
            if entry.join is not None and entry.join in live:
                live[entry.join].members.add(number)
            for (into,) in self._members(tx, sql.MERGED_MEMBERS, entry.dispatch, run_id=run_id) if entry.dispatch.joins else ():
                host = into
                while host is not None and host not in live:
                    host = self._run(tx, sql.OUTPUT, run_id=run_id, context_id="", number=host).fetchone()[0]
                if host is not None:
                    entry.members.add(host)

    def _members(self, tx: Transaction, statement: Executable, join: Dispatch, **params: object) -> list[Sequence[Any]]:
        """Return a row for each dispatch that another one joins: those right before it."""
        first = join.number - (join.joins or 0)
        return list(self._run(tx, statement, first=first, join=join.number, **params).fetchall())

    def outputs_of_members(self, tx: Transaction, run_id: str, context_id: str, join: Dispatch) -> list[tuple[str, str]]:
        """Return keys and outputs that a join finds, in dispatch order; of merged dispatches, those of who did their work."""
        outputs = []
        for row in self._members(tx, sql.OUTPUTS_OF_MEMBERS, join, run_id=run_id, context_id=context_id):
            into, key, text = row
            while text is None:
                into, key, text = self._run(tx, sql.OUTPUT, run_id=run_id, context_id=context_id, number=into).fetchone()
            outputs.append((key, text))
        return outputs

    def outputs_of_task(self, tx: Transaction, run_id: str, context_id: str, task_id: str) -> list[tuple[str, str]]:
        """Return keys and last outputs of the instances of a task in a run, in the order of the dispatches that gave them."""
        rows = self._run(tx, sql.OUTPUTS_OF_TASK, run_id=run_id, context_id=context_id, task_id=task_id).fetchall()
        return [(row[0], row[1]) for row in rows]

    def steps(self, tx: Transaction, run_id: str, number: int) -> dict[str, str]:
        """Return the results of the steps that attempts of a dispatch have recorded, by name."""
        return dict(self._run(tx, sql.STEPS, run_id=run_id, number=number).fetchall())

    def record(self, tx: Transaction, run_id: str, batch: Batch) -> None:
        """Record what happened in a run. The caller has compared the context's fencing token in this transaction."""
        for statement, rows in (
            (sql.NEW_WRITE, batch.writes),
            (sql.COMPLETE_TASK, batch.completed),
            (sql.NEW_TASK, batch.dispatched),
            (sql.MERGE_TASK, batch.merged),
            (sql.MOVE_TASK, batch.moved),
            (sql.BEGIN_TASK, batch.begun),
            (sql.NEW_ATTEMPT, batch.ended),
            (sql.NEW_CHUNK, batch.chunks),
            (sql.REWRITE, batch.rewritten),
            (sql.KEEP_WRITES, batch.kept),
            (sql.KEEP_CHUNKS, batch.kept),
            (sql.LOSE_WRITES, batch.lost),
            (sql.LOSE_CHUNKS, batch.lost),
            (sql.NEW_STEP, batch.steps),
        ):
            if rows:
                self._many(tx, statement, rows)
        if batch.cancels:
            self._run(tx, sql.CANCEL_TASKS, of_run=run_id)
        if batch.run:
            self._run(tx, sql.update_run(tuple(batch.run)), of_id=run_id, **batch.run)

    def check_fence(self, tx: Transaction, run_id: str, context_id: str, fence: int) -> int:
        """Return the context's version, if this fencing token still holds.

        Raises:
            LeaseLostError: another process has taken the run over.
        """
        head = self.head(tx, context_id)
        if head is None or head.fence != fence:
            raise LeaseLostError(run_id)
        return head.version

    # -- owners ----------------------------------------------------------------------------------------------------

    def register_owner(self, tx: Transaction, owner: Row) -> None:
        """Record a process that may own runs."""
        self._run(tx, sql.NEW_OWNER, **owner)

    def renew_lease(self, tx: Transaction, owner: str, *, until: datetime) -> bool:
        """Prolong the lease of a process; return whether it still had one."""
        return bool(self._run(tx, sql.RENEW_LEASE, of_id=owner, to_leased_until=to_text(until)).rowcount)

    def end_owner(self, tx: Transaction, owner: str, *, now: datetime) -> None:
        """Give up all runs of a process that ends: whoever wants may take them."""
        self._run(tx, sql.END_OWNER, of_id=owner, to_ended_at=to_text(now))

    def owner(self, tx: Transaction, owner: str) -> Row | None:
        """Return the row of a process."""
        row = self._run(tx, sql.OWNER, id=owner).fetchone()
        return None if row is None else dict(zip(owners.c.keys(), row, strict=True))
