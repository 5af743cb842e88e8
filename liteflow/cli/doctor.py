"""`liteflow doctor`: versions, the store, and known problems with the cure."""

from __future__ import annotations

import json
import platform
import stat
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from liteflow.cli.options import existing, store_option
from liteflow.errors import LiteFlowError

if TYPE_CHECKING:
    from pathlib import Path

    from liteflow.store.database import Database, Transaction

WAL_RESET_MENDED = (3, 51, 3)  # https://www.sqlite.org/wal.html, "The WAL-Reset Bug"


@click.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(store: str, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Look at versions and at the store; change nothing. Exits with 1 if something keeps the store from being used."""
    from liteflow.store.database import Database  # noqa: PLC0415 - brings SQLAlchemy, which --help does not need
    from liteflow.store.dialects import SQLITE_VERSION  # noqa: PLC0415 - as above

    found, notes, problems = _versions(), [], []
    found["SQLite"] = sqlite = ".".join(map(str, SQLITE_VERSION))
    if SQLITE_VERSION < WAL_RESET_MENDED:
        notes.append(
            f"SQLite {sqlite} may, very rarely, damage a database that many processes write: "
            "install 3.51.3 or newer if you have many"
        )
    try:
        if (file := Database(store).file) is not None and not file.exists():
            notes.append(f"there is no {file} yet; the first run makes it")
        else:
            database = existing(store, read_only=True)
            found |= _store(database, notes)
            found |= _contents(database, notes)
    except LiteFlowError as error:
        problems.append(f"[{error.code}] {error}")
    if as_json:
        click.echo(json.dumps({**found, "notes": notes, "problems": problems}))
    else:
        _show(found, notes, problems)
    raise SystemExit(1 if problems else 0)


def _versions() -> dict[str, Any]:
    return {"LiteFlow": version("liteflow"), "Python": platform.python_version(), "SQLAlchemy": version("sqlalchemy")}


def _store(database: Database, notes: list[str]) -> dict[str, Any]:
    """Return what the file tells of itself."""
    from liteflow.store import schema  # noqa: PLC0415 - brings SQLAlchemy, which --help does not need

    with database.read() as tx:
        found: dict[str, Any] = {"store": database.url_masked, "journal mode": _first(tx, "PRAGMA journal_mode")}
    revision = schema.current(database)
    found |= {"schema": revision or "none", "schema of this version": schema.head()}
    schema.check(database)
    if database.file is not None:
        found |= _file(database.file, notes)
    return found


def _file(file: Path, notes: list[str]) -> dict[str, Any]:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        notes.append(f"{file} can be read by others ({mode:04o}); if it holds secrets: chmod 600 {file}")
    wal = file.with_name(file.name + "-wal")
    return {
        "permissions": f"{mode:04o}",
        "bytes": file.stat().st_size,
        "bytes in the WAL": wal.stat().st_size if wal.exists() else 0,
    }


def _contents(database: Database, notes: list[str]) -> dict[str, Any]:
    """Return how many runs there are, and tell of those that nobody works on."""
    from liteflow.clock import SystemClock  # noqa: PLC0415 - as above
    from liteflow.engine.ownership import is_gone  # noqa: PLC0415 - as above
    from liteflow.store.store import Store  # noqa: PLC0415 - as above

    store = Store(database)
    with database.read() as tx:
        counts = dict(tx.execute("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status", {}).fetchall())
        live = tx.execute("SELECT id, owner_id FROM runs WHERE status IN ('running', 'waiting')", {}).fetchall()
        now = SystemClock().now()
        lost = [run_id for run_id, owner in live if is_gone(store.owner(tx, owner) if owner else None, now)]
    if lost:
        shown = ", ".join(lost[:3]) + (" …" if len(lost) > 3 else "")  # noqa: PLR2004 - enough to recognise them
        notes.append(f"{len(lost)} interrupted: {shown}; flow.recover() goes on with them")
    return {"runs": sum(counts.values()), **{f"runs {status}": count for status, count in counts.items()}}


def _first(tx: Transaction, statement: str) -> Any:  # noqa: ANN401 - what the database says
    return tx.execute(statement, {}).fetchone()[0]


def _show(found: dict[str, Any], notes: list[str], problems: list[str]) -> None:
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:<{width}}  {value}")
    for note in notes:
        click.secho(f"note: {note}", fg="yellow")
    for problem in problems:
        click.secho(f"problem: {problem}", fg="red")
    if not problems:
        click.secho("nothing keeps this store from being used", fg="green")
