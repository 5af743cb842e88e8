"""The floor: the same rows in the same transactions by plain ``sqlite3``, as LiteFlow writes them.

LiteFlow does the work once, and what its connections write is noted; then ``sqlite3`` writes that to a copy of the store as it
was before, which has the same tables, indexes and constraints, and must hold the same rows afterwards.
``python raw.py WORK SIZE [--together N]``: as many tasks to a transaction.
``python raw.py synced_commit SIZE``: the row of a run, synced to the disk.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from works import chain, fan_out, keys, stream

from liteflow import Flow, PoolExecutor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Write = tuple[str, tuple[Any, ...]]  # a statement, and the row that it writes
Batch = list[tuple[str, list[tuple[Any, ...]]]]  # the statements of a transaction, each with its rows

WORKS = {work.__name__: work for work in (chain, fan_out, keys, stream)}
PLACES = re.compile(r":(\w+)")
COMPLETES = "UPDATE tasks SET status='completed'"
TABLES = ("contexts", "runs", "tasks", "attempts", "writes", "chunks", "steps")


class Notes:
    """What is written, a list a transaction; one that is rolled back is not there."""

    def __init__(self) -> None:
        self.transactions: list[list[Write]] = []
        self._open: list[Write] = []

    def note(self, text: str, rows: Iterable[Any]) -> None:
        """Note what one statement writes, with its parameters by place."""
        if text.startswith("BEGIN"):
            self._open = []
        elif text.startswith("COMMIT"):
            self.commit()
        elif text.startswith(("INSERT", "UPDATE", "DELETE")):
            for row in rows:
                names = PLACES.findall(text) if isinstance(row, dict) else None
                placed = tuple(row) if names is None else tuple(row[name] for name in names)
                self._open.append((text if names is None else PLACES.sub("?", text), placed))

    def commit(self) -> None:
        """The transaction under way has committed."""
        if self._open:
            self.transactions.append(self._open)
        self._open = []


@contextmanager
def noted() -> Iterator[Notes]:
    """Note what is written over connections that are opened from now on."""
    notes = Notes()

    class Cursor(sqlite3.Cursor):
        def execute(self, text: str, row: Any = (), /) -> Any:
            done = super().execute(text, row)
            notes.note(text, [row])
            return done

        def executemany(self, text: str, rows: Iterable[Any], /) -> Any:
            given = list(rows)
            done = super().executemany(text, given)
            notes.note(text, given)
            return done

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, text: str, row: Any = (), /) -> Any:
            return self.cursor().execute(text, row)

        def executemany(self, text: str, rows: Iterable[Any], /) -> Any:
            return self.cursor().executemany(text, rows)

        def commit(self) -> None:
            super().commit()
            notes.commit()

    def connect(_dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> None:
        named["factory"] = Connection

    event.listen(Engine, "do_connect", connect)
    try:
        yield notes
    finally:
        event.remove(Engine, "do_connect", connect)


def replay(connection: sqlite3.Connection, transactions: list[list[Write]]) -> float:
    """Write all that was noted; return the seconds it took."""
    batches: list[Batch] = [
        [(text, [row for _, row in rows]) for text, rows in groupby(writes, key=itemgetter(0))] for writes in transactions
    ]
    cursor = connection.cursor()
    execute, executemany = cursor.execute, cursor.executemany
    began = time.perf_counter()
    for batch in batches:
        execute("BEGIN IMMEDIATE")
        for text, rows in batch:
            if len(rows) == 1:
                execute(text, rows[0])
            else:
                executemany(text, rows)
        execute("COMMIT")
    return time.perf_counter() - began


def together(transactions: list[list[Write]], count: int) -> list[list[Write]]:
    """Return the same writes with so many completed tasks to a transaction, like by like, as a batch would have them."""
    batches: list[list[Write]] = [[]]
    done = 0
    for write in (write for writes in transactions for write in writes):
        batches[-1].append(write)
        if write[0].startswith(COMPLETES):
            done += 1
            if done % count == 0:
                batches.append([])
    assert done, "no statement completes a task as this file knows it"
    order: dict[str, int] = {}
    for batch in batches:
        for text, _ in batch:
            order.setdefault(text, len(order))
        batch.sort(key=lambda write: order[write[0]])
    return [batch for batch in batches if batch]


def work(name: str, size: int, folder: Path, synchronous: str, count: int | None) -> float:
    """Return how many µs a task's share of a work takes."""
    file, raw = folder / "noted.db", folder / "raw.db"
    with noted() as notes, Flow(PoolExecutor(max_workers=1), store=f"sqlite:///{file}") as flow:
        flow.context.set("warm", 1)  # opens the store
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(raw)) as target:
            source.backup(target)
        notes.transactions.clear()
        WORKS[name](flow, size)
        transactions = list(notes.transactions)
        first = max(n for n, writes in enumerate(transactions) if any(text.startswith("INSERT INTO runs") for text, _ in writes))
        measured = together(transactions[first:], count) if count else transactions[first:]
        with closing(_connected(raw, synchronous)) as connection:
            replay(connection, transactions[:first])  # what the work does before it is timed
            seconds = replay(connection, measured)
            _compare(connection, file)
    return seconds / size * 1e6


def synced_commit(size: int, folder: Path) -> float:
    """Return how many µs it takes to have the row of a run on the disk."""
    file = folder / "noted.db"
    with Flow(store=f"sqlite:///{file}") as flow:
        flow.task("start")(lambda ctx: 1)
        flow.run("start")
    with closing(_connected(file, "FULL")) as connection:
        cursor = connection.execute("SELECT * FROM runs")
        names = [column[0] for column in cursor.description]
        (row,) = cursor.fetchall()
        text = f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - the table's own names
        place = names.index("id")
        rows = [(*row[:place], f"{row[place]}-{n}", *row[place + 1 :]) for n in range(size + 1)]
        times = [replay(connection, [[(text, row)]]) for row in rows]
    return statistics.median(times[1:]) * 1e6


def _connected(file: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _compare(connection: sqlite3.Connection, noted_file: Path) -> None:
    """Assert that both stores hold the same rows: a floor that writes less is none."""
    connection.execute("ATTACH ? AS noted", [str(noted_file)])
    for table in TABLES:
        ours, theirs = f"SELECT * FROM main.{table}", f"SELECT * FROM noted.{table}"  # noqa: S608 - of the list above
        for one, other in ((ours, theirs), (theirs, ours)):
            odd = connection.execute(f"{one} EXCEPT {other} LIMIT 1").fetchone()
            assert odd is None, f"{table} differs: {odd}"


def main() -> None:
    """Measure one work, once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=[*WORKS, "synced_commit"])
    parser.add_argument("size", type=int)
    parser.add_argument("--synchronous", default="NORMAL")
    parser.add_argument("--together", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.work == "synced_commit":
            us = synced_commit(args.size, folder)
        else:
            us = work(args.work, args.size, folder, args.synchronous, args.together)
    print(json.dumps({"us": us}))


if __name__ == "__main__":
    main()
