"""Which schema a database has, and bringing it to this version's. The only way to a schema is the migrations."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from liteflow.errors import SchemaOutdatedError, SchemaTooNewError
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from liteflow.store.database import Database

REVISIONS = ("0001",)  # oldest first; known without Alembic, which takes half a second to import
VERSION_TABLE = "liteflow_schema"
_alembic = threading.Lock()  # it keeps its connection in globals: two upgrades at once would mix up their files


def head() -> str:
    """Return the revision that this version writes."""
    return REVISIONS[-1]


def current(database: Database) -> str | None:
    """Return the revision of a database, ``None`` if it has no LiteFlow tables."""
    with database.read() as tx:
        known = tx.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (VERSION_TABLE,))
        if known.fetchone() is None:
            return None
        row = tx.execute(f"SELECT version_num FROM {VERSION_TABLE}", ()).fetchone()  # noqa: S608 - a constant
    return None if row is None else str(row[0])


def check(database: Database) -> None:
    """Raise unless the database has this version's schema.

    Raises:
        SchemaTooNewError: a newer LiteFlow wrote it.
        SchemaOutdatedError: it is to be upgraded first.
    """
    revision = current(database)
    if revision is not None and revision not in REVISIONS:
        raise SchemaTooNewError(
            database.url_masked, f"its schema {revision} is newer than {head()}, the newest that this LiteFlow knows",
            "install a newer LiteFlow: pip install --upgrade, from where you have this one",
        )  # fmt: skip
    if revision != head():
        raise SchemaOutdatedError(
            database.url_masked, f"its schema is {revision or 'empty'}, this LiteFlow needs {head()}",
            f"run: liteflow db upgrade --store {database.url_masked}",
        )  # fmt: skip


def bring_up(database: Database) -> Path | None:
    """Give a new file its schema, and an older one the newer schema, after a backup beside it.

    Returns:
        Where the backup is, if one was made.

    Raises:
        SchemaTooNewError: a newer LiteFlow wrote it; it is left as it is.
    """
    try:
        check(database)
    except SchemaOutdatedError:
        return upgrade(database)
    return None


def back_up(database: Database, suffix: str) -> Path:
    """Copy a SQLite database beside itself, through SQLite's own backup, and return where to."""
    if database.file is None:
        raise ValueError("a database in memory has no place beside it")
    target = Path(f"{database.file}.{suffix}")
    target.touch(mode=0o600)
    with database.errors(), database.engine.connect() as connection:
        copy = sqlite3.connect(target)
        try:
            connection.connection.driver_connection.backup(copy)  # type: ignore[union-attr] # a sqlite3.Connection
        finally:
            copy.close()
    return target


def scripts() -> Path:
    """Return the folder of the migrations: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[1]
    beside = package.parent / "migrations"
    return beside if (beside / "env.py").exists() else package / "migrations"


def upgrade(database: Database) -> Path | None:
    """Run the migrations that a database lacks, in one transaction: all of them, or nothing.

    Returns:
        Where the backup is, if one was made.
    """
    from alembic import command  # noqa: PLC0415 - takes half a second to import, and is rarely needed
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    kept = None
    with _alembic, database.errors(), database.engine.begin() as connection:  # from here on nobody else writes, nor upgrades
        if database.file is not None and (revision := current(database)) not in {None, head()}:
            kept = back_up(database, f"before-{head()}")
            logger.warning("%s has schema %s; upgrading to %s, backup in %s", database.url_masked, revision, head(), kept)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return kept


def _forget_upgrades() -> None:
    global _alembic  # noqa: PLW0603 - the lock of a forked child, where nobody is left to release the parent's
    _alembic = threading.Lock()


os.register_at_fork(after_in_child=_forget_upgrades)
