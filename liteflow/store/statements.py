"""The statements of the engine's writes and reads: SQLAlchemy Core, compiled once for each dialect.

Parameters of a condition are named ``of_…`` where a column of that name may be set as well, and new values ``to_…``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, insert, null, select, update

from liteflow.store.tables import attempts, chunks, constant, contexts, is_one_of, owners, runs, steps, tasks, writes

if TYPE_CHECKING:
    from sqlalchemy import Executable, Table

LIVE = ("pending", "running", "behind", "failed")


def _insert(table: Table, *columns: str) -> Executable:
    return insert(table).values({name: bindparam(name) for name in columns})


def _new(*columns: str) -> dict[str, Any]:
    return {name: bindparam(f"to_{name}") for name in columns}


def _of_attempt(table: Table) -> Any:  # noqa: ANN401 - a column expression, whose type SQLAlchemy does not name
    return and_(
        table.c.run_id == bindparam("of_run"),
        table.c.number == bindparam("of_number"),
        table.c.attempt == bindparam("of_attempt"),
        table.c.status == constant("open"),
    )


_THIS_TASK = and_(tasks.c.run_id == bindparam("of_run"), tasks.c.number == bindparam("of_number"))

_newest_version = select(func.max(writes.c.version)).where(writes.c.context_id == bindparam("id")).scalar_subquery()
CONTEXT_HEAD = (
    select(func.coalesce(_newest_version, constant(0)), contexts.c.fence)
    .where(contexts.c.id == bindparam("id"))
    .with_for_update(of=contexts)
)
NEW_CONTEXT = _insert(contexts, "id", "fence", "created_at")
RAISE_FENCE = update(contexts).where(contexts.c.id == bindparam("of_id")).values(fence=contexts.c.fence + constant(1))

NEW_RUN = _insert(
    runs, "id", "flow", "context_id", "start_task", "inputs", "status", "priority", "owner_id", "crashes", "progress_version",
    "base_version", "seq_reserved", "created_at", "started_at",
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
        crashes=bindparam("to_crashes"),
        progress_version=bindparam("to_progress"),
        seq_reserved=bindparam("to_seq"),
    )
)
HALT_RUN = (
    update(runs)
    .where(runs.c.id == bindparam("of_id"), is_one_of(runs.c.status, "queued", "running", "waiting", "paused", "failed"))
    .values(_new("status", "reason", "finished_at", "crashes"))
)
CANCEL_TASKS = (
    update(tasks)
    .where(tasks.c.run_id == bindparam("of_run"), is_one_of(tasks.c.status, *LIVE))
    .values(status=constant("cancelled"))
)
LIVE_RUN_IN = select(runs.c.id, runs.c.owner_id).where(
    runs.c.context_id == bindparam("context_id"), is_one_of(runs.c.status, "running", "waiting")
)

NEW_TASK = _insert(
    tasks, "run_id", "number", "task_id", "instance", "key", "inputs", "status", "dispatched_by", "merged_into", "attempts",
    "failures", "not_before", "wait_for", "join_number", "joins", "dispatched_at",
)  # fmt: skip
_this_task = update(tasks).where(_THIS_TASK)
COMPLETE_TASK = _this_task.values(
    status=constant("completed"), **_new("attempts", "reads", "output_version", "output_seq", "leaf", "started_at", "finished_at")
)
MOVE_TASK = _this_task.values(merged_into=null(), **_new("status", "attempts", "failures", "not_before"))
MERGE_TASK = _this_task.values(status=constant("merged"), **_new("merged_into"))
BEGIN_TASK = _this_task.values(status=constant("running"), **_new("attempts", "started_at"))
NEW_ATTEMPT = _insert(
    attempts, "run_id", "number", "attempt", "status", "error_type", "error_message", "traceback", "reads", "started_at",
    "ended_at",
)  # fmt: skip
NEW_WRITE = _insert(
    writes, "context_id", "version", "key", "value", "status", "run_id", "number", "attempt", "position", "written_at"
)
REWRITE = (
    update(writes).where(_of_attempt(writes), writes.c.position == bindparam("of_position")).values(value=bindparam("to_value"))
)
KEEP_WRITES = (
    update(writes)
    .where(_of_attempt(writes))
    .values(status=constant("committed"), version=bindparam("first_version") + writes.c.position)
)
LOSE_WRITES = update(writes).where(_of_attempt(writes)).values(status=constant("lost"))
NEW_CHUNK = _insert(chunks, "run_id", "seq", "number", "attempt", "task_id", "value", "status", "written_at")
KEEP_CHUNKS = update(chunks).where(_of_attempt(chunks)).values(status=constant("committed"))
LOSE_CHUNKS = update(chunks).where(_of_attempt(chunks)).values(status=constant("lost"))

_here = writes.c.context_id == bindparam("context_id")
_this_key = and_(_here, writes.c.key == bindparam("key"))
_is_open = and_(writes.c.status == constant("open"), writes.c.version.is_(None))  # both: an index tells who has no version
VALUE = (
    select(writes.c.version, writes.c.value)
    .where(_this_key, writes.c.version.is_not(None))
    .order_by(writes.c.version.desc())
    .limit(constant(1))
)
WRITES_SINCE = (
    select(writes.c.version, writes.c.key, writes.c.value)
    .where(_here, writes.c.version > bindparam("since"))
    .order_by(writes.c.version)
)
_newest = (
    select(func.max(writes.c.version).label("version"), func.min(writes.c.version).label("first"))
    .where(_here, writes.c.version.is_not(None))
    .group_by(writes.c.key)
    .subquery()
)
KEYS = (
    select(writes.c.key, writes.c.version)
    .join(_newest, writes.c.version == _newest.c.version)
    .where(_here, writes.c.value.is_not(None))
    .order_by(_newest.c.first)
)
WAS_WRITTEN = (
    select(constant(1)).where(_this_key, writes.c.version > bindparam("since"), writes.c.value.is_not(None)).limit(constant(1))
)
OPEN_KEYS = select(writes.c.key).where(_here, _is_open).group_by(writes.c.key).order_by(func.min(writes.c.id))
OPEN_VALUE = select(writes.c.value).where(_this_key, _is_open).order_by(writes.c.id.desc()).limit(constant(1))

LIVE_TASKS = (
    select(
        tasks.c.number, tasks.c.task_id, tasks.c.instance, tasks.c.inputs, tasks.c.dispatched_by, tasks.c.status,
        tasks.c.attempts, tasks.c.merged_into, tasks.c.failures, tasks.c.not_before, tasks.c.wait_for, tasks.c.join_number,
        tasks.c.joins,
    )
    .where(tasks.c.run_id == bindparam("run_id"), is_one_of(tasks.c.status, *LIVE))
    .order_by(tasks.c.number)
)  # fmt: skip
_live = tasks.alias("live")
_OUTPUT = select(tasks.c.merged_into, tasks.c.key, writes.c.value).outerjoin(
    writes, and_(writes.c.context_id == bindparam("context_id"), writes.c.version == tasks.c.output_version)
)
_MEMBERS = and_(  # the dispatches right before the one that joins them
    tasks.c.run_id == bindparam("run_id"), tasks.c.number >= bindparam("first"), tasks.c.number < bindparam("join")
)
OUTPUTS_OF_MEMBERS = _OUTPUT.where(_MEMBERS).order_by(tasks.c.number)
MERGED_MEMBERS = select(tasks.c.merged_into).where(_MEMBERS, tasks.c.status == constant("merged"))
OUTPUT = _OUTPUT.where(tasks.c.run_id == bindparam("run_id"), tasks.c.number == bindparam("number"))
_last = (
    select(tasks.c.key, func.max(tasks.c.number).label("number"))
    .where(
        tasks.c.run_id == bindparam("run_id"), tasks.c.task_id == bindparam("task_id"), tasks.c.status == constant("completed")
    )
    .group_by(tasks.c.key)
    .subquery()
)
OUTPUTS_OF_TASK = (
    select(tasks.c.key, writes.c.value)
    .join(_last, tasks.c.number == _last.c.number)
    .join(writes, and_(writes.c.context_id == bindparam("context_id"), writes.c.version == tasks.c.output_version))
    .where(tasks.c.run_id == bindparam("run_id"))
    .order_by(tasks.c.number)
)
NEW_STEP = _insert(steps, "run_id", "number", "name", "value", "attempt", "recorded_at")
STEPS = select(steps.c.name, steps.c.value).where(steps.c.run_id == bindparam("run_id"), steps.c.number == bindparam("number"))
_LIVE_KEYS = select(_live.c.key).where(_live.c.run_id == bindparam("run_id"), is_one_of(_live.c.status, *LIVE))
PRODUCED = (
    select(tasks.c.key)
    .distinct()
    .where(
        tasks.c.run_id == bindparam("run_id"),
        tasks.c.status == constant("completed"),
        (tasks.c.instance == constant(1)) | tasks.c.key.in_(_LIVE_KEYS),
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
FREE_TASKS = (
    update(tasks)
    .where(tasks.c.run_id == bindparam("of_run"), tasks.c.status == constant("running"))
    .values(status=constant("pending"))
)
LOSE_ALL_WRITES, LOSE_ALL_CHUNKS = (
    update(t).where(t.c.run_id == bindparam("of_run"), t.c.status == constant("open")).values(status=constant("lost"))
    for t in (writes, chunks)
)

NEW_OWNER = _insert(owners, "id", "machine", "pid", "process_started", "leased_until")
_this_owner = update(owners).where(owners.c.id == bindparam("of_id"), owners.c.ended_at.is_(None))
RENEW_LEASE = _this_owner.values(**_new("leased_until"))
END_OWNER = _this_owner.values(**_new("ended_at"))
OWNER = select(owners).where(owners.c.id == bindparam("id"))


_RUN_UPDATES: dict[tuple[str, ...], Executable] = {}


def update_run(columns: tuple[str, ...]) -> Executable:
    """Return the statement that sets these columns of a run, built once for each set of columns."""
    statement = _RUN_UPDATES.get(columns)
    if statement is None:
        values: dict[str, Any] = {name.removeprefix("to_"): bindparam(name) for name in columns}
        statement = _RUN_UPDATES[columns] = update(runs).where(runs.c.id == bindparam("of_id")).values(values)
    return statement
