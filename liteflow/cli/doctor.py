"""`liteflow doctor`: versions, the store, and known problems with the cure."""

from __future__ import annotations

import json
import os
import platform
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liteflow.cli.options import existing, store_option
from liteflow.errors import LiteFlowError, SchemaOutdatedError

if TYPE_CHECKING:
    from liteflow.store.database import Database, Transaction

WAL_RESET_MENDED = (3, 51, 3)  # https://www.sqlite.org/wal.html, "The WAL-Reset Bug"
MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3",
    "smbfs", "vboxsf",
})  # fmt: skip
SYNCHRONOUS = ("off", "normal", "full", "extra")


@dataclass(slots=True)
class Findings:
    """What there is to say.

    Attributes:
        facts: by name, as they are shown.
        notes: what one may want to know or mend.
        problems: what keeps the store from being used.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@click.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(store: str, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Look at versions and at the store; change nothing. Exits with 1 if something keeps the store from being used."""
    found = Findings()
    _versions(found)
    try:
        _store(store, found)
    except LiteFlowError as error:
        found.problems.append(f"[{error.code}] {error}")
    if as_json:
        click.echo(json.dumps({**found.facts, "notes": found.notes, "problems": found.problems}))
    else:
        _show(found)
    raise SystemExit(1 if found.problems else 0)


def _versions(found: Findings) -> None:
    from importlib.metadata import version  # noqa: PLC0415 - --help does not need it

    from liteflow.store.dialects import SQLITE_VERSION  # noqa: PLC0415 - brings SQLAlchemy, which --help does not need

    sqlite = ".".join(map(str, SQLITE_VERSION))
    found.facts |= {"LiteFlow": version("liteflow"), "Python": platform.python_version()}
    found.facts |= {"SQLAlchemy": version("sqlalchemy"), "SQLite": sqlite}
    if SQLITE_VERSION < WAL_RESET_MENDED:
        found.notes.append(
            f"SQLite {sqlite} may, very rarely, damage a database that many processes write: "
            "install 3.51.3 or newer if you have many"
        )


def _store(store: str, found: Findings) -> None:
    """Find what a store says, as far as it can be read."""
    from liteflow.store import schema  # noqa: PLC0415 - as above
    from liteflow.store.database import Database  # noqa: PLC0415 - as above

    file = (asked := Database(store)).file
    found.facts["store"] = asked.url_masked
    if file is None:
        found.notes.append("a store in memory ends with its process; for one that lasts: --store sqlite:///path/to/file.db")
    elif not file.exists():
        _place(file, found)
    else:
        _file(file, found)
        database = existing(store, read_only=True)
        _schema(database, found)
        if found.facts["schema"] == schema.head():
            _contents(database, found)


def _place(file: Path, found: Findings) -> None:
    """Find whether a file that is not there can be made."""
    if not file.parent.is_dir():
        found.problems.append(f"there is no folder {file.parent}; make it first: mkdir -p {file.parent}")
    elif not os.access(file.parent, os.W_OK):
        found.problems.append(f"this user may not write to {file.parent}; make it writable, or choose another place")
    else:
        found.notes.append(f"there is no {file} yet; the first run makes it")


def _file(file: Path, found: Findings) -> None:
    """Find what the file system knows of a file."""
    from liteflow.store.dialects import can_be_written  # noqa: PLC0415 - as above

    mode, log = stat.S_IMODE(file.stat().st_mode), file.with_name(f"{file.name}-wal")
    kind = file_system(file, MOUNTS.read_text(encoding="utf-8") if MOUNTS.exists() else "")
    found.facts |= {"file system": kind or "unknown", "permissions": f"{mode:04o}"}
    found.facts |= {"bytes": file.stat().st_size, "bytes in the WAL": log.stat().st_size if log.exists() else 0}
    if mode & 0o077:
        found.notes.append(f"{file} is open to other users ({mode:04o}); if it holds secrets: chmod 600 {file}")
    if kind in NETWORK:
        found.notes.append(f"{file} is on a network file system ({kind}), where locks may fail: move it to a local disk")
    if not can_be_written(file):
        found.problems.append(f"this user may not write {file}; make the file and its folder writable")


def file_system(file: Path, mounts: str) -> str | None:
    """Return the type of the file system that a file is on, by the text of ``/proc/self/mountinfo``."""
    kinds = {}
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        kinds[Path(place.split()[4].replace("\\040", " "))] = kind.split()[0]  # a later mount hides an earlier one
    return next((kinds[folder] for folder in file.resolve().parents if folder in kinds), None)


def _schema(database: Database, found: Findings) -> None:
    """Find how a database is set, and whether its schema is this version's, or will be."""
    from liteflow.store import schema  # noqa: PLC0415 - as above
    from liteflow.store.tables import metadata  # noqa: PLC0415 - as above

    with database.read() as tx:
        found.facts["journal mode"] = _first(tx, "PRAGMA journal_mode")
        found.facts["synchronous"] = f"{SYNCHRONOUS[_first(tx, 'PRAGMA synchronous')]}; full for what is acknowledged"
        tables = {row[0] for row in tx.execute("SELECT name FROM sqlite_master WHERE type = 'table'", ()).fetchall()}
    revision = schema.current(database)
    found.facts |= {"schema": revision or "none", "schema of this version": schema.head()}
    try:
        schema.check(database)
    except SchemaOutdatedError:
        if revision is not None:
            found.notes.append(f"the next run upgrades schema {revision} to {schema.head()}, and keeps a backup beside it")
        elif others := sorted(tables & metadata.tables.keys()):
            found.problems.append(f"another program has a table there named {others[0]}, as LiteFlow has; name another file")
        else:
            found.notes.append("it has no LiteFlow tables yet; the first run makes them")
    except LiteFlowError as error:
        found.problems.append(f"[{error.code}] {error}")


def _contents(database: Database, found: Findings) -> None:
    """Find how many runs there are, and which of them nobody works on."""
    from liteflow.clock import SystemClock  # noqa: PLC0415 - as above
    from liteflow.engine.ownership import is_gone  # noqa: PLC0415 - as above
    from liteflow.store.store import Store  # noqa: PLC0415 - as above

    store = Store(database)
    with database.read() as tx:
        counts = dict(tx.execute("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status", ()).fetchall())
        live = tx.execute("SELECT id, owner_id FROM runs WHERE status IN ('running', 'waiting')", ()).fetchall()
        now = SystemClock().now()
        lost = [run_id for run_id, owner in live if is_gone(store.owner(tx, owner) if owner else None, now)]
    if lost:
        shown = ", ".join(lost[:3]) + (" …" if len(lost) > 3 else "")  # noqa: PLR2004 - enough to recognise them
        found.notes.append(f"{len(lost)} interrupted: {shown}; flow.recover() goes on with them")
    found.facts |= {"runs": sum(counts.values()), **{f"runs {status}": count for status, count in counts.items()}}


def _first(tx: Transaction, statement: str) -> Any:  # noqa: ANN401 - what the database says
    return tx.execute(statement, ()).fetchone()[0]


def _show(found: Findings) -> None:
    width = max(map(len, found.facts))
    for name, value in found.facts.items():
        click.echo(f"{name:<{width}}  {value}")
    for note in found.notes:
        click.secho(f"note: {note}", fg="yellow")
    for problem in found.problems:
        click.secho(f"problem: {problem}", fg="red")
    if not found.problems:
        click.secho("nothing keeps this store from being used", fg="green")
