"""Each store contract is kept on each database (Postgres joins with a later part)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from liteflow.store.database import Database
from liteflow.store.queries import Queries
from liteflow.store.store import Store
from tests.contract.records import NOW, Recorder, owner, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An open database, with the schema and nothing else."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}" if request.param == "file" else "sqlite://")
    database.open()
    yield database
    database.dispose()


@pytest.fixture
def store(database: Database) -> Store:
    """The engine's view of it."""
    return Store(database)


@pytest.fixture
def queries(database: Database) -> Queries:
    """A person's view of it."""
    return Queries(database)


@pytest.fixture
def recorder(store: Store) -> Recorder:
    """What records in run r of context c, which process o drives; nothing is dispatched yet."""

    def begin(tx):
        store.register_owner(tx, owner())
        return store.create_run(tx, run(), fence=store.open_context(tx, "c", now=NOW).fence)

    return Recorder(store, fence=store.database.write(begin))
