"""Where databases differ: how each is connected, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from liteflow.errors import StoreCorruptError, StoreError, StoreFullError, StoreReadOnlyError, StoreUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

BUSY_SECONDS = 30.0
SQLITE_VERSION = sqlite3.sqlite_version_info
_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA synchronous = NORMAL",
)


def sqlite_file(url: URL) -> Path | None:
    """Return the file of a SQLite URL, from where this process is now; ``None`` for a database in memory."""
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name).absolute()


def sqlite_engine(url: URL, file: Path | None, *, must_exist: bool, read_only: bool) -> Engine:
    """Return an engine whose transactions are our own: ``BEGIN IMMEDIATE`` to write, ``BEGIN`` to read.

    SQLAlchemy's default lets two processes read before they write, and loses one's update; see its documentation of pysqlite.
    """
    if file is None:
        connect_args: dict[str, Any] = {"check_same_thread": False}
        target = url
    else:
        mode = _to_look_at(file) if read_only else "rw" if must_exist else "rwc"
        name = f"file:{_quoted(file)}?mode={mode}"
        target, connect_args = url.set(database=name, query={"uri": "true"}), {"check_same_thread": False}
        if not read_only:
            _make_writable(file, url.render_as_string(hide_password=True), create=mode == "rwc")
    engine = create_engine(
        target, paramstyle="qmark", hide_parameters=True, poolclass=StaticPool if file is None else NullPool,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, **connect_args},
    )  # fmt: skip

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in (*_PRAGMAS, "PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = WAL"):
            connection.execute(pragma).fetchone()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # noqa: ANN401 - a SQLAlchemy Connection
        reads = connection.get_execution_options().get("liteflow_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _quoted(file: Path) -> str:
    return str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _has_log(file: Path) -> bool:
    """Whether somebody has the database open, or has died with it open."""
    return file.with_name(f"{file.name}-wal").exists()


def can_be_written(file: Path) -> bool:
    """Whether this user may write a database, and the files that SQLite keeps beside it."""
    return os.access(file, os.W_OK) and (_has_log(file) or os.access(file.parent, os.W_OK))


def _to_look_at(file: Path) -> str:
    """Return the mode in which SQLite opens a file for a short look, and leaves no trace: neither in it nor beside it.

    Of the files that it makes to lock with, it removes those that it could also write; where it cannot make any, it goes without.
    """
    if _has_log(file):
        return "ro"
    return "rw" if can_be_written(file) else "ro&immutable=1"


_CREATION_REFUSED: dict[int | None, tuple[type[StoreError], str]] = {
    errno.ENOENT: (StoreUnavailableError, "make the folder first"),
    errno.EACCES: (StoreReadOnlyError, "make the folder writable for this user"),
    errno.EPERM: (StoreReadOnlyError, "make the folder writable for this user"),
    errno.EROFS: (StoreReadOnlyError, "make the file system writable"),
    errno.ENOSPC: (StoreFullError, "free some space"),
    errno.EDQUOT: (StoreFullError, "free some space"),
}


def _make_writable(file: Path, store: str, *, create: bool) -> None:
    """Create a file that only its owner reads, before SQLite would create one that all do; refuse one that cannot be written."""
    try:
        if create:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        kind, cure = _CREATION_REFUSED.get(error.errno, (StoreUnavailableError, "check the path"))
        raise kind(store, f"the file cannot be created ({error.strerror})", f"{cure}, or choose another place") from error
    if not can_be_written(file):
        raise StoreReadOnlyError(store, *_READ_ONLY)


_READ_ONLY = "the database cannot be written", "make the file and its folder writable for this user"
_MEANINGS: tuple[tuple[str, type[StoreError], str, str], ...] = (
    (
        "database or disk is full", StoreFullError, "the disk is full, or a size limit is reached",
        "free some space, then resume: what was recorded is safe",
    ),
    (
        "disk I/O error", StoreFullError, "the disk refused to write: it may be full, or failing",
        "free some space or check the disk, then resume: what was recorded is safe",
    ),
    ("readonly database", StoreReadOnlyError, *_READ_ONLY),
    (
        "database is locked", StoreUnavailableError, f"another program has kept the database locked for {BUSY_SECONDS:g} s",
        "end that program's transaction, then resume; `fuser FILE` names who has it open: a shell, a backup, a stopped process",
    ),
    (
        "not a database", StoreCorruptError, "the file is not a SQLite database", "name another file, or move this one away",
    ),
    (
        "malformed", StoreCorruptError, "the database is damaged",
        "restore a backup, or save what is readable with: sqlite3 FILE .recover",
    ),
    (
        "unable to open", StoreUnavailableError, "the file cannot be opened",
        "check that its folder exists, and that this user may read and write it",
    ),
    (
        "no such table", StoreCorruptError, "a table is missing: the database is not LiteFlow's, or was changed by hand",
        "name another database, or restore a backup",
    ),
    (
        "already exists", StoreCorruptError, "another program has tables or views there that are named like LiteFlow's",
        "name another database",
    ),
)  # fmt: skip


def store_error(error: BaseException, store: str) -> StoreError | None:
    """Return what an error of the database means to its user, or ``None`` if it is not the database's."""
    original = getattr(error, "orig", None) or error
    if not isinstance(original, sqlite3.Error) or isinstance(original, sqlite3.ProgrammingError):
        return None
    message = str(original)
    for part, kind, what, cure in _MEANINGS:
        if part in message:
            return kind(store, what, cure)
    return StoreError(store, f"the database says: {message}", "look at `liteflow doctor`")
