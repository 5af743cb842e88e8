"""How a database is opened, and what its errors mean to a person."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from liteflow.errors import StoreCorruptError, StoreError, StoreFullError, StoreReadOnlyError, StoreUnavailableError
from liteflow.store import dialects
from liteflow.store.database import Database
from tests.features.children import Child, output_of
from tests.features.waiting import Helper, until
from tests.test_database import Part, noted, noting, together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from liteflow.store.database import Transaction

READ_ONLY = {"read_only": True}
MUST_EXIST = {"must_exist": True}


def at(path: Path | str) -> Database:
    return Database(URL.create("sqlite", database=str(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with one row, closed."""
    database = at(tmp_path / "store.db")
    database.open()
    database.write(noting("kept"))
    database.dispose()
    return tmp_path / "store.db"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    """The same, open."""
    database = at(file)
    database.open()
    yield database
    database.dispose()


# ---------------------------------------------------------------- opening


def test_a_new_file_and_those_beside_it_are_for_their_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        database = at(tmp_path / "store.db")
        database.open()
        database.write(noting("a"))
    finally:
        os.umask(before)

    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    database.dispose()
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_every_connection_keeps_the_rules(database):
    pragmas = {"foreign_keys": 1, "trusted_schema": 0, "cell_size_check": 1, "busy_timeout": 30_000, "journal_mode": "wal"}

    def kept(tx: Transaction) -> dict[str, object]:
        return {name: tx.execute(f"PRAGMA {name}", ()).fetchone()[0] for name in pragmas}

    assert database.write(kept) == pragmas
    with database.read() as tx:
        assert kept(tx) == pragmas


@pytest.mark.parametrize("name", ["50% #1.db", "a?mode=memory", "a b&c.db", "ü.db"])
def test_a_file_may_have_any_name(tmp_path, name):
    database = at(tmp_path / name)
    database.open()
    database.dispose()

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_path_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    database = at("store.db")
    monkeypatch.chdir(tmp_path / "elsewhere")

    database.open()
    database.write(noting("a"))

    assert (tmp_path / "store.db").exists()
    assert noted(database) == {"a"}
    database.dispose()


@pytest.mark.parametrize("how", [MUST_EXIST, READ_ONLY], ids=["must exist", "read-only"])
def test_a_missing_file_is_not_made_where_it_must_exist(tmp_path, how):
    with pytest.raises(StoreUnavailableError, match="there is no such file"):
        at(tmp_path / "store.db").open(**how)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [{}, MUST_EXIST, READ_ONLY], ids=["plain", "must exist", "read-only"])
def test_a_file_that_is_no_database_is_left_alone(tmp_path, how):
    (tmp_path / "notes.txt").write_text("not a database\n" * 500)

    with pytest.raises(StoreCorruptError, match="is not a SQLite database"):
        at(tmp_path / "notes.txt").open(**how)

    assert (tmp_path / "notes.txt").read_text() == "not a database\n" * 500
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_database_of_another_program_whose_tables_have_our_names_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("CREATE TABLE tasks (title TEXT)")

    with pytest.raises(StoreCorruptError, match="another program has tables"):
        at(tmp_path / "other.db").open()

    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        assert other.execute("SELECT sql FROM sqlite_master").fetchall() == [("CREATE TABLE tasks (title TEXT)",)]


@pytest.mark.parametrize(
    ("place", "kind", "cure"),
    [
        (".", StoreUnavailableError, "check that its folder exists"),
        ("missing/store.db", StoreUnavailableError, "make the folder first"),
        ("file/store.db", StoreUnavailableError, "check the path"),
    ],
)
def test_a_place_where_no_file_can_be_is_named_with_the_cure(tmp_path, place, kind, cure):
    (tmp_path / "file").touch()

    with pytest.raises(kind, match=cure) as refused:
        at(tmp_path / place).open()

    assert str(tmp_path / place) in str(refused.value)


# ---------------------------------------------------------------- read-only


def test_a_database_opened_read_only_can_be_read_and_not_written(file):
    database = at(file)
    database.open(read_only=True)

    assert noted(database) == {"kept"}
    with pytest.raises(StoreReadOnlyError, match="writable for this user"):
        database.write(noting("a"))
    assert noted(database) == {"kept"}
    database.dispose()


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A database with one row, closed, on a file system that cannot be written."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.getuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a file system to write-protect")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount file systems")
    try:
        database = at(folder / "store.db")
        database.open()
        database.write(noting("kept"))
        database.dispose()
        subprocess.run([mount, "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run([umount, "--lazy", folder], check=True)


def test_a_database_on_a_read_only_file_system_can_be_looked_at(read_only_disk):
    database = at(read_only_disk / "store.db")
    database.open(read_only=True)

    assert noted(database) == {"kept"}
    database.dispose()


@pytest.mark.parametrize("name", ["store.db", "new.db"])
def test_a_database_on_a_read_only_file_system_is_not_opened_to_be_written(read_only_disk, name):
    with pytest.raises(StoreReadOnlyError, match="writable"):
        at(read_only_disk / name).open()


# ---------------------------------------------------------------- full


def fill_up(tx: Transaction) -> None:
    for n in range(1_000):
        noting(f"{n} {'x' * 1_000}")(tx)


def limit(database: Database, pages: int | None) -> None:
    """Let a database grow no more, or as it likes."""
    (now,) = database._writing().execute("PRAGMA page_count").fetchone()
    database._writing().execute(f"PRAGMA max_page_count = {now if pages is None else pages}").fetchone()


def test_a_full_database_says_so_keeps_what_it_has_and_goes_on_once_there_is_space(database):
    limit(database, None)

    with pytest.raises(StoreFullError, match="free some space"):
        database.write(fill_up)
    assert noted(database) == {"kept"}

    limit(database, 1_000_000)
    database.write(noting("more"))
    assert noted(database) == {"kept", "more"}


def test_a_full_database_is_told_to_all_of_a_common_commit_since_none_is_recorded(database):
    limit(database, None)
    filling = Part("filling")
    filling.apply = fill_up
    parts = [Part("before"), filling, Part("after")]

    together(database, *parts)

    assert [type(part.told[0]) for part in parts] == [StoreFullError] * 3
    assert noted(database) == {"kept"}


LIMITED = """
import resource, sys
from liteflow.errors import StoreFullError
from liteflow.store.database import Database
from tests.test_database import noted, noting
from tests.test_dialects import fill_up

database = Database(sys.argv[1])
database.open()
database.write(noting("kept"))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
try:
    database.write(fill_up)
except StoreFullError as error:
    print(error.what)
print(noted(database))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
database.write(noting("more"))
print(len(noted(database)))
"""


def test_a_file_that_may_not_grow_is_told_as_a_full_disk(tmp_path):
    said, kept, count = output_of(LIMITED, f"sqlite:///{tmp_path / 'store.db'}")

    assert "refused to write" in said
    assert (kept, count) == ("{'kept'}", "2")


# ---------------------------------------------------------------- locked

HOLDS = """
import sqlite3, sys, threading

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked")
threading.Event().wait(60)
"""


def test_a_database_that_another_process_keeps_locked_says_how_to_find_it(file, monkeypatch):
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 0.05)
    database = at(file)
    database.open()
    holder = Child(HOLDS, file)
    assert holder.line() == "locked"
    other = Part("other")

    with pytest.raises(StoreUnavailableError, match=r"locked .* end that program's transaction.*fuser"):
        database.write(noting("a"))
    database.join_commit(other)
    assert noted(database) == {"kept"}  # reading waits for nobody
    holder.kill()

    database.write(noting("b"))
    assert isinstance(other.told[0], StoreUnavailableError)
    assert noted(database) == {"kept", "b"}
    database.dispose()


def test_a_database_that_is_locked_for_a_while_is_waited_for(database, file):
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = Helper(lambda: database.write(noting("a")))
        until(lambda: database._leading)
        assert not writing.is_done
        other.execute("COMMIT")

    writing.result()
    assert noted(database) == {"kept", "a"}


# ---------------------------------------------------------------- what is said


def test_an_error_of_the_database_names_the_store_and_holds_no_values(database, file):
    with pytest.raises(StoreError) as refused:
        database.write(lambda tx: [noting("secret")(tx) for _ in range(2)])

    assert f"sqlite:///{file}" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert isinstance(refused.value.__cause__, sqlite3.IntegrityError)


def test_an_error_that_is_not_the_databases_is_passed_on_as_it_is(database):
    with pytest.raises(ZeroDivisionError), database.read():
        raise ZeroDivisionError
    with pytest.raises(sqlite3.ProgrammingError):  # ours: a statement and its parameters do not fit
        database.write(lambda tx: tx.execute("SELECT ?", ()))


def test_a_damaged_database_is_told_from_a_good_one(file):
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)

    with pytest.raises(StoreCorruptError, match="damaged"):
        at(file).open()
