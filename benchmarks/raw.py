"""The floor: the same rows in the same transactions by plain ``sqlite3``, as LiteFlow writes them.

LiteFlow does the work once, and what it writes is noted; then ``sqlite3`` writes that to a store of its own, which has the same
tables, indexes and constraints. ``python raw.py WORK SIZE [--together N]``: as many tasks to a transaction.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sqlite3
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from works import WORKS

from liteflow import Flow, PoolExecutor
from liteflow.store.database import Database, Transaction

Write = tuple[str, Any]  # a statement, and the row that it writes
PLACES = re.compile(r":(\w+)")


class Notes:
    """What is written, a list a transaction."""

    def __init__(self) -> None:
        self.transactions: list[list[Write]] = []

    def take(self) -> None:
        """Note what every transaction from now on writes."""
        notes, plain, transact = self, Transaction.__init__, Database._transact  # noqa: SLF001 - to look over its shoulder

        def begin(database: Database, members: list[Any], refused: dict[int, Exception]) -> None:
            notes.transactions.append([])
            transact(database, members, refused)

        def noting(tx: Transaction, connection: Any) -> None:
            plain(tx, connection)
            execute, executemany = tx.execute, tx.executemany

            def one(text: str, row: dict[str, Any]) -> Any:
                notes.note(text, [row])
                return execute(text, row)

            def many(text: str, rows: Any) -> Any:
                notes.note(text, rows)
                return executemany(text, rows)

            tx.execute, tx.executemany = one, many

        Database._transact, Transaction.__init__ = begin, noting  # type: ignore[method-assign] # noqa: SLF001 - as above

    def note(self, text: str, rows: list[dict[str, Any]]) -> None:
        """Note what one statement writes."""
        if text.startswith(("INSERT", "UPDATE", "DELETE")):
            names = PLACES.findall(text)
            self.transactions[-1] += [(PLACES.sub("?", text), tuple(row[name] for name in names)) for row in rows]


def replay(file: Path, transactions: list[list[Write]], synchronous: str) -> float:
    """Write all that was noted; return the seconds it took."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    batches = [
        [(text, [row for _, row in rows]) for text, rows in groupby(writes, key=lambda write: write[0])]
        for writes in transactions
    ]
    began = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        for text, rows in batch:
            if len(rows) == 1:
                connection.execute(text, rows[0])
            else:
                connection.executemany(text, rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def together(transactions: list[list[Write]], count: int) -> list[list[Write]]:
    """Return the same writes with so many completed tasks to a transaction, like by like, as a batch would have them."""
    batches: list[list[Write]] = [[]]
    done = 0
    for write in (write for writes in transactions for write in writes):
        batches[-1].append(write)
        if write[0].startswith("UPDATE tasks SET status='completed'"):
            done += 1
            if done % count == 0:
                batches.append([])
    order: dict[str, int] = {}
    for batch in batches:
        for text, _ in batch:
            order.setdefault(text, len(order))
        batch.sort(key=lambda write: order[write[0]])
    return [batch for batch in batches if batch]


def main() -> None:
    """Measure one work, once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("size", type=int)
    parser.add_argument("--synchronous", default="NORMAL")
    parser.add_argument("--together", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.db"
        with Flow(PoolExecutor(max_workers=1), store=f"sqlite:///{folder}/noted.db") as flow:
            flow.context.set("warm", 1)
            database = Database(f"sqlite:///{empty}")
            database.open()
            database.dispose()
            notes = Notes()
            notes.take()
            WORKS[args.work](flow, args.size)
        owners = [write for writes in notes.transactions for write in writes if write[0].startswith("INSERT INTO owners")]
        transactions = together(notes.transactions, args.together) if args.together else notes.transactions
        file = shutil.copy(empty, Path(folder) / "raw.db")
        _prepare(Path(file), Path(folder) / "noted.db", owners)
        seconds = replay(Path(file), transactions, args.synchronous)
    print(json.dumps({"us": seconds / args.size * 1e6}))


def _prepare(file: Path, noted: Path, owners: list[Write]) -> None:
    """Put in what was there before the notes began: the context."""
    with sqlite3.connect(file) as db:
        db.execute("ATTACH ? AS noted", [str(noted)])
        db.execute("INSERT INTO contexts SELECT id, parent_id, parent_version, 0, created_at FROM noted.contexts")
        db.execute("INSERT INTO writes SELECT * FROM noted.writes WHERE version = 1")
        if not owners:
            db.execute("INSERT INTO owners SELECT * FROM noted.owners")


if __name__ == "__main__":
    main()
