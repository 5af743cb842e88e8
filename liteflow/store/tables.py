"""The tables, as the statements name them. What makes them is the migrations; a test keeps the two equal."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


def constant(value: str | int) -> sa.ColumnElement[Any]:
    """Return a constant of a statement, written into its text: only what varies is a parameter."""
    return sa.literal_column(f"'{value}'" if isinstance(value, str) else str(value))


def is_one_of(column: sa.ColumnElement[Any], *words: str) -> sa.ColumnElement[bool]:
    """Return the condition that *column* is one of these words."""
    return column.in_([constant(word) for word in words])


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Return an index of some rows only. In Postgres, too, but to say so here would import that dialect, which takes long."""
    return sa.Index(name, *columns, unique=unique, sqlite_where=sa.text(where))


def _status(name: str, words: str) -> sa.CheckConstraint:
    """Return the constraint that the status is one of these words."""
    return sa.CheckConstraint(f"status IN ({', '.join(map(repr, words.split()))})", name=name)


contexts = sa.Table(
    "contexts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("contexts.id", name="contexts_parent")),
    sa.Column("parent_version", sa.Integer),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.CheckConstraint("(parent_id IS NULL) = (parent_version IS NULL)", name="contexts_fork_has_both"),
    sa.CheckConstraint("fence >= 0", name="contexts_fence_counts"),
)

owners = sa.Table(
    "owners",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("process_started", sa.Text, nullable=False),
    sa.Column("leased_until", sa.Text, nullable=False),
    sa.Column("ended_at", sa.Text),
)

queues = sa.Table(
    "queues",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("concurrency", sa.Integer),
    sa.Column("worker_concurrency", sa.Integer),
    sa.Column("rate_count", sa.Integer),
    sa.Column("rate_seconds", sa.Integer),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.CheckConstraint("(rate_count IS NULL) = (rate_seconds IS NULL)", name="queues_rate_has_both"),
    sa.CheckConstraint(
        "concurrency > 0 AND worker_concurrency > 0 AND rate_count > 0 AND rate_seconds > 0", name="queues_limits_allow"
    ),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("flow", sa.Text, nullable=False),
    sa.Column("context_id", sa.Text, sa.ForeignKey("contexts.id", name="runs_context"), nullable=False),
    sa.Column("start_task", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("queue", sa.Text, sa.ForeignKey("queues.name", name="runs_queue")),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("not_before", sa.Text),
    sa.Column("owner_id", sa.Text, sa.ForeignKey("owners.id", name="runs_owner")),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("progress_version", sa.Integer, nullable=False, server_default="0"),
    sa.Column("base_version", sa.Integer, nullable=False),
    sa.Column("seq_reserved", sa.Integer, nullable=False),
    sa.Column("failed_task", sa.Integer),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("started_at", sa.Text),
    sa.Column("finished_at", sa.Text),
    _status("runs_status_known", "queued running waiting paused completed failed cancelled"),
    sa.CheckConstraint(
        "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))", name="runs_finished_has_time"
    ),
    sa.CheckConstraint("status <> 'failed' OR failed_task IS NOT NULL", name="runs_failed_names_task"),
    sa.CheckConstraint("status <> 'paused' OR reason IS NOT NULL", name="runs_paused_has_reason"),
    sa.CheckConstraint("status <> 'running' OR owner_id IS NOT NULL", name="runs_running_has_owner"),
    _partial("runs_one_live_in_a_context", "context_id", unique=True, where="status IN ('running', 'waiting')"),
    sa.Index("runs_by_flow", "flow", "created_at"),
    _partial("runs_unfinished", "status", where="finished_at IS NULL"),
)  # fmt: skip

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", name="tasks_run"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("instance", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("dispatched_by", sa.Integer),
    sa.Column("merged_into", sa.Integer),
    sa.Column("join_number", sa.Integer),
    sa.Column("joins", sa.Integer),
    sa.Column("not_before", sa.Text),
    sa.Column("wait_for", sa.Text),
    sa.Column("queue", sa.Text, sa.ForeignKey("queues.name", name="tasks_queue")),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reads", sa.Text),
    sa.Column("output_version", sa.Integer),
    sa.Column("output_seq", sa.Integer),
    sa.Column("leaf", sa.Boolean),
    sa.Column("dispatched_at", sa.Text, nullable=False),
    sa.Column("started_at", sa.Text),
    sa.Column("finished_at", sa.Text),
    sa.PrimaryKeyConstraint("run_id", "number", name="tasks_key"),
    _status("tasks_status_known", "pending running behind merged completed failed cancelled"),
    sa.CheckConstraint(
        "(status = 'completed') = (output_version IS NOT NULL AND output_seq IS NOT NULL AND leaf IS NOT NULL "
        "AND started_at IS NOT NULL AND finished_at IS NOT NULL)",
        name="tasks_completed_has_output",
    ),
    sa.CheckConstraint("status <> 'merged' OR merged_into IS NOT NULL", name="tasks_merged_names_other"),
    sa.CheckConstraint("number >= 1 AND instance >= 1", name="tasks_numbers_count"),
    sa.CheckConstraint(
        "key = CASE WHEN instance = 1 THEN task_id ELSE task_id || '#' || instance END", name="tasks_key_names_instance"
    ),
    _partial("tasks_stream", "run_id", "output_seq", where="output_seq IS NOT NULL"),
    sqlite_with_rowid=False,
)  # fmt: skip

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("reads", sa.Text),
    sa.Column("started_at", sa.Text),
    sa.Column("ended_at", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "number", "attempt", name="attempts_key"),
    sa.ForeignKeyConstraint(["run_id", "number"], ["tasks.run_id", "tasks.number"], name="attempts_task"),
    _status("attempts_status_known", "failed conflicted lost timed_out cancelled"),
    sa.CheckConstraint(
        "(error_type IS NOT NULL) = (status IN ('failed', 'timed_out')) "
        "AND (error_message IS NOT NULL) = (status IN ('failed', 'timed_out'))",
        name="attempts_failed_has_error",
    ),
    sa.CheckConstraint("attempt >= 1", name="attempts_count"),
)

writes = sa.Table(
    "writes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("context_id", sa.Text, sa.ForeignKey("contexts.id", name="writes_context"), nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("number", sa.Integer),
    sa.Column("attempt", sa.Integer),
    sa.Column("position", sa.Integer),
    sa.Column("written_at", sa.Text, nullable=False),
    _status("writes_status_known", "open committed lost"),
    sa.CheckConstraint("(status = 'committed') = (version IS NOT NULL)", name="writes_committed_has_version"),
    sa.CheckConstraint(
        "(run_id IS NULL) = (number IS NULL) AND (run_id IS NULL) = (attempt IS NULL)", name="writes_name_their_attempt"
    ),
    sa.Index("writes_by_version", "context_id", "version", unique=True),
    sa.Index("writes_by_key", "context_id", "key", "version"),
    _partial("writes_open", "run_id", "number", "attempt", where="status = 'open'"),
)  # fmt: skip

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", name="chunks_run"), nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("written_at", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "seq", name="chunks_key"),
    _status("chunks_status_known", "open committed lost"),
    sa.CheckConstraint("seq >= 1", name="chunks_seq_counts"),
    # with the status, though they all have the same: SQLite takes the index of a table without row ids only if that is in it
    _partial("chunks_open", "run_id", "number", "attempt", "status", where="status = 'open'"),
    sqlite_with_rowid=False,
)  # fmt: skip

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("recorded_at", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "number", "name", name="steps_key"),
    sa.ForeignKeyConstraint(["run_id", "number"], ["tasks.run_id", "tasks.number"], name="steps_task"),
)
