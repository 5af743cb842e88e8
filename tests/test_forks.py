"""A process that forks: the child has connections of its own or none, and the parent's file is safe."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.features.children import output_of

BEGIN = """
import os, sys, threading
from liteflow.errors import StoreError
from liteflow.store import database as module
from liteflow.store.database import Database
from tests.test_database import noted, noting

class Turn:
    "One process tells the other that it may go on."
    def __init__(self): self._read, self._write = os.pipe()
    def give(self): os.write(self._write, b"x")
    def take(self): os.read(self._read, 1)

def fork(child):
    pid = os.fork()
    if not pid:
        try:
            child()
        except StoreError as error:
            print(error.what, flush=True)
        finally:
            os._exit(0)
    return pid

database = Database(sys.argv[1])
database.open()
database.write(noting("parent"))
noted(database)
"""


def rows(path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in connection.execute("SELECT id FROM owners")}


def test_what_a_forked_child_has_synced_outlives_the_parent(tmp_path):
    output_of(
        f"""{BEGIN}
written, closed = Turn(), Turn()

def child():
    database.write(noting("first"), sync=True)
    written.give()
    closed.take()
    database.write(noting("second"), sync=True)

pid = fork(child)
written.take()
database.dispose()  # of the last connection, as it believes: that removes the log, if nobody locks it
closed.give()
os.waitpid(pid, 0)
""",
        f"sqlite:///{tmp_path / 'store.db'}",
    )

    assert rows(tmp_path / "store.db") == {"parent", "first", "second"}


def test_a_forked_child_uses_no_connection_of_its_parent_and_leaves_it_to_its_work(tmp_path):
    lines = output_of(
        f"""{BEGIN}
own = set(map(id, database._opened))

def child():
    assert not database._opened and not database._leading
    opened = [os.path.realpath(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")]
    print([name for name in opened if "store.db" in name], flush=True)

os.waitpid(fork(child), 0)
database.write(noting("after"))
print(own == set(map(id, database._opened)))
""",
        f"sqlite:///{tmp_path / 'store.db'}",
    )

    assert lines == ["[]", "True"]
    assert rows(tmp_path / "store.db") == {"parent", "after"}


def test_a_sync_that_a_forked_child_asks_for_is_one(tmp_path):
    lines = output_of(
        f"""{BEGIN}
database.write(noting("synced"), sync=True)

def child():
    database.write(lambda tx: print(tx.execute("PRAGMA synchronous", {{}}).fetchone()[0], flush=True), sync=True)

os.waitpid(fork(child), 0)
""",
        f"sqlite:///{tmp_path / 'store.db'}",
    )

    assert lines == ["2"]


def test_a_fork_waits_for_the_commit_under_way(tmp_path):
    lines = output_of(
        f"""{BEGIN}
module.FORK_PATIENCE = 20
begun, waiting = threading.Event(), threading.Event()
forking = lambda: waiting.set()
os.register_at_fork(before=forking)  # runs before ours, which waits

def work(tx):
    noting("whole")(tx)
    begun.set()
    assert waiting.wait(20)

writer = threading.Thread(target=database.write, args=(work,))
writer.start()
begun.wait(20)

def child():
    print(sorted(noted(database)), flush=True)
    database.write(noting("child"))

os.waitpid(fork(child), 0)
writer.join(20)
""",
        f"sqlite:///{tmp_path / 'store.db'}",
    )

    assert lines == ["['parent', 'whole']"]
    assert rows(tmp_path / "store.db") == {"parent", "whole", "child"}


def test_a_child_forked_while_another_thread_is_at_work_refuses_the_file_and_harms_nothing(tmp_path):
    lines = output_of(
        f"""{BEGIN}
module.FORK_PATIENCE = 0.05
begun, forked = threading.Event(), threading.Event()

def work(tx):
    for n in range(3_000):  # more than SQLite keeps in memory
        noting(f"{{n}} {{'x' * 1_000}}")(tx)
    begun.set()
    assert forked.wait(20)

writer = threading.Thread(target=database.write, args=(work,))
writer.start()
begun.wait(20)

def child():
    try:
        noted(database)
    except StoreError as error:
        print(error.what, flush=True)
    Database(sys.argv[1]).open()

os.waitpid(fork(child), 0)
forked.set()
writer.join(20)
database.write(noting("after"))
""",
        f"sqlite:///{tmp_path / 'store.db'}",
    )

    assert lines == ["this process was forked while another thread of its parent was using it"] * 2
    assert len(rows(tmp_path / "store.db")) == 3_000 + 2


def test_a_database_in_memory_stays_with_the_parent(tmp_path):
    lines = output_of(
        f"""{BEGIN}
os.waitpid(fork(lambda: noted(database)), 0)
print(noted(database))
""",
        "sqlite://",
    )

    assert lines == ["it is not open in this process", "{'parent'}"]
