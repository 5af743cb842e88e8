"""What every store must do; run against each database (Postgres joins with a later part)."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest

from liteflow.errors import LeaseLostError
from liteflow.model import Dispatch
from liteflow.store import statements
from liteflow.store.database import Database
from liteflow.store.queries import Queries
from liteflow.store.store import Batch, Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
T = "2026-01-01T00:00:00.000000Z"


@pytest.fixture(params=["file", "memory"])
def database(request, tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'store.db'}" if request.param == "file" else "sqlite://")
    database.open()
    yield database
    database.dispose()


@pytest.fixture
def store(database):
    return Store(database)


def run_row(run_id="r", context_id="c", **more):
    return {
        "id": run_id, "flow": "f", "context_id": context_id, "start_task": "a", "inputs": None, "status": "running",
        "priority": 0, "owner_id": "o", "crashes": 0, "base_version": 0, "seq_reserved": 100, "created_at": T,
        "started_at": T, **more,
    }  # fmt: skip


def task_row(number=1, task_id="a", status="pending", **more):
    return {
        "run_id": "r", "number": number, "task_id": task_id, "instance": 1, "key": task_id, "inputs": None, "status": status,
        "dispatched_by": None, "merged_into": None, "attempts": 0, "failures": 0, "not_before": None, "dispatched_at": T, **more,
    }  # fmt: skip


def write_row(key, value, version, status="committed", position=0):
    return {
        "context_id": "c", "version": version, "key": key, "value": value, "status": status, "run_id": "r", "number": 1,
        "attempt": 1, "position": position, "written_at": T,
    }  # fmt: skip


def completed_row(number=1, version=1, seq=1, *, leaf=True):
    return {
        "of_run": "r", "of_number": number, "to_attempts": 1, "to_reads": None, "to_output_version": version,
        "to_output_seq": seq, "to_leaf": leaf, "to_started_at": T, "to_finished_at": T,
    }  # fmt: skip


@pytest.fixture
def fence(database, store):
    """Start run r in context c, with its first dispatch; return the owner's token."""

    def begin(tx):
        store.register_owner(tx, {"id": "o", "machine": "m", "pid": 1, "process_started": "1", "leased_until": T})
        head = store.open_context(tx, "c", now=NOW)
        token = store.create_run(tx, run_row(), fence=head.fence)
        store.record(tx, "r", "c", Batch(dispatched=[task_row()]))
        return token

    return database.write(begin)


def record(database, store, batch):
    database.write(lambda tx: store.record(tx, "r", "c", batch))


def test_a_context_begins_at_version_0_and_counts_each_write(database, store):
    assert database.write(lambda tx: store.open_context(tx, "c", now=NOW)) == (0, 0)

    assert database.write(lambda tx: store.set_values(tx, "c", [("a", "1"), ("b", "2"), ("a", "3")], now=NOW)) == 3

    with database.read() as tx:
        assert store.value(tx, "c", "a") == (3, "3")
        assert store.value(tx, "c", "none") == (0, None)
        assert store.keys(tx, "c") == {"a": 3, "b": 2}
        assert store.writes_since(tx, "c", 1) == [(2, "b", "2"), (3, "a", "3")]


def test_a_second_live_run_in_a_context_is_refused_by_the_database(database, store, fence):
    with database.read() as tx:
        assert store.live_run_in(tx, "c") == ("r", "o")

    with pytest.raises(Exception, match=r"UNIQUE|unique|runs_one_live"):
        database.write(lambda tx: store.create_run(tx, run_row("s"), fence=fence))


def test_the_token_of_a_former_owner_is_refused(database, store, fence):
    assert database.write(lambda tx: store.check_fence(tx, "r", "c", fence)) == 0
    row = Queries(database).run("r")

    head = database.write(lambda tx: store.claim_run(tx, row, "o", now=NOW, seq_reserved=200))

    assert head.fence == fence + 1
    with pytest.raises(LeaseLostError):
        database.write(lambda tx: store.check_fence(tx, "r", "c", fence))


def test_a_claim_loses_what_was_open_and_counts_the_crash(database, store, fence):
    begun = {"of_run": "r", "of_number": 1, "to_attempts": 1, "to_started_at": T}
    chunk = {"run_id": "r", "seq": 1, "number": 1, "attempt": 1, "task_id": "a", "value": "1", "status": "open", "written_at": T}
    record(database, store, Batch(begun=[begun], writes=[write_row("k", "1", None, "open")], chunks=[chunk]))
    queries = Queries(database)

    database.write(lambda tx: store.claim_run(tx, queries.run("r", tx), "o", now=NOW, seq_reserved=200))

    with database.read() as tx:
        assert store.open_value(tx, "c", "k") is None
    assert queries.stream("r", after=0) == []
    assert queries.run("r")["crashes"] == 1


def test_a_run_that_is_completed_cannot_be_claimed(database, store, fence):
    record(database, store, Batch(run={"to_status": "completed", "to_reason": None, "to_finished_at": T}))
    row = Queries(database).run("r")

    assert database.write(lambda tx: store.claim_run(tx, row, "o", now=NOW, seq_reserved=1)) is None


def test_what_a_batch_records_is_there_together_and_loads_as_the_live_part(database, store, fence):
    record(database, store, Batch(
        version=2, writes=[write_row("x", "1", 1), write_row("a", '"out"', 2, position=1)],
        completed=[completed_row(version=2, leaf=False)],
        dispatched=[task_row(2, "b"), task_row(3, "b", "merged", merged_into=2), task_row(4, "b", "behind", inputs="1")],
    ))  # fmt: skip

    with database.read() as tx:
        live = store.load_run(tx, "r")
        assert store.value(tx, "c", "a") == (2, '"out"')
        assert store.head(tx, "c").version == 2
    assert [(task.dispatch, str(task.status)) for task in live.entries] == [
        (Dispatch(2, "b"), "pending"), (Dispatch(4, "b", inputs="1"), "behind"),
    ]  # fmt: skip
    assert (live.produced, live.spawned, live.next_number) == (["a"], {}, 5)


def test_open_writes_are_committed_in_their_order_with_versions_of_their_own(database, store, fence):
    record(database, store, Batch(writes=[write_row("k", str(n), None, "open", n) for n in range(3)]))
    kept = {"of_run": "r", "of_number": 1, "of_attempt": 1, "first_version": 1}

    record(database, store, Batch(version=3, kept=[kept]))

    with database.read() as tx:
        assert store.writes_since(tx, "c", 0) == [(1, "k", "0"), (2, "k", "1"), (3, "k", "2")]


def test_the_result_holds_the_last_turn_of_each_instance_that_dispatched_nothing(database, store, fence):
    record(database, store, Batch(version=1, writes=[write_row("a", "1", 1)], completed=[completed_row(leaf=False)],
                                  dispatched=[task_row(2)]))  # fmt: skip
    record(database, store, Batch(version=2, writes=[write_row("a", "2", 2)], completed=[completed_row(2, 2, 2)]))

    assert Queries(database).result("r") == [("a", "2")]


def test_a_transaction_whose_work_raises_records_nothing(database, store):
    def work(tx):
        store.open_context(tx, "c", now=NOW)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.write(work)

    with database.read() as tx:
        assert store.head(tx, "c") is None


HOT = [
    name
    for name, value in vars(statements).items()
    if name.isupper() and name[0] != "_" and hasattr(value, "compile") and "NEW" not in name
]


@pytest.mark.parametrize("name", HOT)
def test_no_statement_of_the_engine_reads_a_whole_table(tmp_path, name):
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.open()
    text = database.compile(getattr(statements, name))
    connection = sqlite3.connect(tmp_path / "store.db")

    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", dict.fromkeys(_parameters(text), 1))]

    connection.close()
    database.dispose()
    assert [step for step in plan if step.startswith("SCAN") and "subquery" not in step.lower()] == []


def _parameters(text: str) -> list[str]:
    import re  # noqa: PLC0415 - for this helper only

    return re.findall(r":(\w+)", text)
