"""The tables, as the statements name them. What makes them is the migrations; a test keeps the two equal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    literal_column,
    text,
)

metadata = MetaData()


def constant(value: str | int) -> ColumnElement[Any]:
    """Return a constant of a statement, written into its text: only what varies is a parameter."""
    return literal_column(f"'{value}'" if isinstance(value, str) else str(value))


def is_one_of(column: ColumnElement[Any], *words: str) -> ColumnElement[bool]:
    """Return the condition that *column* is one of these words."""
    return column.in_([constant(word) for word in words])


contexts = Table(
    "contexts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("parent_id", Text, ForeignKey("contexts.id", name="contexts_parent")),
    Column("parent_version", Integer),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("created_at", Text, nullable=False),
    CheckConstraint("(parent_id IS NULL) = (parent_version IS NULL)", name="contexts_fork_has_both"),
    CheckConstraint("version >= 0", name="contexts_version_counts"),
    CheckConstraint("fence >= 0", name="contexts_fence_counts"),
)

owners = Table(
    "owners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Text, nullable=False),
    Column("leased_until", Text, nullable=False),
    Column("ended_at", Text),
)

queues = Table(
    "queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("concurrency", Integer),
    Column("worker_concurrency", Integer),
    Column("rate_count", Integer),
    Column("rate_seconds", Integer),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("(rate_count IS NULL) = (rate_seconds IS NULL)", name="queues_rate_has_both"),
    CheckConstraint(
        "concurrency > 0 AND worker_concurrency > 0 AND rate_count > 0 AND rate_seconds > 0", name="queues_limits_allow"
    ),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("flow", Text, nullable=False),
    Column("context_id", Text, ForeignKey("contexts.id", name="runs_context"), nullable=False),
    Column("start_task", Text, nullable=False),
    Column("inputs", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("queue", Text, ForeignKey("queues.name", name="runs_queue")),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("not_before", Text),
    Column("owner_id", Text, ForeignKey("owners.id", name="runs_owner")),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("base_version", Integer, nullable=False),
    Column("seq_reserved", Integer, nullable=False),
    Column("failed_task", Integer),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    CheckConstraint(
        "status IN ('queued', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')", name="runs_status_known"
    ),
    CheckConstraint(
        "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))", name="runs_finished_has_time"
    ),
    CheckConstraint("status <> 'failed' OR failed_task IS NOT NULL", name="runs_failed_names_task"),
    CheckConstraint("status <> 'paused' OR reason IS NOT NULL", name="runs_paused_has_reason"),
    CheckConstraint("status <> 'running' OR owner_id IS NOT NULL", name="runs_running_has_owner"),
    Index("runs_one_live_in_a_context", "context_id", unique=True, sqlite_where=text("status IN ('running', 'waiting')"),
          postgresql_where=text("status IN ('running', 'waiting')")),
    Index("runs_by_flow", "flow", "created_at"),
    Index("runs_unfinished", "status", sqlite_where=text("finished_at IS NULL"), postgresql_where=text("finished_at IS NULL")),
)  # fmt: skip

tasks = Table(
    "tasks",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", name="tasks_run"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("instance", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("inputs", Text),
    Column("status", Text, nullable=False),
    Column("dispatched_by", Integer),
    Column("merged_into", Integer),
    Column("join_number", Integer),
    Column("not_before", Text),
    Column("wait_for", Text),
    Column("queue", Text, ForeignKey("queues.name", name="tasks_queue")),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("reads", Text),
    Column("output_version", Integer),
    Column("output_seq", Integer),
    Column("leaf", Boolean),
    Column("dispatched_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    PrimaryKeyConstraint("run_id", "number", name="tasks_key"),
    CheckConstraint(
        "status IN ('pending', 'running', 'behind', 'merged', 'completed', 'failed', 'cancelled')", name="tasks_status_known"
    ),
    CheckConstraint(
        "(status = 'completed') = (output_version IS NOT NULL AND output_seq IS NOT NULL AND leaf IS NOT NULL "
        "AND started_at IS NOT NULL AND finished_at IS NOT NULL)",
        name="tasks_completed_has_output",
    ),
    CheckConstraint("status <> 'merged' OR merged_into IS NOT NULL", name="tasks_merged_names_other"),
    CheckConstraint("number >= 1 AND instance >= 1", name="tasks_numbers_count"),
    CheckConstraint(
        "key = CASE WHEN instance = 1 THEN task_id ELSE task_id || '#' || instance END", name="tasks_key_names_instance"
    ),
    Index("tasks_live", "run_id", "number", sqlite_where=text("status IN ('pending', 'running', 'behind', 'failed')"),
          postgresql_where=text("status IN ('pending', 'running', 'behind', 'failed')")),
    Index("tasks_stream", "run_id", "output_seq", sqlite_where=text("output_seq IS NOT NULL"),
          postgresql_where=text("output_seq IS NOT NULL")),
    sqlite_with_rowid=False,
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("traceback", Text),
    Column("reads", Text),
    Column("started_at", Text),
    Column("ended_at", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "number", "attempt", name="attempts_key"),
    ForeignKeyConstraint(["run_id", "number"], ["tasks.run_id", "tasks.number"], name="attempts_task"),
    CheckConstraint("status IN ('failed', 'conflicted', 'lost', 'timed_out', 'cancelled')", name="attempts_status_known"),
    CheckConstraint(
        "(error_type IS NOT NULL AND error_message IS NOT NULL) = (status IN ('failed', 'timed_out'))",
        name="attempts_failed_has_error",
    ),
    CheckConstraint("attempt >= 1", name="attempts_count"),
)

writes = Table(
    "writes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("context_id", Text, ForeignKey("contexts.id", name="writes_context"), nullable=False),
    Column("version", Integer),
    Column("key", Text, nullable=False),
    Column("value", Text),
    Column("status", Text, nullable=False),
    Column("run_id", Text),
    Column("number", Integer),
    Column("attempt", Integer),
    Column("position", Integer),
    Column("written_at", Text, nullable=False),
    CheckConstraint("status IN ('open', 'committed', 'lost')", name="writes_status_known"),
    CheckConstraint("(status = 'committed') = (version IS NOT NULL)", name="writes_committed_has_version"),
    CheckConstraint(
        "(run_id IS NULL) = (number IS NULL) AND (run_id IS NULL) = (attempt IS NULL)", name="writes_name_their_attempt"
    ),
    Index("writes_by_version", "context_id", "version", unique=True),
    Index("writes_by_key", "context_id", "key", "version"),
    Index("writes_open", "run_id", "number", "attempt", sqlite_where=text("status = 'open'"),
          postgresql_where=text("status = 'open'")),
)  # fmt: skip

chunks = Table(
    "chunks",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", name="chunks_run"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("written_at", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "seq", name="chunks_key"),
    CheckConstraint("status IN ('open', 'committed', 'lost')", name="chunks_status_known"),
    CheckConstraint("seq >= 1", name="chunks_seq_counts"),
    Index("chunks_open", "run_id", "number", "attempt", sqlite_where=text("status = 'open'"),
          postgresql_where=text("status = 'open'")),
    sqlite_with_rowid=False,
)  # fmt: skip

steps = Table(
    "steps",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("recorded_at", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "number", "name", name="steps_key"),
    ForeignKeyConstraint(["run_id", "number"], ["tasks.run_id", "tasks.number"], name="steps_task"),
)
