"""The migrations are the only way to a schema: whole or not at all, after a backup, and never back."""

from __future__ import annotations

import re
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from liteflow import Flow, SchemaOutdatedError, SchemaTooNewError
from liteflow.store import schema
from liteflow.store.database import Database
from liteflow.store.tables import metadata
from tests.features.children import output_of

if TYPE_CHECKING:
    from pathlib import Path

NEXT = '''"""A later schema."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a column, and perhaps fail."""
    op.execute("ALTER TABLE runs ADD COLUMN colour TEXT")
    {more}
'''


def opened(path: Path) -> Database:
    database = Database(f"sqlite:///{path}")
    database.open()
    return database


def schema_of(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
        found = {name: re.sub(r"\s+", " ", sql) for name, sql in rows}
    connection.close()
    return found


def clauses(sql: str) -> list[str]:
    """Return what stands between the outer brackets, in any order, and what stands around them."""
    head, _, rest = sql.partition("(")
    body, _, tail = rest.rpartition(")")
    return [head.strip(), *sorted(part.strip() for part in re.split(r", (?![^()]*\))", body)), tail.strip()]


@pytest.fixture
def later(monkeypatch, tmp_path):
    """Make this version one that knows schema 0002; give what its migration is to end with."""

    def install(more: str = ""):
        folder = tmp_path / "later"
        shutil.copytree(schema.scripts(), folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "0002_later.py").write_text(NEXT.format(more=more or "pass"), encoding="utf-8")
        monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002"))
        monkeypatch.setattr(schema, "scripts", lambda: folder)

    return install


def test_the_revisions_known_without_alembic_are_those_of_the_scripts():
    scripts = sorted((schema.scripts() / "versions").glob("*.py"))

    assert tuple(path.name[:4] for path in scripts) == schema.REVISIONS


def test_the_migrations_make_the_tables_that_the_statements_name(tmp_path):
    from sqlalchemy import create_engine  # noqa: PLC0415 - for this comparison only

    opened(tmp_path / "migrated.db").dispose()
    engine = create_engine(f"sqlite:///{tmp_path / 'named.db'}")
    metadata.create_all(engine)
    engine.dispose()

    migrated, named = schema_of(tmp_path / "migrated.db"), schema_of(tmp_path / "named.db")

    views = {"run_overview", "current_values", "task_times", "failed_attempts", "stream"}
    assert set(migrated) == set(named) | views | {schema.VERSION_TABLE}
    for name, sql in named.items():
        assert clauses(migrated[name]) == clauses(sql), name


def test_a_new_file_gets_the_schema_at_once_and_no_backup(tmp_path):
    database = opened(tmp_path / "new.db")

    assert schema.current(database) == schema.head()
    database.dispose()
    assert [path.name for path in tmp_path.glob("*before*")] == []


NEW_FILES = """
import sys, threading
from liteflow.store.database import Database

start = threading.Barrier(8)
made = []

def make(n):
    database = Database(f"sqlite:///{sys.argv[1]}/{n}.db")
    start.wait(20)
    database.open()
    with database.read() as tx:
        made.append(tx.execute("SELECT count(*) FROM sqlite_master", {}).fetchone()[0])
    database.dispose()

makers = [threading.Thread(target=make, args=(n,)) for n in range(8)]
for maker in makers:
    maker.start()
for maker in makers:
    maker.join(60)
print(len(made), len(set(made)))
"""


def test_threads_that_make_files_at_once_do_not_mix_them_up(tmp_path):
    """In a process of its own: what they would share crashes it."""
    assert output_of(NEW_FILES, tmp_path) == ["8 1"]


def test_an_older_file_is_backed_up_and_upgraded_when_it_is_opened_and_its_runs_go_on(tmp_path, later):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with Flow(store=url) as flow:
        flow.add_task("a", lambda ctx: "old")
        flow.run("a", run_id="r")
    later()

    with Flow(store=url) as flow:
        flow.add_task("a", lambda ctx: "new")
        assert flow.run("a", run_id="r") == {"a": "old"}

    with sqlite3.connect(tmp_path / "old.db.before-0002") as kept:
        assert kept.execute("SELECT version_num FROM liteflow_schema").fetchone() == ("0001",)
        assert kept.execute("SELECT id FROM runs").fetchall() == [("r",)]
    kept.close()
    assert "colour" in schema_of(tmp_path / "old.db")["runs"]


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, later):
    opened(tmp_path / "old.db").dispose()
    before = schema_of(tmp_path / "old.db")
    later(more='raise RuntimeError("half-way")')

    with pytest.raises(RuntimeError, match="half-way"):
        opened(tmp_path / "old.db")

    assert schema_of(tmp_path / "old.db") == before


def test_a_newer_file_is_refused_with_what_to_install_and_left_alone(tmp_path):
    opened(tmp_path / "new.db").dispose()
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("UPDATE liteflow_schema SET version_num = '9999'")
    connection.close()
    before = (tmp_path / "new.db").read_bytes()

    with pytest.raises(SchemaTooNewError, match="9999 is newer .* install a newer LiteFlow"):
        opened(tmp_path / "new.db")

    assert (tmp_path / "new.db").read_bytes() == before


def test_a_file_without_the_schema_is_refused_where_nothing_may_be_changed(tmp_path):
    sqlite3.connect(tmp_path / "empty.db").close()

    with pytest.raises(SchemaOutdatedError, match="liteflow db upgrade"):
        Database(f"sqlite:///{tmp_path / 'empty.db'}").open(read_only=True)


CONTEXT = "INSERT INTO contexts VALUES ('c', NULL, NULL, 0, 'now')"
OWNER = "INSERT INTO owners VALUES ('o', 'm', 1, 's', 'now', NULL)"
RUN = (
    "INSERT INTO runs (id, flow, context_id, start_task, status, owner_id, base_version, seq_reserved, created_at) "
    "VALUES ('r', 'f', 'c', 't', 'running', 'o', 0, 0, 'now')"
)
TASK = (
    "INSERT INTO tasks (run_id, number, task_id, instance, key, status, dispatched_at) "
    "VALUES ('r', 1, 't', 1, 't', 'pending', 'now')"
)
REFUSED = {
    "contexts_fork_has_both": "UPDATE contexts SET parent_id = 'c'",
    "contexts_fence_counts": "UPDATE contexts SET fence = -1",
    "queues_rate_has_both": "INSERT INTO queues (name, rate_count) VALUES ('q', 1)",
    "queues_limits_allow": "INSERT INTO queues (name, concurrency) VALUES ('q', 0)",
    "runs_status_known": "UPDATE runs SET status = 'odd'",
    "runs_finished_has_time": "UPDATE runs SET status = 'completed'",
    "runs_failed_names_task": "UPDATE runs SET status = 'failed', finished_at = 'now'",
    "runs_paused_has_reason": "UPDATE runs SET status = 'paused'",
    "runs_running_has_owner": "UPDATE runs SET owner_id = NULL",
    "runs_one_live_in_a_context": RUN.replace("'r'", "'s'"),
    "tasks_status_known": "UPDATE tasks SET status = 'odd'",
    "tasks_completed_has_output": "UPDATE tasks SET status = 'completed', finished_at = 'now'",
    "tasks_merged_names_other": "UPDATE tasks SET status = 'merged'",
    "tasks_numbers_count": "UPDATE tasks SET number = 0",
    "tasks_key_names_instance": "UPDATE tasks SET instance = 2",
    "attempts_status_known": "INSERT INTO attempts (run_id, number, attempt, status, ended_at) VALUES ('r', 1, 1, 'odd', 'now')",
    "attempts_failed_has_error": (
        "INSERT INTO attempts (run_id, number, attempt, status, ended_at) VALUES ('r', 1, 1, 'failed', 'now')"
    ),
    "attempts_count": "INSERT INTO attempts (run_id, number, attempt, status, ended_at) VALUES ('r', 1, 0, 'lost', 'now')",
    "writes_status_known": "INSERT INTO writes (context_id, key, status, written_at) VALUES ('c', 'k', 'odd', 'now')",
    "writes_committed_has_version": (
        "INSERT INTO writes (context_id, key, status, written_at) VALUES ('c', 'k', 'committed', 'now')"
    ),
    "writes_name_their_attempt": (
        "INSERT INTO writes (context_id, key, status, run_id, written_at) VALUES ('c', 'k', 'open', 'r', 'now')"
    ),
    "chunks_status_known": "INSERT INTO chunks VALUES ('r', 1, 1, 1, 't', '1', 'odd', 'now')",
    "chunks_seq_counts": "INSERT INTO chunks VALUES ('r', 0, 1, 1, 't', '1', 'open', 'now')",
}


def test_every_check_constraint_is_tried():
    named = {c.name for table in metadata.tables.values() for c in table.constraints if type(c).__name__ == "CheckConstraint"}

    assert named <= set(REFUSED)


@pytest.mark.parametrize("constraint", REFUSED)
def test_a_row_that_breaks_a_rule_is_refused_by_the_database(tmp_path, constraint):
    opened(tmp_path / "rules.db").dispose()
    connection = sqlite3.connect(tmp_path / "rules.db")
    connection.execute("PRAGMA foreign_keys = ON")
    for statement in (CONTEXT, OWNER, RUN, TASK):
        connection.execute(statement)

    with pytest.raises(sqlite3.IntegrityError, match=f"{constraint}|UNIQUE constraint failed: runs.context_id"):
        connection.execute(REFUSED[constraint])
    connection.close()
