"""Transactions, their common commits, and connections: what the store stands on."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, select

from liteflow.errors import StoreFullError
from liteflow.store.database import MOST_MEMBERS, Database, Transaction
from liteflow.store.tables import owners
from tests.features.children import output_of
from tests.features.waiting import Helper, passes, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NORMAL, FULL = 1, 2
ROW = "INSERT INTO owners (id, machine, pid, process_started, leased_until) VALUES (?, 'm', 1, 's', 'never')"


def note(tx: Transaction, row: str) -> None:
    tx.execute(ROW, (row,))


def noting(row: str) -> Callable[[Transaction], None]:
    return lambda tx: note(tx, row)


def noted(database: Database) -> set[str]:
    with database.read() as tx:
        return {row[0] for row in tx.execute("SELECT id FROM owners", ()).fetchall()}


class Part:
    """A member of a common commit, which keeps what it is told.

    Args:
        row: what it records.
        sync: whether it asks for a sync; an exception is raised instead.
        error: raised once it has recorded that.
        follow_up: raised by what it is told.
    """

    def __init__(
        self, row: str, *, sync: bool | Exception = False, error: Exception | None = None, follow_up: Exception | None = None
    ) -> None:
        self.row, self._sync, self._error, self._follow_up = row, sync, error, follow_up
        self.told: list[object] = []
        self.thread: int | None = None

    def wants_sync(self) -> bool:
        if isinstance(self._sync, Exception):
            raise self._sync
        return self._sync

    def apply(self, tx: Transaction) -> None:
        note(tx, self.row)
        if self._error is not None:
            raise self._error

    def committed(self) -> None:
        self._hear("committed")

    def refused(self, error: Exception) -> None:
        self._hear(error)

    def _hear(self, what: object) -> None:
        self.told.append(what)
        self.thread = threading.get_ident()
        if self._follow_up is not None:
            raise self._follow_up


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database in a file."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.open()
    yield database
    database.dispose()


@pytest.fixture
def commits(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How each commit from now on is synced, in order."""
    return watched(database, monkeypatch)


def watched(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    dialect: Any = database.engine.dialect
    commit = dialect.do_commit

    def counting(connection: sqlite3.Connection) -> None:
        seen.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", counting)
    return seen


@pytest.fixture
def statements(database: Database) -> list[str]:
    """What the writing connection is asked from now on."""
    database.write(lambda tx: None)
    seen: list[str] = []
    database._writer.set_trace_callback(seen.append)
    return seen


def together(database: Database, *parts: Part) -> int:
    """Have all parts wait while a commit is under way, so that they share the next; return the thread that leads."""
    begun, go_on, leader = threading.Event(), threading.Event(), []

    def first(tx: Transaction) -> None:
        leader.append(threading.get_ident())
        begun.set()
        passes(go_on)

    leading = Helper(lambda: database.write(first))
    passes(begun)
    for part in parts:
        database.join_commit(part)
    go_on.set()
    leading.result()
    until(lambda: not database._leading)
    return leader[0]


# ---------------------------------------------------------------- commits


def test_who_commits_alone_needs_no_savepoint(database, statements):
    database.join_commit(Part("a"))

    assert [text.split()[0] for text in statements] == ["BEGIN", "INSERT", "COMMIT"]


def test_those_who_come_during_a_commit_share_the_next_and_are_told_in_order_by_who_leads(database, commits):
    parts = [Part(f"p{n}") for n in range(10)]

    leader = together(database, *parts)

    assert len(commits) == 2
    assert noted(database) == {part.row for part in parts}
    assert [part.told for part in parts] == [["committed"]] * 10
    assert {part.thread for part in parts} == {leader}


def test_a_common_commit_has_a_limited_number_of_members(database, commits):
    parts = [Part(f"p{n}") for n in range(MOST_MEMBERS + 1)]

    together(database, *parts)

    assert len(commits) == 3
    assert all(part.told == ["committed"] for part in parts)


def test_a_member_that_fails_in_a_common_commit_leaves_nothing_and_fails_alone(database):
    error = ValueError("no")
    before, failing, after = Part("before"), Part("failing", error=error), Part("after")

    together(database, before, failing, after)

    assert (before.told, failing.told, after.told) == (["committed"], [error], ["committed"])
    assert noted(database) == {"before", "after"}


def test_a_member_that_cannot_say_what_it_records_fails_alone(database):
    error = ValueError("no")
    failing, after = Part("failing", sync=error), Part("after")

    together(database, failing, after)

    assert (failing.told, after.told) == ([error], ["committed"])
    assert noted(database) == {"after"}


@pytest.mark.parametrize("error", [None, ValueError("refused")], ids=["committed", "refused"])
def test_a_member_that_cannot_follow_up_keeps_nobody_else_from_being_told(database, error):
    failing, after = Part("failing", error=error, follow_up=RuntimeError("follow-up")), Part("after")

    together(database, failing, after)

    assert after.told == ["committed"]
    assert isinstance(failing.told[-1], RuntimeError if error is None else ValueError)
    database.write(noting("later"))
    assert "after" in noted(database)
    assert "later" in noted(database)


def test_a_commit_that_fails_is_refused_to_each_of_its_members(database, monkeypatch):
    together(database)
    error = sqlite3.OperationalError("disk I/O error")

    def failing(connection: sqlite3.Connection) -> None:
        monkeypatch.undo()
        raise error

    begun, go_on = threading.Event(), threading.Event()
    leading = Helper(lambda: database.write(lambda tx: begun.set() or passes(go_on)))
    passes(begun)
    parts = [Part("a"), Part("b")]
    for part in parts:
        database.join_commit(part)
    dialect: Any = database.engine.dialect
    commit = dialect.do_commit
    monkeypatch.setattr(dialect, "do_commit", lambda connection: commit(connection) or setattr(dialect, "do_commit", failing))
    go_on.set()
    leading.result()
    until(lambda: not database._leading)

    assert all(isinstance(part.told[0], StoreFullError) and part.told[0].__cause__ is error for part in parts)
    assert noted(database) == set()


def test_what_work_raises_rolls_back_what_it_did_and_reaches_its_caller(database):
    def work(tx: Transaction) -> None:
        note(tx, "a")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        database.write(work)

    assert database.write(lambda tx: tx.execute("SELECT count(*) FROM owners", ()).fetchone()[0]) == 0


def test_an_interrupt_in_the_thread_that_leads_keeps_nobody_from_committing(database):
    def interrupted(tx: Transaction) -> None:
        note(tx, "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.write(interrupted)

    Helper(lambda: database.write(noting("later"))).result()
    assert noted(database) == {"later"}


def test_many_threads_lose_no_commit(database):
    writers = [Helper(lambda name=name: [database.write(noting(f"{name}-{n}")) for n in range(25)]) for name in "abcdefgh"]

    for writer in writers:
        writer.result()

    assert noted(database) == {f"{name}-{n}" for name in "abcdefgh" for n in range(25)}


COUNTER = f"""
import sys
from liteflow.store.database import Database

database = Database(sys.argv[1])
database.open()
database.write(lambda tx: tx.execute({ROW.replace("INSERT", "INSERT OR IGNORE")!r}, ("counter",)))

def increment(tx):
    count = tx.execute("SELECT pid FROM owners", ()).fetchone()[0]
    tx.execute("UPDATE owners SET pid = ?", (count + 1,))

for _ in range(100):
    database.write(increment)
database.dispose()
"""  # noqa: S608 - our own text


def test_processes_that_read_before_they_write_lose_no_update(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"

    for child in [Helper(lambda: output_of(COUNTER, url)) for _ in range(4)]:
        child.result()

    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("SELECT pid FROM owners").fetchall() == [(1 + 400,)]
    connection.close()


# ---------------------------------------------------------------- what is on the disk when


def test_a_commit_is_synced_if_it_asks_and_only_then(database, commits):
    for sync in (False, True, True, False):
        database.write(lambda tx: None, sync=sync)

    assert commits == [NORMAL, FULL, FULL, NORMAL]


def test_syncing_is_switched_outside_of_transactions_and_only_when_it_changes(database, statements):
    for sync in (True, True, False):
        database.write(lambda tx: None, sync=sync)

    on, off = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    assert statements == [on, "BEGIN IMMEDIATE", "COMMIT", "BEGIN IMMEDIATE", "COMMIT", off, "BEGIN IMMEDIATE", "COMMIT"]


def test_a_common_commit_is_synced_if_one_of_its_members_asks(database, commits):
    together(database, Part("a"), Part("b", sync=True), Part("c"))

    assert commits == [NORMAL, FULL]


def test_with_full_durability_every_commit_is_synced(tmp_path, monkeypatch):
    database = Database(f"sqlite:///{tmp_path / 'store.db'}", durability="full")
    database.open()
    commits = watched(database, monkeypatch)

    database.write(noting("a"))

    assert commits == [FULL]
    database.dispose()


def test_a_commit_on_a_new_connection_is_synced_if_it_asks_whatever_the_last_one_did(database, commits):
    database.write(noting("a"), sync=True)
    database.dispose()

    database.write(noting("b"), sync=True)

    assert commits == [FULL, FULL]


# ---------------------------------------------------------------- reading


def test_who_reads_waits_for_nobody_and_sees_what_is_committed(database):
    def work(tx: Transaction) -> set[str]:
        note(tx, "a")
        return Helper(lambda: noted(database)).result()

    assert database.write(work) == set()
    assert noted(database) == {"a"}


def test_connections_are_used_again_and_never_by_two_at_once(database):
    for _ in range(5):
        noted(database)
    assert len(database._opened) == 1

    with database.read() as one, database.read() as other:
        assert one.execute.__self__ is not other.execute.__self__
    assert len(database._opened) == 2


def test_a_statement_is_compiled_once_and_brings_the_values_that_are_its_own(database):
    statement = select(owners.c.id).where(owners.c.pid == bindparam("pid")).limit(7).offset(0)

    prepared = database.compile(statement)

    assert database.compile(statement) is prepared
    assert prepared.values({"pid": 5}) == (5, 7, 0)


# ---------------------------------------------------------------- in memory


@pytest.fixture
def memory() -> Iterator[Database]:
    """A database in memory."""
    database = Database("sqlite://")
    database.open()
    yield database
    database.dispose()


def test_a_database_in_memory_is_one_for_all_threads(memory):
    for writer in [Helper(lambda name=name: memory.write(noting(name))) for name in "abcd"]:
        writer.result()

    assert Helper(lambda: noted(memory)).result() == set("abcd")


def test_who_reads_a_database_in_memory_within_a_transaction_does_not_end_it(memory):
    def work(tx: Transaction) -> None:
        note(tx, "kept")
        assert noted(memory) == {"kept"}
        raise LookupError

    with pytest.raises(LookupError):
        memory.write(work)

    assert noted(memory) == set()
