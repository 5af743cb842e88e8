"""What a statement costs does not depend on how much is recorded: SQLite's own steps are counted, beside ten times the history.

That a statement uses an index is not enough: one that looks for the open chunks of an attempt among all chunks of its run does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Delete, Insert, Select, Update

from liteflow.store import queries, statements
from liteflow.store.database import Database
from liteflow.store.store import Batch, Store
from tests.contract.records import LATER, NOW, T, begun, chunk, completed, owner, run, task, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from liteflow.store.prepared import Prepared

SMALL, LARGE = 40, 400  # finished dispatches, each with a write and a chunk
OPEN = 3  # dispatches that run, with something open

ALL = {
    name: value
    for module in (statements, queries)
    for name, value in vars(module).items()
    if isinstance(value, Select | Insert | Update | Delete) and not name.startswith(("_", "NEW_"))
}
LOADS = {  # read a whole context or run, once a process
    "KEYS", "LIVE_TASKS", "PRODUCED", "SPAWNED", "LOST_ATTEMPTS", "FREE_TASKS", "CANCEL_TASKS", "OUTPUTS_OF_TASK",
}  # fmt: skip
SHOWS = {"RUNS", "RESULT", "TASKS", "HISTORY", "VALUES_AT", "STREAM", "FAILED_TASK"}  # what a person asks for, in full
HOT = sorted(ALL.keys() - LOADS - SHOWS)
GIVEN = {
    "id": "c", "context_id": "c", "key": "k", "run_id": "r", "of_run": "r", "of_id": "c", "of_number": 2, "of_attempt": 1,
    "of_position": 0, "first_version": 10**6, "how": "lost", "lost_at": T, "to_leased_until": LATER, "to_ended_at": T,
    "by_owner": "o", "flow": "f", "limit": 5, "status": None, "after": 0, "at": 10**6, "to_status": "running",
}  # fmt: skip
OF_RUN, OF_OWNER = ("CLAIM_RUN", "RUN"), ("OWNER", "RENEW_LEASE", "END_OWNER")


def parameters(name: str, statement: Prepared, size: int) -> Sequence[Any]:
    whose = {"of_id": "r", "id": "r"} if name in OF_RUN else {"of_id": "o", "id": "o"} if name in OF_OWNER else {}
    whose |= {"since": size, "of_number": size + 1, "after": size if name == "STREAM" else 0}
    ours = [word for word in statement.names if not word.startswith("param_")]
    return statement.values({word: (GIVEN | whose).get(word, 1) for word in ours})


def filled(size: int) -> Database:
    """Return a run with as much history, and the same few dispatches at work."""
    database = Database("sqlite://")
    database.open()
    store, numbers = Store(database), range(1, size + 1)

    def begin(tx):
        store.register_owner(tx, owner())
        for n in numbers:
            store.register_owner(tx, owner(f"o{n}"))
            store.open_context(tx, f"c{n}", now=NOW)
            store.create_run(tx, run(f"r{n}", f"c{n}", owner_id=f"o{n}"), fence=0)
        store.open_context(tx, "c", now=NOW)
        store.create_run(tx, run(), fence=0)
        store.record(tx, "r", Batch(dispatched=[task(n, instance=n) for n in range(1, size + OPEN + 1)]))

    def work(tx):
        at_work = range(size + 1, size + OPEN + 1)
        store.record(tx, "r", Batch(
            completed=[completed(n, n, 2 * n) for n in numbers], begun=[begun(n) for n in at_work],
            writes=[*(write("k", "1", n, number=n) for n in numbers), *(write("k", "2", number=n) for n in at_work)],
            chunks=[*(chunk(2 * n - 1, "1", "committed", number=n) for n in numbers),
                    *(chunk(2 * size + n, "1", number=n) for n in at_work)],
        ))  # fmt: skip

    database.write(begin)
    database.write(work)
    return database


def steps(database: Database, name: str, size: int) -> int:
    """Return how many instructions of its machine SQLite takes; what the statement changes is taken back."""
    statement = database.compile(ALL[name])
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection = database._writing()
    connection.execute("BEGIN")
    connection.set_progress_handler(count, 1)
    cursor = connection.execute(statement.text, parameters(name, statement, size))
    cursor.fetchall()
    connection.set_progress_handler(None, 1)
    connection.execute("ROLLBACK")
    return counted


@pytest.fixture(scope="module")
def small():
    database = filled(SMALL)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def large():
    database = filled(LARGE)
    yield database
    database.dispose()


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_costs_the_same_whatever_the_history(small, large, name):
    assert steps(large, name, LARGE) <= steps(small, name, SMALL) + 10


@pytest.mark.parametrize("name", sorted(LOADS | SHOWS))
def test_a_statement_that_reads_a_whole_run_costs_no_more_than_its_length(small, large, name):
    assert steps(large, name, LARGE) <= steps(small, name, SMALL) * (LARGE / SMALL) * 1.2


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_statement_reads_a_whole_table(small, name):
    statement = small.compile(ALL[name])

    with small.read() as tx:
        text, values = f"EXPLAIN QUERY PLAN {statement.text}", parameters(name, statement, SMALL)
        plan = [row[3] for row in tx.execute(text, values).fetchall()]

    assert [step for step in plan if re.match(r"SCAN (?!anon_)", step)] == []
