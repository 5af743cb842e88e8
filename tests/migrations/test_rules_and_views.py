"""What the database itself refuses besides its named rules, what it answers to people, and what an upgrade keeps."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from liteflow.store import schema
from liteflow.store.database import Database
from liteflow.store.tables import metadata
from tests.features.children import output_of
from tests.features.waiting import Helper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTEXT = {"id": "c", "created_at": "now"}
OWNER = {"id": "o", "machine": "m", "pid": 7, "process_started": "s", "leased_until": "later"}
RUN = {
    "id": "r", "flow": "f", "context_id": "c", "start_task": "a", "status": "running", "owner_id": "o", "base_version": 0,
    "seq_reserved": 9, "created_at": "now",
}  # fmt: skip
TASK = {"run_id": "r", "number": 1, "task_id": "a", "instance": 1, "key": "a", "status": "pending", "dispatched_at": "now"}
ATTEMPT = {"run_id": "r", "number": 1, "attempt": 1, "status": "lost", "ended_at": "now"}
FAILED = {**ATTEMPT, "status": "failed", "error_type": "OSError", "error_message": "no paper", "traceback": "…"}
WRITE = {"context_id": "c", "version": 1, "key": "k", "value": "1", "status": "committed", "written_at": "now"}
CHUNK = {
    "run_id": "r", "seq": 1, "number": 1, "attempt": 1, "task_id": "said", "value": '"hi"', "status": "open", "written_at": "now",
}  # fmt: skip
STEP = {"run_id": "r", "number": 1, "name": "s", "value": "1", "attempt": 1, "recorded_at": "now"}
START, BEGUN, DONE = (f"2026-01-01T00:00:0{second}.000000Z" for second in (0, 1, 4))
COMPLETED = {
    **TASK, "status": "completed", "attempts": 2, "output_version": 1, "output_seq": 2, "leaf": 1, "dispatched_at": START,
    "started_at": BEGUN, "finished_at": DONE,
}  # fmt: skip


def insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    values = ", ".join(f":{name}" for name in row)
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", row)  # noqa: S608 - names from here


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database with one run, as another program opens it."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.open()
    database.dispose()
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.row_factory = sqlite3.Row
        for table, row in (("contexts", CONTEXT), ("owners", OWNER), ("runs", RUN)):
            insert(db, table, row)
        yield db


def rows(db: sqlite3.Connection, view: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(f"SELECT * FROM {view}")]  # noqa: S608 - names from here


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("contexts", {**CONTEXT, "id": "d", "parent_id": "nobody", "parent_version": 1}),
        ("runs", {**RUN, "id": "s", "context_id": "nobody"}),
        ("runs", {**RUN, "id": "s", "status": "queued", "owner_id": "nobody"}),
        ("runs", {**RUN, "id": "s", "status": "queued", "queue": "nobody"}),
        ("tasks", {**TASK, "run_id": "nobody"}),
        ("tasks", {**TASK, "queue": "nobody"}),
        ("attempts", {**ATTEMPT, "number": 2}),
        ("writes", {**WRITE, "context_id": "nobody"}),
        ("chunks", {**CHUNK, "run_id": "nobody"}),
        ("steps", {**STEP, "number": 2}),
    ],
)
def test_a_row_that_names_what_is_not_there_is_refused(db, table, row):
    if table in {"attempts", "steps"}:
        insert(db, "tasks", TASK)

    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        insert(db, table, row)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("contexts", CONTEXT), ("owners", OWNER), ("runs", {**RUN, "status": "queued"}), ("tasks", TASK), ("attempts", ATTEMPT),
        ("writes", WRITE), ("chunks", CHUNK), ("steps", STEP), ("queues", {"name": "q"}),
    ],
)  # fmt: skip
def test_nothing_is_recorded_twice_under_one_name_or_number(db, table, row):
    insert(db, "tasks", TASK)
    if table not in {"contexts", "owners", "runs", "tasks"}:
        insert(db, table, row)

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        insert(db, table, row)


@pytest.mark.parametrize("status", ["queued", "paused", "completed", "failed", "cancelled"])
def test_a_run_that_is_not_live_leaves_its_context_to_the_next(db, status):
    ended = "now" if status in {"completed", "failed", "cancelled"} else None
    db.execute("UPDATE runs SET status = ?, finished_at = ?, failed_task = 1, reason = 'why'", (status, ended))

    insert(db, "runs", {**RUN, "id": "s"})

    assert db.execute("SELECT count(*) FROM runs").fetchone()[0] == 2


@pytest.mark.parametrize(
    "row",
    [
        {**ATTEMPT, "error_type": "OSError"},
        {**ATTEMPT, "error_message": "no"},
        {**FAILED, "error_type": None},
        {**FAILED, "error_message": None},
    ],
)
def test_an_attempt_has_a_whole_error_if_it_failed_and_none_if_not(db, row):
    insert(db, "tasks", TASK)

    with pytest.raises(sqlite3.IntegrityError, match="attempts_failed_has_error"):
        insert(db, "attempts", row)


@pytest.mark.parametrize("missing", ["output_version", "output_seq", "leaf", "started_at", "finished_at"])
def test_a_completed_dispatch_lacks_nothing(db, missing):
    with pytest.raises(sqlite3.IntegrityError, match="tasks_completed_has_output"):
        insert(db, "tasks", {**COMPLETED, missing: None})


@pytest.mark.parametrize("name", [index.name for table in metadata.tables.values() for index in table.indexes])
def test_every_index_is_there(db, name):
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = ?", (name,)).fetchone()[0] == 1


# ---------------------------------------------------------------- what is answered


def test_run_overview_tells_what_each_run_is_doing(db):
    statuses = ["completed", "running", "running", "pending", "behind", "merged"]
    for number, status in enumerate(statuses, 1):
        row = COMPLETED if status == "completed" else {**TASK, "status": status, "merged_into": 1}
        began = f"t{9 - number}" if status == "running" else row.get("started_at")
        insert(db, "tasks", {**row, "number": number, "started_at": began})
    insert(db, "contexts", {**CONTEXT, "id": "other"})
    insert(db, "runs", {**RUN, "id": "idle", "context_id": "other", "status": "queued", "owner_id": None})

    busy, idle = sorted(rows(db, "run_overview"), key=lambda row: row["run_id"], reverse=True)

    assert [busy[name] for name in ("tasks", "completed", "running", "to_come", "failed")] == [6, 1, 2, 2, 0]
    assert (busy["oldest_running_since"], busy["owner_pid"], busy["leased_until"]) == ("t6", 7, "later")
    assert (idle["status"], idle["tasks"], idle["owner_pid"]) == ("queued", 0, None)


def test_current_values_tells_each_keys_newest_committed_value_and_who_wrote_it(db):
    insert(db, "tasks", TASK)
    by_task = {"run_id": "r", "number": 1, "attempt": 3, "position": 0}
    insert(db, "writes", WRITE)
    insert(db, "writes", {**WRITE, "version": 2, "value": "2", **by_task})
    insert(db, "writes", {**WRITE, "version": None, "value": "3", "status": "open", **by_task})
    insert(db, "writes", {**WRITE, "version": None, "value": "4", "status": "lost", **by_task})
    insert(db, "writes", {**WRITE, "version": 3, "key": "gone"})
    insert(db, "writes", {**WRITE, "version": 4, "key": "gone", "value": None})
    insert(db, "writes", {**WRITE, "version": 5, "key": "outside", "value": "5"})

    found = {row["key"]: (row["value"], row["version"], row["written_by"], row["attempt"]) for row in rows(db, "current_values")}

    assert found == {"k": ("2", 2, "a", 3), "outside": ("5", 5, None, None)}


def test_task_times_tells_how_long_each_waited_and_ran(db):
    insert(db, "tasks", COMPLETED)
    insert(db, "tasks", {**TASK, "number": 2})

    done, pending = rows(db, "task_times")

    assert (done["seconds_queued"], done["seconds_run"], done["attempts"]) == (1.0, 3.0, 2)
    assert (pending["seconds_queued"], pending["seconds_run"]) == (None, None)


def test_failed_attempts_tells_what_failed_and_why(db):
    insert(db, "tasks", TASK)
    insert(db, "attempts", FAILED)

    (failed,) = rows(db, "failed_attempts")

    assert (failed["run_id"], failed["key"], failed["attempt"], failed["task_status"]) == ("r", "a", 1, "pending")
    assert (failed["error_type"], failed["error_message"], failed["traceback"]) == ("OSError", "no paper", "…")


def test_stream_tells_the_chunks_of_a_run_with_the_outputs_of_its_tasks(db):
    insert(db, "tasks", COMPLETED)
    insert(db, "writes", {**WRITE, "value": '"out"'})
    insert(db, "chunks", {**CHUNK, "status": "committed", "attempt": 2})
    insert(db, "chunks", {**CHUNK, "seq": 3, "status": "lost"})

    columns = ("seq", "task_id", "key", "attempt", "value", "status")
    found = sorted(tuple(row[name] for name in columns) for row in rows(db, "stream"))

    assert found == [
        (1, "said", "a", 2, '"hi"', "committed"), (2, "a", "a", 2, '"out"', "committed"), (3, "said", "a", 1, '"hi"', "lost"),
    ]  # fmt: skip


# ---------------------------------------------------------------- upgrading


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have this version know a second schema."""
    folder = tmp_path / "scripts"
    shutil.copytree(schema.scripts(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0002_later.py").write_text(
        'from alembic import op\n\nrevision, down_revision = "0002", "0001"\n\n\n'
        'def upgrade() -> None:\n    op.execute("ALTER TABLE runs ADD COLUMN colour TEXT")\n'
    )
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(schema, "scripts", lambda: folder)


def test_a_backup_holds_what_is_still_in_the_log_and_is_for_its_owner_only(db, later, tmp_path):
    assert (tmp_path / "store.db-wal").stat().st_size > 0
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.connect()

    kept = schema.bring_up(database)

    assert kept == tmp_path / "store.db.before-0002"
    assert kept.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(kept)) as backup:
        assert backup.execute("SELECT id FROM runs").fetchall() == [("r",)]
        assert backup.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.dispose()


def test_who_comes_second_to_an_upgrade_leaves_the_backup_as_the_first_made_it(db, later, tmp_path):
    first, second = (Database(f"sqlite:///{tmp_path / 'store.db'}") for _ in range(2))
    for database in (first, second):
        database.connect()
    kept = schema.upgrade(first)
    assert kept is not None

    assert schema.upgrade(second) is None

    assert schema.current(second) == "0002"
    with closing(sqlite3.connect(kept)) as backup:
        assert backup.execute("SELECT version_num FROM liteflow_schema").fetchall() == [("0001",)]
    first.dispose()
    second.dispose()


OPENS = """
import sys
from liteflow.store import schema
from liteflow.store.database import Database

database = Database(sys.argv[1])
database.open()
print(schema.current(database))
"""


def test_processes_that_open_a_new_file_at_once_make_its_schema_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"

    openers = [Helper(lambda: output_of(OPENS, url)) for _ in range(5)]

    assert [opener.result() for opener in openers] == [[schema.head()]] * 5
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        assert db.execute("SELECT version_num FROM liteflow_schema").fetchall() == [(schema.head(),)]
