"""What a store holds, as a person asks it in SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any


def rows(store: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a SQLite store, read by a connection of its own."""
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as db:
        return db.execute(query, values).fetchall()


def one(store: str, query: str, *values: object) -> Any:
    """Return the only value of the only row."""
    ((value,),) = rows(store, query, *values)
    return value
