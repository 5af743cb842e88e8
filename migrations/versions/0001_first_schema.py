"""The first schema: all that a run is made of, in tables and views that a person can read.

Times are UTC text of fixed width, so that text order is time order; values are JSON text. ``contexts.parent_*`` is for forks,
``tasks.not_before`` for delays and the waits of retries, ``tasks.wait_for`` for signals, ``tasks.join_number`` for barriers,
``steps`` for results recorded at once, ``queues`` for limits over all workers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

VIEWS = {
    # What is each run doing?
    "run_overview": """
        SELECT runs.id AS run_id, runs.flow, runs.status, runs.reason, runs.context_id,
               count(tasks.number) AS tasks,
               count(CASE WHEN tasks.status = 'completed' THEN 1 END) AS completed,
               count(CASE WHEN tasks.status = 'running' THEN 1 END) AS running,
               count(CASE WHEN tasks.status IN ('pending', 'behind') THEN 1 END) AS to_come,
               count(CASE WHEN tasks.status = 'failed' THEN 1 END) AS failed,
               min(CASE WHEN tasks.status = 'running' THEN tasks.started_at END) AS oldest_running_since,
               owners.pid AS owner_pid, owners.leased_until, runs.crashes, runs.created_at, runs.finished_at
        FROM runs
        LEFT JOIN tasks ON tasks.run_id = runs.id
        LEFT JOIN owners ON owners.id = runs.owner_id
        GROUP BY runs.id, owners.id
    """,
    # What is each key's value now, and who wrote it?
    "current_values": """
        SELECT writes.context_id, writes.key, writes.value, writes.version, writes.run_id, tasks.key AS written_by,
               writes.attempt, writes.written_at
        FROM writes
        LEFT JOIN tasks ON tasks.run_id = writes.run_id AND tasks.number = writes.number
        WHERE writes.value IS NOT NULL AND writes.version = (
            SELECT max(newer.version) FROM writes AS newer
            WHERE newer.context_id = writes.context_id AND newer.key = writes.key AND newer.version IS NOT NULL
        )
    """,
    # What took how long?
    "task_times": """
        SELECT run_id, number, key, status, attempts,
               {seconds_queued} AS seconds_queued, {seconds_run} AS seconds_run,
               dispatched_at, started_at, finished_at
        FROM tasks
    """,
    # What failed, and why?
    "failed_attempts": """
        SELECT attempts.run_id, tasks.key, attempts.attempt, attempts.status, attempts.error_type, attempts.error_message,
               attempts.ended_at, tasks.status AS task_status, attempts.traceback
        FROM attempts
        JOIN tasks ON tasks.run_id = attempts.run_id AND tasks.number = attempts.number
    """,
    # What did each run stream? The output of a task is its last chunk.
    "stream": """
        SELECT chunks.run_id, chunks.seq, chunks.task_id, tasks.key, chunks.attempt, chunks.value, chunks.status
        FROM chunks
        JOIN tasks ON tasks.run_id = chunks.run_id AND tasks.number = chunks.number
        UNION ALL
        SELECT tasks.run_id, tasks.output_seq, tasks.task_id, tasks.key, tasks.attempts, writes.value, 'committed'
        FROM tasks
        JOIN runs ON runs.id = tasks.run_id
        JOIN writes ON writes.context_id = runs.context_id AND writes.version = tasks.output_version
        WHERE tasks.output_seq IS NOT NULL
    """,
}

SECONDS = {  # between two times, as text
    "sqlite": "round((julianday({to}) - julianday({since})) * 86400.0, 3)",
    "postgresql": "round(extract(epoch FROM {to}::timestamptz - {since}::timestamptz), 3)",
}


def upgrade() -> None:  # long: the whole schema, read top to bottom
    """Make the tables, then the views."""
    op.create_table(
        "contexts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("parent_id", sa.Text, sa.ForeignKey("contexts.id", name="contexts_parent")),
        sa.Column("parent_version", sa.Integer),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.CheckConstraint("fence >= 0", name="contexts_fence_counts"),
        sa.CheckConstraint("(parent_id IS NULL) = (parent_version IS NULL)", name="contexts_fork_has_both"),
    )
    op.create_table(
        "owners",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.Text, nullable=False),
        sa.Column("leased_until", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
    )
    op.create_table(
        "queues",
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
    op.create_table(
        "runs",
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
        sa.CheckConstraint("status <> 'running' OR owner_id IS NOT NULL", name="runs_running_has_owner"),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))", name="runs_finished_has_time"
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')", name="runs_status_known"
        ),
        sa.CheckConstraint("status <> 'failed' OR failed_task IS NOT NULL", name="runs_failed_names_task"),
        sa.CheckConstraint("status <> 'paused' OR reason IS NOT NULL", name="runs_paused_has_reason"),
    )
    op.create_index("runs_by_flow", "runs", ["flow", "created_at"])
    op.create_index(
        "runs_one_live_in_a_context",
        "runs",
        ["context_id"],
        unique=True,
        sqlite_where=sa.text("status IN ('running', 'waiting')"),
        postgresql_where=sa.text("status IN ('running', 'waiting')"),
    )
    op.create_index(
        "runs_unfinished",
        "runs",
        ["status"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "tasks",
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
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'behind', 'merged', 'completed', 'failed', 'cancelled')", name="tasks_status_known"
        ),
        sa.CheckConstraint(
            "key = CASE WHEN instance = 1 THEN task_id ELSE task_id || '#' || instance END", name="tasks_key_names_instance"
        ),
        sa.CheckConstraint(
            "(status = 'completed') = (output_version IS NOT NULL AND output_seq IS NOT NULL AND leaf IS NOT NULL "
            "AND started_at IS NOT NULL AND finished_at IS NOT NULL)",
            name="tasks_completed_has_output",
        ),
        sa.CheckConstraint("status <> 'merged' OR merged_into IS NOT NULL", name="tasks_merged_names_other"),
        sa.CheckConstraint("number >= 1 AND instance >= 1", name="tasks_numbers_count"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "tasks_stream",
        "tasks",
        ["run_id", "output_seq"],
        sqlite_where=sa.text("output_seq IS NOT NULL"),
        postgresql_where=sa.text("output_seq IS NOT NULL"),
    )
    op.create_table(
        "attempts",
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
        sa.CheckConstraint("attempt >= 1", name="attempts_count"),
        sa.CheckConstraint(
            "(error_type IS NOT NULL) = (status IN ('failed', 'timed_out')) "
            "AND (error_message IS NOT NULL) = (status IN ('failed', 'timed_out'))",
            name="attempts_failed_has_error",
        ),
        sa.CheckConstraint("status IN ('failed', 'conflicted', 'lost', 'timed_out', 'cancelled')", name="attempts_status_known"),
    )
    op.create_table(
        "writes",
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
        sa.CheckConstraint("(status = 'committed') = (version IS NOT NULL)", name="writes_committed_has_version"),
        sa.CheckConstraint("status IN ('open', 'committed', 'lost')", name="writes_status_known"),
        sa.CheckConstraint(
            "(run_id IS NULL) = (number IS NULL) AND (run_id IS NULL) = (attempt IS NULL)", name="writes_name_their_attempt"
        ),
    )
    op.create_index("writes_by_key", "writes", ["context_id", "key", "version"])
    op.create_index("writes_by_version", "writes", ["context_id", "version"], unique=True)
    op.create_index(
        "writes_open",
        "writes",
        ["run_id", "number", "attempt"],
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "chunks",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", name="chunks_run"), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("written_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="chunks_key"),
        sa.CheckConstraint("seq >= 1", name="chunks_seq_counts"),
        sa.CheckConstraint("status IN ('open', 'committed', 'lost')", name="chunks_status_known"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "chunks_open",
        "chunks",
        ["run_id", "number", "attempt", "status"],
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "steps",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("recorded_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", "name", name="steps_key"),
        sa.ForeignKeyConstraint(["run_id", "number"], ["tasks.run_id", "tasks.number"], name="steps_task"),
    )
    seconds = SECONDS[op.get_bind().dialect.name]
    spans = {
        "seconds_queued": seconds.format(to="started_at", since="dispatched_at"),
        "seconds_run": seconds.format(to="finished_at", since="started_at"),
    }
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query.format(**spans)}")
