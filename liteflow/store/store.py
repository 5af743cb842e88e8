"""What the engine records and loads: one method, one transaction's worth, one legal transition.

Methods that take a `Transaction` are called inside one and state their conditions; the statements are SQLAlchemy Core, compiled once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, exists, func, insert, null, select, update

from liteflow.clock import to_text
from liteflow.errors import LeaseLostError
from liteflow.model import Dispatch, TaskStatus
from liteflow.store.tables import attempts, chunks, constant, contexts, is_one_of, owners, runs, tasks, writes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Executable, Table

    from liteflow.store.database import Database, Transaction

Row = dict[str, Any]
LIVE = ("pending", "running", "behind", "failed")


class Head(NamedTuple):
    """Where a context stands: its last version, and the fencing token of who may commit to it."""

    version: int
    fence: int


class Value(NamedTuple):
    """A committed value: the version that wrote it, and its text; ``None`` for a deleted or absent key."""

    version: int
    text: str | None


ABSENT = Value(0, None)


class LiveTask(NamedTuple):
    """A dispatch that is not final, as recorded."""

    dispatch: Dispatch
    status: TaskStatus
    attempts: int
    merged_into: int | None


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
        version: the context's version afterwards, or ``None`` if no write was committed.
        dispatched: new rows of ``tasks``.
        completed: dispatches that completed.
        moved: dispatches whose status changed otherwise.
        merged: dispatches that another one does the work of.
        begun: attempts recorded as running.
        ended: attempts that came to nothing: new rows of ``attempts``.
        writes: new rows of ``writes``, committed or open.
        kept: attempts whose open writes and chunks are committed.
        lost: attempts whose open writes and chunks are lost.
        chunks: new rows of ``chunks``.
        run: the columns of the run's row that change.
    """

    version: int | None = None
    dispatched: list[Row] = field(default_factory=list)
    completed: list[Row] = field(default_factory=list)
    moved: list[Row] = field(default_factory=list)
    merged: list[Row] = field(default_factory=list)
    begun: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    writes: list[Row] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    lost: list[Row] = field(default_factory=list)
    chunks: list[Row] = field(default_factory=list)
    run: Row = field(default_factory=dict)


def _insert(table: Table, *columns: str) -> Executable:
    return insert(table).values({name: bindparam(name) for name in columns})


def _of_attempt(table: Table) -> Any:  # noqa: ANN401 - a column expression, whose type SQLAlchemy does not name
    return and_(
        table.c.run_id == bindparam("of_run"),
        table.c.number == bindparam("of_number"),
        table.c.attempt == bindparam("of_attempt"),
        table.c.status == constant("open"),
    )


_THIS_TASK = and_(tasks.c.run_id == bindparam("of_run"), tasks.c.number == bindparam("of_number"))

CONTEXT_HEAD = select(contexts.c.version, contexts.c.fence).where(contexts.c.id == bindparam("id")).with_for_update()
NEW_CONTEXT = _insert(contexts, "id", "version", "fence", "created_at")
SET_VERSION = update(contexts).where(contexts.c.id == bindparam("of_id")).values(version=bindparam("to_version"))
RAISE_FENCE = update(contexts).where(contexts.c.id == bindparam("of_id")).values(fence=contexts.c.fence + constant(1))

NEW_RUN = _insert(
    runs, "id", "flow", "context_id", "start_task", "inputs", "status", "priority", "owner_id", "crashes", "base_version",
    "seq_reserved", "created_at", "started_at",
)  # fmt: skip
CLAIM_RUN = (
    update(runs)
    .where(runs.c.id == bindparam("of_id"), is_one_of(runs.c.status, "queued", "running", "waiting", "paused", "failed"))
    .values(
        status=constant("running"),
        reason=null(),
        failed_task=null(),
        finished_at=null(),
        owner_id=bindparam("by_owner"),
        crashes=runs.c.crashes + bindparam("more_crashes"),
        seq_reserved=bindparam("to_seq"),
    )
)
LIVE_RUN_IN = select(runs.c.id, runs.c.owner_id).where(
    runs.c.context_id == bindparam("context_id"), is_one_of(runs.c.status, "running", "waiting")
)

NEW_TASK = _insert(
    tasks, "run_id", "number", "task_id", "instance", "key", "inputs", "status", "dispatched_by", "merged_into", "attempts",
    "failures", "dispatched_at",
)  # fmt: skip
COMPLETE_TASK = (
    update(tasks)
    .where(_THIS_TASK)
    .values(
        status=constant("completed"),
        **{
            name: bindparam(f"to_{name}")
            for name in ("attempts", "reads", "output_version", "output_seq", "leaf", "started_at", "finished_at")
        },
    )
)
MOVE_TASK = (
    update(tasks).where(_THIS_TASK).values(status=bindparam("to_status"), attempts=bindparam("to_attempts"), merged_into=null())
)
MERGE_TASK = update(tasks).where(_THIS_TASK).values(status=constant("merged"), merged_into=bindparam("to_merged_into"))
BEGIN_TASK = (
    update(tasks)
    .where(_THIS_TASK)
    .values(status=constant("running"), attempts=bindparam("to_attempts"), started_at=bindparam("to_started_at"))
)
NEW_ATTEMPT = _insert(
    attempts, "run_id", "number", "attempt", "status", "error_type", "error_message", "traceback", "reads", "started_at",
    "ended_at",
)  # fmt: skip
NEW_WRITE = _insert(
    writes, "context_id", "version", "key", "value", "status", "run_id", "number", "attempt", "position", "written_at"
)
KEEP_WRITES = (
    update(writes).where(_of_attempt(writes)).values(status=constant("committed"), version=bindparam("first_version") + writes.c.position)
)
LOSE_WRITES = update(writes).where(_of_attempt(writes)).values(status=constant("lost"))
NEW_CHUNK = _insert(chunks, "run_id", "seq", "number", "attempt", "task_id", "value", "status", "written_at")
KEEP_CHUNKS = update(chunks).where(_of_attempt(chunks)).values(status=constant("committed"))
LOSE_CHUNKS = update(chunks).where(_of_attempt(chunks)).values(status=constant("lost"))

VALUE = (
    select(writes.c.version, writes.c.value)
    .where(writes.c.context_id == bindparam("context_id"), writes.c.key == bindparam("key"), writes.c.version.is_not(None))
    .order_by(writes.c.version.desc())
    .limit(constant(1))
)
WRITES_SINCE = (
    select(writes.c.version, writes.c.key, writes.c.value)
    .where(writes.c.context_id == bindparam("context_id"), writes.c.version > bindparam("since"))
    .order_by(writes.c.version)
)
KEYS = (
    select(writes.c.key, func.max(writes.c.version))
    .where(writes.c.context_id == bindparam("context_id"), writes.c.version.is_not(None))
    .group_by(writes.c.key)
    .order_by(func.min(writes.c.version))
)
OPEN_VALUE = (
    select(writes.c.value)
    .where(writes.c.context_id == bindparam("context_id"), writes.c.key == bindparam("key"), writes.c.status == constant("open"))
    .order_by(writes.c.id.desc())
    .limit(constant(1))
)

LIVE_TASKS = (
    select(
        tasks.c.number, tasks.c.task_id, tasks.c.instance, tasks.c.inputs, tasks.c.dispatched_by, tasks.c.status,
        tasks.c.attempts, tasks.c.merged_into,
    )
    .where(tasks.c.run_id == bindparam("run_id"), is_one_of(tasks.c.status, *LIVE))
    .order_by(tasks.c.number)
)  # fmt: skip
_live = tasks.alias("live")
PRODUCED = (
    select(tasks.c.key)
    .distinct()
    .where(
        tasks.c.run_id == bindparam("run_id"),
        tasks.c.status == constant("completed"),
        (tasks.c.instance == constant(1))
        | exists().where(_live.c.run_id == tasks.c.run_id, _live.c.key == tasks.c.key, is_one_of(_live.c.status, *LIVE)),
    )
)
SPAWNED = (
    select(tasks.c.task_id, func.max(tasks.c.instance))
    .where(tasks.c.run_id == bindparam("run_id"), tasks.c.instance > constant(1))
    .group_by(tasks.c.task_id)
)
LAST_NUMBER = select(func.max(tasks.c.number)).where(tasks.c.run_id == bindparam("run_id"))
LOST_ATTEMPTS = insert(attempts).from_select(
    ["run_id", "number", "attempt", "status", "started_at", "ended_at"],
    select(tasks.c.run_id, tasks.c.number, tasks.c.attempts, bindparam("how"), tasks.c.started_at, bindparam("lost_at")).where(
        tasks.c.run_id == bindparam("of_run"), tasks.c.status == constant("running")
    ),
)
LOSE_ALL_WRITES = update(writes).where(writes.c.run_id == bindparam("of_run"), writes.c.status == constant("open")).values(status=constant("lost"))
LOSE_ALL_CHUNKS = update(chunks).where(chunks.c.run_id == bindparam("of_run"), chunks.c.status == constant("open")).values(status=constant("lost"))

NEW_OWNER = _insert(owners, "id", "machine", "pid", "process_started", "leased_until")
RENEW_LEASE = (
    update(owners)
    .where(owners.c.id == bindparam("of_id"), owners.c.ended_at.is_(None))
    .values(leased_until=bindparam("to_leased_until"))
)
END_OWNER = update(owners).where(owners.c.id == bindparam("of_id")).values(ended_at=bindparam("at"))
OWNER = select(owners).where(owners.c.id == bindparam("id"))


class Store:
    """The engine's view of a database.

    Args:
        database: an open `Database`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def _run(self, tx: Transaction, statement: Executable, **params: object) -> Any:  # noqa: ANN401 - a DBAPI cursor
        return tx.execute(self.database.compile(statement), params)

    def _many(self, tx: Transaction, statement: Executable, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            tx.execute(self.database.compile(statement), rows[0])
        elif rows:
            tx.executemany(self.database.compile(statement), rows)

    # -- contexts --------------------------------------------------------------------------------------------------

    def head(self, tx: Transaction, context_id: str) -> Head | None:
        """Return where a context stands, and keep others from moving it until the transaction ends; ``None`` if there is none."""
        row = self._run(tx, CONTEXT_HEAD, id=context_id).fetchone()
        return None if row is None else Head(*row)

    def open_context(self, tx: Transaction, context_id: str, *, now: datetime) -> Head:
        """Return where a context stands; one that is new begins at version 0."""
        head = self.head(tx, context_id)
        if head is None:
            head = Head(0, 0)
            self._run(tx, NEW_CONTEXT, id=context_id, version=0, fence=0, created_at=to_text(now))
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
        self._many(tx, NEW_WRITE, rows)
        version = first + len(rows) - 1
        self._run(tx, SET_VERSION, of_id=context_id, to_version=version)
        return version

    def value(self, tx: Transaction, context_id: str, key: str) -> Value:
        """Return the newest committed value of a key, or `ABSENT`."""
        row = self._run(tx, VALUE, context_id=context_id, key=key).fetchone()
        return ABSENT if row is None else Value(*row)

    def open_value(self, tx: Transaction, context_id: str, key: str) -> str | None:
        """Return what a running attempt has last written to a key and not committed yet."""
        row = self._run(tx, OPEN_VALUE, context_id=context_id, key=key).fetchone()
        return None if row is None else row[0]

    def keys(self, tx: Transaction, context_id: str) -> dict[str, int]:
        """Return the version of the newest write of each key, deletions too, in the order the keys were first written."""
        return dict(self._run(tx, KEYS, context_id=context_id).fetchall())

    def writes_since(self, tx: Transaction, context_id: str, version: int) -> list[tuple[int, str, str | None]]:
        """Return the committed writes after *version*: version, key and text, in order."""
        return [tuple(row) for row in self._run(tx, WRITES_SINCE, context_id=context_id, since=version).fetchall()]

    # -- runs ------------------------------------------------------------------------------------------------------

    def live_run_in(self, tx: Transaction, context_id: str) -> tuple[str, str | None] | None:
        """Return the id and the owner of the run that holds a context, if one does."""
        row = self._run(tx, LIVE_RUN_IN, context_id=context_id).fetchone()
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
        self._run(tx, NEW_RUN, **run)
        self._run(tx, RAISE_FENCE, of_id=run["context_id"])
        return fence + 1

    def claim_run(self, tx: Transaction, run: Row, owner: str, *, now: datetime, crashed: bool, seq_reserved: int) -> Head | None:
        """Take a run that nobody works on, and shut out whoever did: its attempts are lost, its token is void.

        A run that is completed or cancelled cannot be claimed. The caller has made sure that its owner is gone.

        Args:
            tx: the transaction.
            run: its row, as read in this transaction.
            owner: who takes it.
            now: the current time.
            crashed: whether its last owner died.
            seq_reserved: the highest stream number that the new owner may show.

        Returns:
            Where its context stands now, with the new owner's token; ``None`` if it is final.
        """
        run_id, context_id = run["id"], run["context_id"]
        claimed = self._run(tx, CLAIM_RUN, of_id=run_id, by_owner=owner, more_crashes=int(crashed), to_seq=seq_reserved)
        if claimed.rowcount == 0:
            return None
        self._run(tx, LOST_ATTEMPTS, of_run=run_id, how="lost", lost_at=to_text(now))
        self._run(tx, LOSE_ALL_WRITES, of_run=run_id)
        self._run(tx, LOSE_ALL_CHUNKS, of_run=run_id)
        self._run(tx, RAISE_FENCE, of_id=context_id)
        return self.head(tx, context_id)

    def load_run(self, tx: Transaction, run_id: str) -> LiveRun:
        """Return the live part of a run."""
        entries = [
            LiveTask(Dispatch(number, task_id, instance, inputs, by), TaskStatus(status), tried, merged_into)
            for number, task_id, instance, inputs, by, status, tried, merged_into in self._run(
                tx, LIVE_TASKS, run_id=run_id
            ).fetchall()
        ]
        return LiveRun(
            entries,
            dict(self._run(tx, SPAWNED, run_id=run_id).fetchall()),
            [row[0] for row in self._run(tx, PRODUCED, run_id=run_id).fetchall()],
            (self._run(tx, LAST_NUMBER, run_id=run_id).fetchone()[0] or 0) + 1,
        )

    def record(self, tx: Transaction, run_id: str, context_id: str, batch: Batch) -> None:
        """Record what happened in a run. The caller has compared the context's fencing token in this transaction."""
        many = self._many
        many(tx, NEW_WRITE, batch.writes)
        many(tx, COMPLETE_TASK, batch.completed)
        many(tx, NEW_TASK, batch.dispatched)
        many(tx, MERGE_TASK, batch.merged)
        many(tx, MOVE_TASK, batch.moved)
        many(tx, BEGIN_TASK, batch.begun)
        many(tx, NEW_ATTEMPT, batch.ended)
        many(tx, NEW_CHUNK, batch.chunks)
        if batch.kept:
            many(tx, KEEP_WRITES, batch.kept)
            many(tx, KEEP_CHUNKS, [{k: v for k, v in row.items() if k != "first_version"} for row in batch.kept])
        many(tx, LOSE_WRITES, batch.lost)
        many(tx, LOSE_CHUNKS, batch.lost)
        if batch.run:
            tx.execute(self.database.compile(_update_run(tuple(batch.run))), {"of_id": run_id, **batch.run})
        if batch.version is not None:
            self._run(tx, SET_VERSION, of_id=context_id, to_version=batch.version)

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
        self._run(tx, NEW_OWNER, **owner)

    def renew_lease(self, tx: Transaction, owner: str, *, until: datetime) -> bool:
        """Prolong the lease of a process; return whether it still had one."""
        return bool(self._run(tx, RENEW_LEASE, of_id=owner, to_leased_until=to_text(until)).rowcount)

    def end_owner(self, tx: Transaction, owner: str, *, now: datetime) -> None:
        """Give up all runs of a process that ends: whoever wants may take them."""
        self._run(tx, END_OWNER, of_id=owner, at=to_text(now))

    def owner(self, tx: Transaction, owner: str) -> Row | None:
        """Return the row of a process."""
        row = self._run(tx, OWNER, id=owner).fetchone()
        return None if row is None else dict(zip(owners.c.keys(), row, strict=True))


_RUN_UPDATES: dict[tuple[str, ...], Executable] = {}


def _update_run(columns: tuple[str, ...]) -> Executable:
    """Return the statement that sets these columns of a run, built once for each set of columns."""
    statement = _RUN_UPDATES.get(columns)
    if statement is None:
        values = {name.removeprefix("to_"): bindparam(name) for name in columns}
        statement = _RUN_UPDATES[columns] = update(runs).where(runs.c.id == bindparam("of_id")).values(values)
    return statement
