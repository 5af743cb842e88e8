"""Reads for people: runs, tasks, histories and streams, as `Run`, `Context` and the command line show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, select, union_all

from liteflow.store.tables import attempts, chunks, constant, runs, tasks, writes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable

    from liteflow.store.database import Database, Transaction

Row = dict[str, Any]

RUN = select(runs).where(runs.c.id == bindparam("id"))
RUNS = (
    select(runs)
    .where(runs.c.flow == bindparam("flow"), runs.c.status == func.coalesce(bindparam("status"), runs.c.status))
    .order_by(runs.c.created_at.desc(), runs.c.id.desc())
    .limit(bindparam("limit"))
)

_last = (
    select(tasks.c.key, func.max(tasks.c.number).label("number"))
    .where(tasks.c.run_id == bindparam("run_id"), tasks.c.status == constant("completed"))
    .group_by(tasks.c.key)
    .subquery()
)
RESULT = (
    select(tasks.c.key, writes.c.value)
    .join(_last, tasks.c.number == _last.c.number)
    .join(runs, runs.c.id == tasks.c.run_id)
    .join(writes, and_(writes.c.context_id == runs.c.context_id, writes.c.version == tasks.c.output_version))
    .where(tasks.c.run_id == bindparam("run_id"), tasks.c.leaf.is_(True))
    .order_by(tasks.c.number)
)

_last_error = (
    select(attempts.c.run_id, attempts.c.number, func.max(attempts.c.attempt).label("attempt"))
    .where(attempts.c.run_id == bindparam("run_id"), attempts.c.error_type.is_not(None))
    .group_by(attempts.c.run_id, attempts.c.number)
    .subquery()
)
TASKS = (
    select(
        tasks.c.number, tasks.c.key, tasks.c.task_id, tasks.c.status, tasks.c.attempts, tasks.c.inputs, tasks.c.dispatched_by,
        tasks.c.merged_into, tasks.c.dispatched_at, tasks.c.started_at, tasks.c.finished_at, tasks.c.not_before,
        tasks.c.wait_for, attempts.c.error_type, attempts.c.error_message, attempts.c.traceback,
    )
    .select_from(tasks)
    .outerjoin(_last_error, and_(_last_error.c.run_id == tasks.c.run_id, _last_error.c.number == tasks.c.number))
    .outerjoin(
        attempts,
        and_(
            attempts.c.run_id == tasks.c.run_id,
            attempts.c.number == tasks.c.number,
            attempts.c.attempt == _last_error.c.attempt,
        ),
    )
    .where(tasks.c.run_id == bindparam("run_id"))
    .order_by(tasks.c.number)
)  # fmt: skip
FAILED_TASK = (
    select(tasks.c.task_id, tasks.c.key, attempts.c.error_type, attempts.c.error_message, attempts.c.traceback)
    .join(runs, and_(runs.c.id == tasks.c.run_id, runs.c.failed_task == tasks.c.number))
    .join(attempts, and_(attempts.c.run_id == tasks.c.run_id, attempts.c.number == tasks.c.number))
    .where(tasks.c.run_id == bindparam("run_id"), attempts.c.error_type.is_not(None))
    .order_by(attempts.c.attempt.desc())
    .limit(constant(1))
)  # fmt: skip

_HISTORY = (
    select(
        writes.c.version, writes.c.key, writes.c.value, writes.c.run_id, tasks.c.key.label("task_key"), writes.c.attempt,
        writes.c.written_at,
    )
    .select_from(writes)
    .outerjoin(tasks, and_(tasks.c.run_id == writes.c.run_id, tasks.c.number == writes.c.number))
    .where(writes.c.context_id == bindparam("context_id"), writes.c.version.is_not(None))
)  # fmt: skip
HISTORY = _HISTORY.where(writes.c.key == bindparam("key")).order_by(writes.c.version)
_newest = (
    select(func.max(writes.c.version).label("version"), func.min(writes.c.version).label("first"))
    .where(writes.c.context_id == bindparam("context_id"), writes.c.version <= bindparam("at"))
    .group_by(writes.c.key)
    .subquery()
)
VALUES_AT = (
    select(writes.c.key, writes.c.value)
    .join(_newest, writes.c.version == _newest.c.version)
    .where(writes.c.context_id == bindparam("context_id"), writes.c.value.is_not(None))
    .order_by(_newest.c.first)
)
CONTEXT_VERSION = select(func.max(writes.c.version)).where(writes.c.context_id == bindparam("id"))

_SPOKEN = (
    select(chunks.c.seq, chunks.c.task_id, tasks.c.key, chunks.c.attempt, chunks.c.value, chunks.c.status)
    .join(tasks, and_(tasks.c.run_id == chunks.c.run_id, tasks.c.number == chunks.c.number))
    .where(chunks.c.run_id == bindparam("run_id"), chunks.c.seq > bindparam("after"), chunks.c.status != constant("lost"))
    .order_by(chunks.c.seq)
    .limit(bindparam("limit"))
    .subquery()
)  # fmt: skip
_OUTPUTS = (
    select(
        tasks.c.output_seq.label("seq"), tasks.c.task_id, tasks.c.key, tasks.c.attempts.label("attempt"), writes.c.value,
        constant("committed").label("status"),
    )
    .join(runs, runs.c.id == tasks.c.run_id)
    .join(writes, and_(writes.c.context_id == runs.c.context_id, writes.c.version == tasks.c.output_version))
    .where(tasks.c.run_id == bindparam("run_id"), tasks.c.output_seq > bindparam("after"))
    .order_by(tasks.c.output_seq)
    .limit(bindparam("limit"))
    .subquery()
)  # fmt: skip
_stream = union_all(select(_SPOKEN), select(_OUTPUTS)).subquery()
STREAM = select(_stream).order_by(_stream.c.seq).limit(bindparam("limit"))


class Queries:
    """Questions about what is recorded; each method is one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _rows(self, tx: Transaction | None, statement: Executable, **params: object) -> list[Sequence[Any]]:
        text, _, values = self._database.compile(statement)
        if tx is not None:
            return list(tx.execute(text, values(params)).fetchall())
        with self._database.read() as reader:
            return list(reader.execute(text, values(params)).fetchall())

    def run(self, run_id: str, tx: Transaction | None = None) -> Row | None:
        """Return the row of a run, or ``None``."""
        rows = self._rows(tx, RUN, id=run_id)
        return dict(zip(runs.c.keys(), rows[0], strict=True)) if rows else None

    def runs(self, flow: str, *, status: str | None = None, limit: int | None = None) -> list[Row]:
        """Return the rows of a flow's runs, newest first."""
        most = 2**31 - 1 if limit is None else limit
        rows = self._rows(None, RUNS, flow=flow, status=status, limit=most)
        return [dict(zip(runs.c.keys(), row, strict=True)) for row in rows]

    def result(self, run_id: str) -> list[tuple[str, str]]:
        """Return instance key and output text of every instance that dispatched nothing, in dispatch order."""
        return [(row[0], row[1]) for row in self._rows(None, RESULT, run_id=run_id)]

    def tasks(self, run_id: str) -> list[Sequence[Any]]:
        """Return one row a dispatch, in order, with the last error of each."""
        return self._rows(None, TASKS, run_id=run_id)

    def failed_task(self, run_id: str) -> Sequence[Any] | None:
        """Return task id, key, and error type, message and traceback of the task that failed a run."""
        rows = self._rows(None, FAILED_TASK, run_id=run_id)
        return rows[0] if rows else None

    def history(self, context_id: str, key: str) -> list[Sequence[Any]]:
        """Return the committed writes of a key, oldest first."""
        return self._rows(None, HISTORY, context_id=context_id, key=key)

    def values_at(self, context_id: str, version: int) -> dict[str, str]:
        """Return the text of every key as of a version."""
        return {row[0]: row[1] for row in self._rows(None, VALUES_AT, context_id=context_id, at=version)}

    def context_version(self, context_id: str) -> int | None:
        """Return the last version of a context, or ``None`` if nothing was written to it."""
        version: int | None = self._rows(None, CONTEXT_VERSION, id=context_id)[0][0]
        return version

    def stream(self, run_id: str, *, after: int, limit: int = 1000) -> list[Sequence[Any]]:
        """Return the recorded chunks with a higher number than *after*, outputs among them, lost ones not.

        Returns:
            Rows of number, task id, key, attempt, text and status (``open`` or ``committed``), in order, at most *limit*.
        """
        return self._rows(None, STREAM, run_id=run_id, after=after, limit=limit)
