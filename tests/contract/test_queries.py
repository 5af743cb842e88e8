"""What every store must answer to people: runs, tasks, results, histories and streams."""

from __future__ import annotations

import pytest

from tests.contract.records import NOW, T, attempt, chunk, completed, ended, run, task, write


def test_what_is_not_there_is_answered_with_nothing(queries):
    assert queries.run("r") is queries.failed_task("r") is queries.context_version("c") is None
    assert queries.runs("f") == queries.result("r") == queries.tasks("r") == queries.history("c", "k") == []
    assert queries.stream("r", after=0) == []
    assert queries.values_at("c", 9) == {}


@pytest.fixture
def runs(database, store, recorder):
    """Three runs of flow f, of which two began at the same time, and one of another flow."""

    def begin(tx):
        store.open_context(tx, "d", now=NOW)
        paused = {"context": "d", "status": "paused", "reason": "why"}
        for name, more in (("q", {"created_at": "2025"}), ("s", {}), ("t", {"flow": "other"})):
            store._run(tx, _with_reason(), **run(name, **paused, **more))

    database.write(begin)


def _with_reason():
    from sqlalchemy import bindparam, insert  # noqa: PLC0415 - for this helper only

    from liteflow.store.tables import runs  # noqa: PLC0415 - as above

    return insert(runs).values({name: bindparam(name) for name in run(reason="why")})


def test_runs_of_a_flow_come_newest_first(queries, runs):
    assert [row["id"] for row in queries.runs("f")] == ["s", "r", "q"]
    assert [row["id"] for row in queries.runs("f", limit=1)] == ["s"]
    assert [row["id"] for row in queries.runs("f", status="paused")] == ["s", "q"]
    assert queries.runs("f", limit=0) == queries.runs("f", status="failed") == []


def test_the_result_holds_the_last_turn_of_each_instance_that_dispatched_nothing(recorder, queries):
    recorder.record(dispatched=[task(1), task(2), task(3, "b"), task(4, "b", instance=2), task(5, "c")])
    recorder.record(
        writes=[write(key, str(n), n) for n, key in enumerate(("a", "a", "b", "b#2", "c"), 1)],
        completed=[completed(n, n, n, leaf=n not in {1, 5}) for n in range(1, 6)],
    )  # fmt: skip

    assert queries.result("r") == [("a", "2"), ("b", "3"), ("b#2", "4")]


def test_an_instance_whose_last_turn_dispatched_others_is_not_in_the_result(recorder, queries):
    recorder.record(dispatched=[task(1), task(2)])
    recorder.record(writes=[write("a", "1", 1), write("a", "2", 2)],
                    completed=[completed(1, 1, 1), completed(2, 2, 2, leaf=False)])  # fmt: skip

    assert queries.result("r") == []


def test_tasks_come_in_dispatch_order_each_with_its_last_error(recorder, queries):
    recorder.record(
        dispatched=[task(2, "b", inputs="1", dispatched_by=1), task(1)],
        ended=[ended(), ended(attempt=2) | {"error_message": "no ink"}, ended(attempt=3, status="lost", error=None)],
    )

    found = [(row[0], row[1], row[5], row[6], row[-3], row[-2]) for row in queries.tasks("r")]

    assert found == [(1, "a", None, None, "OSError", "no ink"), (2, "b", "1", 1, None, None)]


def test_the_task_that_failed_a_run_is_told_with_the_error_of_its_last_attempt(recorder, queries):
    recorder.record(dispatched=[task(1), task(2, "b", "failed")], ended=[ended(), ended(2), ended(2, 2)])
    assert queries.failed_task("r") is None

    recorder.record(run={"to_status": "failed", "to_failed_task": 2, "to_finished_at": T})

    assert tuple(queries.failed_task("r")) == ("b", "b", "OSError", "no paper", "…")


def test_a_history_holds_what_was_committed_with_who_wrote_it(database, store, recorder, queries):
    recorder.record(dispatched=[task(1, "b", instance=2)], writes=[write("k", "1", 1)])
    database.write(lambda tx: store.set_values(tx, "c", [("other", "0"), ("k", None)], now=NOW))
    recorder.record(writes=[write("k", "9", position=1)])

    assert [tuple(row) for row in queries.history("c", "k")] == [
        (1, "k", "1", "r", "b#2", 1, T), (3, "k", None, None, None, None, T),
    ]  # fmt: skip


def test_values_are_told_as_of_any_version(database, store, queries):
    items = [("b", "1"), ("a", "2"), ("b", "3"), ("a", None), ("a", "5")]
    database.write(lambda tx: store.set_values(tx, "c", items, now=NOW))
    database.write(lambda tx: store.set_values(tx, "d", [("b", '"other"')], now=NOW))

    found = [list(queries.values_at("c", version).items()) for version in range(6)]

    assert found == [
        [], [("b", "1")], [("b", "1"), ("a", "2")], [("b", "3"), ("a", "2")], [("b", "3")], [("b", "3"), ("a", "5")],
    ]  # fmt: skip
    assert queries.context_version("c") == 5


def test_a_stream_holds_chunks_and_outputs_in_order_and_nothing_lost(recorder, queries):
    recorder.record(dispatched=[task(1), task(2, "b", instance=2)])
    recorder.record(
        writes=[write("a", '"out"', 1)], completed=[completed(seq=3)],
        chunks=[chunk(1, "1", "committed"), chunk(2, "2", number=2), chunk(4, "4", "lost", number=2), chunk(5, "5", number=2)],
    )  # fmt: skip

    assert [tuple(row) for row in queries.stream("r", after=0)] == [
        (1, "said", "a", 1, "1", "committed"), (2, "said", "b#2", 1, "2", "open"), (3, "a", "a", 1, '"out"', "committed"),
        (5, "said", "b#2", 1, "5", "open"),
    ]  # fmt: skip


def test_a_stream_is_told_in_parts_that_join_without_gap_or_double(recorder, queries):
    outputs = range(3, 31, 3)
    recorder.record(dispatched=[task(n, instance=n) for n in outputs])
    recorder.record(
        writes=[write("a", str(n), n, number=n) for n in outputs], completed=[completed(n, n, n) for n in outputs],
        chunks=[chunk(n, str(n), number=3) for n in range(1, 31) if n % 3],
    )  # fmt: skip

    found, after = [], 0
    while part := queries.stream("r", after=after, limit=4):
        assert len(part) <= 4
        found += [row[0] for row in part]
        after = found[-1]

    assert found == list(range(1, 31))


def test_what_is_asked_within_a_transaction_sees_what_that_has_written(database, store, recorder, queries):
    def work(tx):
        store.claim_run(tx, queries.run("r", tx), "o", now=NOW, seq_reserved=7)
        return queries.run("r", tx)["seq_reserved"]

    assert database.write(work) == 7


def test_a_lost_attempt_stays_in_the_history_of_what_it_wrote_and_streamed(recorder, queries):
    recorder.record(dispatched=[task()], writes=[write("k", "1")], chunks=[chunk(1)])

    recorder.record(lost=[attempt()])

    assert recorder.ask("SELECT value FROM writes WHERE status = 'lost'") == [("1",)]
    assert recorder.ask("SELECT value, status FROM stream") == [("1", "lost")]
    assert queries.stream("r", after=0) == queries.history("c", "k") == []
