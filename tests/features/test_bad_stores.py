"""A database that is none, is damaged, newer, read-only, full or locked: one clear error, and nothing is lost or half-written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import (
    Context,
    Flow,
    LiteFlowError,
    NextTask,
    SchemaTooNewError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    TaskOutput,
)
from liteflow.store import dialects
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import Helper, passes

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "sqlite:///"


def path_of(store: str) -> Path:
    return Path(store.removeprefix(URL))


def ways_in(store: str) -> list:
    """Everything that opens a store."""

    def run() -> None:
        with Flow(store=store) as flow:
            flow.add_task("a", lambda ctx: 1)
            flow.run("a")

    return [run, lambda: Flow(store=store).get_run("r"), lambda: Context(store=store).set("a", 1)]


# ---------------------------------------------------------------- what is no database of ours


@pytest.mark.parametrize("content", [b"no database" * 1_000, b"\x89PNG\r\n", b"SQLite format 3\0" + b"\xff" * 4_080])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(store: str, content: bytes):
    path_of(store).write_bytes(content)

    for way in ways_in(store):
        with pytest.raises(StoreCorruptError, match=r"not a SQLite database|damaged") as refused:
            way()
        assert refused.value.store == store
        assert refused.value.cure in str(refused.value)

    assert path_of(store).read_bytes() == content
    assert [path.name for path in path_of(store).parent.iterdir()] == ["liteflow.db"]


def test_a_damaged_database_is_told_from_a_good_one(store: str):
    with Flow(store=store) as flow:
        for n in range(200):
            flow.context.set(f"key {n}", "x" * 1_000)
    content = bytearray(path_of(store).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path_of(store).write_bytes(content)

    with pytest.raises(StoreCorruptError) as refused:
        Context(flow.context.id, store=store).get("key 7")
    assert "backup" in str(refused.value)


def test_a_folder_or_a_path_that_does_not_exist_is_named_with_the_cure(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing" / "liteflow.db"):
        for way in ways_in(f"{URL}{path}"):
            with pytest.raises(StoreUnavailableError, match=str(path)):
                way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["nonsense", "nosuch://host/db", "mysql://user:secret@host/db", "postgresql://user:secret@host/db", 7]
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_its_password(url: object):
    with pytest.raises(LiteFlowError) as refused:
        Flow(store=url).context.set("a", 1)

    assert "secret" not in str(refused.value)


def test_a_database_of_a_newer_schema_is_refused_with_what_to_install_and_left_as_it_is(store: str):
    with Flow(store=store) as flow:
        flow.context.set("a", 1)
    with closing(sqlite3.connect(path_of(store))) as db, db:
        db.execute("UPDATE liteflow_schema SET version_num = '9999'")
    before = path_of(store).read_bytes()

    for way in ways_in(store):
        with pytest.raises(SchemaTooNewError, match=r"9999 is newer than .*install a newer LiteFlow"):
            way()

    assert path_of(store).read_bytes() == before
    assert not list(path_of(store).parent.glob("*before*"))


def test_a_new_database_file_is_for_its_owner_only(store: str):
    with Flow(store=store) as flow:
        flow.context.set("a", 1)

        for path in path_of(store).parent.iterdir():
            assert path.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------- read-only, and full


def mount(*arguments: str) -> None:
    found = shutil.which("mount")
    if os.getuid() != 0 or found is None:
        pytest.skip("only root can mount a file system to fill or to write-protect")
    if subprocess.run([found, *arguments], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount file systems")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - the system's own


def is_sound(store: str) -> bool:
    return one(store, "PRAGMA integrity_check") == "ok"


def test_a_database_on_a_read_only_file_system_is_named_with_the_cure(small_disk: Path):
    store = f"{URL}{small_disk / 'liteflow.db'}"
    with Flow(store=store) as flow:
        flow.context.set("a", 1)
    mount("-o", "remount,ro", str(small_disk))

    for way in ways_in(store):
        with pytest.raises(StoreReadOnlyError, match="writable"):
            way()


def test_a_new_database_on_a_read_only_file_system_is_named_with_the_cure(small_disk: Path):
    mount("-o", "remount,ro", str(small_disk))

    for way in ways_in(f"{URL}{small_disk / 'liteflow.db'}"):
        with pytest.raises(StoreReadOnlyError, match="writable"):
            way()


READS_ONLY = """
import os, sys
from liteflow import Context, StoreReadOnlyError
import liteflow.engine.engine, liteflow.store.schema, alembic.command  # while this user may

if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    Context(store=sys.argv[1]).set("a", 2)
except StoreReadOnlyError as error:
    print(error)
"""


def test_a_database_that_a_user_may_only_read_is_named_with_the_cure(store: str):
    """As another user, since root may write everything."""
    with Flow(store=store) as flow:
        flow.context.set("a", 1)
    path_of(store).chmod(0o444)
    for folder in path_of(store).parents:
        if folder == path_of(store).parent or folder.name.startswith("pytest"):
            folder.chmod(0o755)
    if not all(folder.stat().st_mode & 0o001 for folder in path_of(store).parents):
        pytest.skip("other users may not enter the folder for temporary files")
    path_of(store).parent.chmod(0o555)

    child = Child(READS_ONLY, store)
    code = child.end()
    path_of(store).parent.chmod(0o755)

    assert code == 0, child.errors
    (line,) = child.lines()
    assert line.startswith(f"Store {store}: ")
    assert "writable for this user" in line


def fill(folder: Path) -> Path:
    """Take up all space that is left; return the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4_096):
                pass
        except OSError:
            pass
    return ballast


def test_a_write_on_a_full_disk_is_refused_and_works_again_once_there_is_space(small_disk: Path):
    with Flow(store=f"{URL}{small_disk / 'liteflow.db'}") as flow:
        flow.context.set("a", 1)
        ballast = fill(small_disk)

        with pytest.raises(StoreFullError, match="free some space"):
            flow.context.from_dict({f"big {n}": [n] * 20_000 for n in range(100)})
        ballast.unlink()
        flow.context.set("a", 2)

        assert flow.context.to_dict() == {"a": 2}
        assert is_sound(f"{URL}{small_disk / 'liteflow.db'}")


def test_a_run_that_meets_a_full_disk_stops_with_one_error_and_goes_on_once_there_is_space(small_disk: Path):
    store = f"{URL}{small_disk / 'liteflow.db'}"
    ballast: list[Path] = []

    with Flow(store=store) as flow:

        @flow.task("loop")
        def loop(ctx: Context):
            turn = ctx.get("turn", 0) + 1
            if turn == 3 and not ballast:
                ballast.append(fill(small_disk))
            ctx.set("turn", turn)
            ctx.set("big", [turn] * 10_000)
            return TaskOutput(turn, [NextTask("loop")] if turn < 6 else None)

        run = flow.start("loop")
        with pytest.raises(StoreFullError, match="free some space"):
            run.result(20)
        done = run.context.get("turn")
        ballast[0].unlink()

        resumed = flow.resume(run.id)
        assert resumed.result(20) == {"loop": 6}
        assert [version.value for version in resumed.context.history("turn")] == [1, 2, 3, 4, 5, 6]
        assert done < 6
        assert is_sound(store)


LIMITED = """
import resource, sys
from liteflow import Context, Flow, NextTask, StoreFullError, TaskOutput

flow = Flow(store=sys.argv[1])

@flow.task("loop")
def loop(ctx):
    turn = ctx.get("turn", 0) + 1
    ctx.set("turn", turn)
    ctx.set("big", [turn] * 10_000)
    return TaskOutput(turn, [NextTask("loop")] if turn < 40 else None)

flow.context.set("a", 1)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, most))
try:
    flow.run("loop", run_id="r")
except StoreFullError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
print(flow.resume("r").result(20))
print([version.value for version in flow.get_run("r").context.history("turn")] == list(range(1, 41)))
"""


def test_a_limit_of_the_file_size_is_met_like_a_full_disk(store: str):
    child = Child(LIMITED, store)

    assert child.end() == 0, child.errors
    refused, result, whole = child.lines()
    assert refused.startswith(f"Store {store}: ")
    assert "free some space" in refused
    assert (result, whole) == ("{'loop': 40}", "True")
    assert is_sound(store)


# ---------------------------------------------------------------- locked by another program

LOCKS = """
import sqlite3, sys, threading

db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked")
threading.Event().wait(float(sys.argv[2]))
db.execute("COMMIT")
print("free")
"""


def test_a_database_that_another_program_locks_for_10_seconds_is_waited_for(tmp_path: Path):
    stores = [f"{URL}{tmp_path / name}.db" for name in ("starting", "running")]
    began, go_on = threading.Event(), threading.Event()
    starting, running = (Flow(store=store) for store in stores)
    starting.context.set("a", 1)
    starting.close()
    for flow in (starting, running):
        flow.add_task("a", lambda ctx: TaskOutput(None, [NextTask("b")]))
        flow.add_task("b", lambda ctx: "done")
    running.add_task("first", lambda ctx: began.set() or passes(go_on) or TaskOutput(None, [NextTask("a")]))
    run = running.start("first")
    passes(began)
    children = [Child(LOCKS, path_of(store), 10) for store in stores]
    assert [child.line() for child in children] == ["locked"] * 2

    go_on.set()
    started = Helper(lambda: starting.run("a"))

    assert run.result(25) == {"b": "done"}
    assert started.result() == {"b": "done"}
    assert [child.line() for child in children] == ["free"] * 2
    assert [child.end() for child in children] == [0, 0]
    starting.close()
    running.close()


def test_a_database_that_stays_locked_is_an_error_that_says_so_and_the_run_can_be_resumed(
    store: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 0.2)
    began, go_on = threading.Event(), threading.Event()
    with Flow(store=store) as flow:
        flow.add_task("first", lambda ctx: began.set() or passes(go_on) or TaskOutput(None, [NextTask("second")]))
        flow.add_task("second", lambda ctx: ctx.get("first"))
        run = flow.start("first")
        passes(began)

        with closing(sqlite3.connect(path_of(store), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            go_on.set()
            with pytest.raises(StoreUnavailableError, match=r"locked for .* s; .*, then resume"):
                run.result(20)
            with pytest.raises(StoreUnavailableError, match="locked"):
                flow.context.set("a", 1)
            with pytest.raises(StoreUnavailableError, match="locked"):
                flow.start("first")
            other.execute("COMMIT")

        assert len(flow.runs()) == 1
        assert flow.resume(run.id).result(20) == {"second": None}


def test_a_database_that_was_locked_leaves_nothing_half_written(store: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dialects, "BUSY_SECONDS", 0.1)
    with Flow(store=store) as flow:
        flow.add_task("a", lambda ctx: 1)
        flow.context.set("a", 0)
        tables = ("contexts", "owners", "runs", "tasks", "writes", "chunks", "attempts")
        count = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)  # noqa: S608 - names from here
        before = rows(store, count)

        with closing(sqlite3.connect(path_of(store), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for call in (lambda: flow.run("a", {"b": 1}), lambda: flow.context.from_dict({"c": 1, "d": 2})):
                with pytest.raises(StoreError, match="locked"):
                    call()
            other.execute("ROLLBACK")

        assert rows(store, count) == before
        assert flow.run("a") == {"a": 1}
