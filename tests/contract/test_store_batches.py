"""What every store must do with a batch: all of it or nothing, and what it loads is what was recorded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from liteflow.errors import StoreError
from liteflow.model import Dispatch
from liteflow.store.store import Batch, LiveRun, LiveTask
from tests.contract.records import LATER, T, attempt, begun, chunk, completed, ended, moved, run, task, write


def statuses(recorder) -> dict[int, str]:
    return dict(recorder.ask("SELECT number, status FROM tasks"))


# ---------------------------------------------------------------- dispatches


def test_a_run_without_dispatches_loads_as_empty(recorder):
    assert recorder.live() == LiveRun([], {}, [], 1)


def test_what_is_loaded_of_a_live_dispatch_is_all_that_was_recorded_of_it(recorder):
    recorder.record(
        dispatched=[
            task(1, "a", "running", attempts=2, failures=1),
            task(2, "b", inputs='{"x": 1}', dispatched_by=1, not_before=LATER, failures=1, attempts=1),
            task(3, "b", "behind", instance=2, merged_into=1, inputs="null"),
        ]
    )

    assert recorder.live() == LiveRun(
        [
            LiveTask(Dispatch(1, "a"), "running", 2, None, 1, None),
            LiveTask(Dispatch(2, "b", 1, '{"x": 1}', 1), "pending", 1, None, 1, datetime(2026, 1, 1, 0, 1, tzinfo=UTC)),
            LiveTask(Dispatch(3, "b", 2, "null"), "behind", 0, 1, 0, None),
        ],
        {"b": 2},
        [],
        4,
    )


def test_only_what_is_not_final_is_loaded_in_the_order_of_dispatch(recorder):
    words = ["pending", "running", "behind", "failed", "merged", "cancelled"]
    rows = [task(number, f"t{number}", word, merged_into=1) for number, word in enumerate(words, 1)]

    recorder.record(dispatched=rows[::-1])

    assert [(entry.dispatch.number, entry.status) for entry in recorder.live().entries] == [
        (1, "pending"), (2, "running"), (3, "behind"), (4, "failed"),
    ]  # fmt: skip
    assert recorder.live().next_number == 7


def test_numbers_of_spawned_instances_are_loaded_whatever_became_of_them(recorder):
    recorder.record(dispatched=[task(1), task(2, instance=2), task(3, instance=3), task(4, "b")])

    recorder.record(
        writes=[write("a", "1", 1), write("a#3", "1", 2, number=3)], completed=[completed(), completed(3, 2, 2)],
    )  # fmt: skip

    assert recorder.live().spawned == {"a": 3}


def test_of_the_keys_that_have_an_output_those_that_may_matter_again_are_loaded(recorder):
    """Of spawned instances, whose numbers are not used twice, only those with another turn to come."""
    recorder.record(dispatched=[task(1), task(2, instance=2), task(3, instance=3), task(4, instance=3), task(5, "b")])

    recorder.record(
        writes=[write("a", "1", 1), write("a#2", "1", 2, number=2), write("a#3", "1", 3, number=3)],
        completed=[completed(1, 1, 1), completed(2, 2, 2), completed(3, 3, 3)],
    )  # fmt: skip

    assert sorted(recorder.live().produced) == ["a", "a#3"]


def test_a_run_loads_nothing_of_another(database, store, recorder):
    recorder.record(dispatched=[task(), task(2, instance=2)])

    def other(tx):
        store.open_context(tx, "d", now=datetime(2026, 1, 1, tzinfo=UTC))
        store.create_run(tx, run("s", "d"), fence=0)
        store.record(tx, "s", Batch(dispatched=[task() | {"run_id": "s"}]))
        return store.load_run(tx, {"id": "s", "context_id": "d", "base_version": 0})

    assert database.write(other) == LiveRun([LiveTask(Dispatch(1, "a"), "pending", 0, None, 0, None)], {}, [], 2)


def test_a_dispatch_is_begun_moved_and_merged_as_told(recorder):
    recorder.record(dispatched=[task(1), task(2, "b"), task(3, "c", "behind", merged_into=1), task(4, "d")])

    recorder.record(
        begun=[begun(1, 3)], merged=[{"of_run": "r", "of_number": 2, "to_merged_into": 1}],
        moved=[moved(3, "pending", attempts=2, failures=1, not_before=LATER), moved(4, "cancelled")],
    )  # fmt: skip

    assert recorder.ask("SELECT status, attempts, failures, merged_into, not_before, started_at FROM tasks ORDER BY number") == [
        ("running", 3, 0, None, None, T), ("merged", 0, 0, 1, None, None), ("pending", 2, 1, None, LATER, None),
        ("cancelled", 1, 0, None, None, None),
    ]  # fmt: skip


def test_a_completed_dispatch_keeps_what_it_read_and_where_its_output_is(recorder):
    recorder.record(dispatched=[task()])

    recorder.record(writes=[write("a", '"out"', 1)], completed=[completed(seq=7) | {"to_reads": '{"k": 3}'}])

    facts = "status, attempts, reads, output_version, output_seq, leaf, started_at, finished_at"
    assert recorder.ask(f"SELECT {facts} FROM tasks") == [("completed", 1, '{"k": 3}', 1, 7, 1, T, T)]  # noqa: S608 - of constants


def test_attempts_that_came_to_nothing_are_kept_with_why(recorder):
    recorder.record(dispatched=[task()])

    recorder.record(ended=[ended(), ended(attempt=2, status="conflicted", error=None), ended(attempt=3, status="timed_out")])

    assert recorder.ask("SELECT attempt, status, error_type, error_message FROM attempts ORDER BY attempt") == [
        (1, "failed", "OSError", "no paper"), (2, "conflicted", None, None), (3, "timed_out", "OSError", "no paper"),
    ]  # fmt: skip


def test_columns_of_the_run_change_as_told_and_no_others(recorder, queries):
    before = queries.run("r")

    recorder.record(run={"to_seq_reserved": 500})
    recorder.record(run={"to_status": "failed", "to_reason": "OSError", "to_failed_task": 1, "to_finished_at": T})

    changes = {"seq_reserved": 500, "status": "failed", "reason": "OSError", "failed_task": 1, "finished_at": T}
    assert queries.run("r") == before | changes


# ---------------------------------------------------------------- writes and chunks


def test_open_writes_are_seen_by_observers_and_by_nobody_else(database, store, recorder):
    recorder.record(dispatched=[task()], writes=[write("b", "0", 1)])

    recorder.record(writes=[write("b", "1", position=0), write("a", "2", position=1), write("b", "3", position=2)])

    with database.read() as tx:
        assert (store.open_value(tx, "c", "b"), store.open_value(tx, "c", "a")) == ((0, "3"), (0, "2"))
        assert store.open_keys(tx, "c") == ["b", "a"]
        assert store.value(tx, "c", "b") == (1, "0")
        assert store.keys(tx, "c") == {"b": 1}
        assert store.writes_since(tx, "c", 1) == []
        assert store.head(tx, "c").version == 1


def test_open_writes_are_committed_in_their_order_with_versions_of_their_own(database, store, recorder):
    recorder.record(dispatched=[task()], writes=[write("x", "0", 1)])
    recorder.record(writes=[write("k", str(n), position=n) for n in range(3)])

    recorder.record(kept=[attempt() | {"first_version": 2}])

    with database.read() as tx:
        assert store.writes_since(tx, "c", 1) == [(2, "k", "0"), (3, "k", "1"), (4, "k", "2")]
        assert store.open_keys(tx, "c") == []
        assert store.head(tx, "c").version == 4


def test_an_open_write_is_rewritten_before_it_is_committed(database, store, recorder):
    recorder.record(dispatched=[task()], writes=[write("k", str(n), position=n) for n in range(3)])

    recorder.record(rewritten=[attempt() | {"of_position": 1, "to_value": '"new"'}], kept=[attempt() | {"first_version": 1}])

    with database.read() as tx:
        assert [text for _, _, text in store.writes_since(tx, "c", 0)] == ["0", '"new"', "2"]


@pytest.mark.parametrize(("part", "status"), [("kept", "committed"), ("lost", "lost")])
def test_what_an_attempt_had_open_is_kept_or_lost_with_it_and_that_of_others_stays_open(recorder, part, status):
    others = [task(2, "b")]
    recorder.record(
        dispatched=[task(), *others], writes=[write("k", "1"), write("k", "2", number=2)],
        chunks=[chunk(1), chunk(2, number=2), chunk(3, attempt=2), chunk(4)],
    )  # fmt: skip

    recorder.record(**{part: [attempt() | ({"first_version": 1} if part == "kept" else {})]})

    assert recorder.ask("SELECT number, status FROM writes ORDER BY number") == [(1, status), (2, "open")]
    assert recorder.ask("SELECT seq, status FROM chunks ORDER BY seq") == [(1, status), (2, "open"), (3, "open"), (4, status)]


def test_what_is_committed_is_neither_lost_nor_rewritten_later(recorder):
    recorder.record(dispatched=[task()], writes=[write("k", "1", 1)], chunks=[chunk(1, status="committed")])

    recorder.record(lost=[attempt()], rewritten=[attempt() | {"of_position": 0, "to_value": '"new"'}])

    assert recorder.ask("SELECT value, status FROM writes") == [("1", "committed")]
    assert recorder.ask("SELECT status FROM chunks") == [("committed",)]


# ---------------------------------------------------------------- as a whole


def test_an_empty_batch_changes_nothing(recorder, queries):
    recorder.record(dispatched=[task()])
    before = (queries.run("r"), recorder.live(), recorder.ask("SELECT * FROM contexts"))

    recorder.record()

    assert (queries.run("r"), recorder.live(), recorder.ask("SELECT * FROM contexts")) == before


def test_what_a_task_did_is_recorded_together(database, store, recorder, queries):
    recorder.record(dispatched=[task()])

    recorder.record(
        writes=[write("x", "1", 1), write("a", '"out"', 2, position=1)],
        completed=[completed(version=2, seq=2, leaf=False)], chunks=[chunk(1, '"hi"', "committed")],
        dispatched=[task(2, "b"), task(3, "b", "merged", merged_into=2), task(4, "b", "behind", inputs="1")],
    )  # fmt: skip

    with database.read() as tx:
        assert store.value(tx, "c", "a") == (2, '"out"')
        assert store.head(tx, "c").version == 2
    live = recorder.live()
    assert [(entry.dispatch, entry.status) for entry in live.entries] == [
        (Dispatch(2, "b"), "pending"), (Dispatch(4, "b", inputs="1"), "behind"),
    ]  # fmt: skip
    assert (live.produced, live.spawned, live.next_number) == (["a"], {}, 5)
    assert [(row[0], row[4]) for row in queries.stream("r", after=0)] == [(1, '"hi"'), (2, '"out"')]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dispatched": [task(1)]},
        {"writes": [write("a", "2", 1)]},
        {"chunks": [chunk(1)]},
        {"ended": [ended(number=9)]},
        {"run": {"to_status": "odd"}},
        {"completed": [completed(2) | {"to_output_version": None}]},
    ],
    ids=["number used", "version used", "stream number used", "no such dispatch", "no such status", "no output"],
)
def test_a_batch_of_which_a_part_is_refused_leaves_nothing(recorder, queries, wrong):
    recorder.record(dispatched=[task(), task(2, "b")])
    recorder.record(writes=[write("a", "1", 1)], completed=[completed()],
                    chunks=[chunk(1, status="committed")])  # fmt: skip
    tables = ("contexts", "runs", "tasks", "attempts", "writes", "chunks")
    before = [recorder.ask(f"SELECT * FROM {table}") for table in tables]  # noqa: S608 - named here
    right = {"dispatched": [task(8)], "writes": [write("z", "1", 8)], "chunks": [chunk(8)], "begun": [begun(2)]}
    both = {part: [*right.get(part, []), *rows] if isinstance(rows, list) else rows for part, rows in wrong.items()}

    with pytest.raises(StoreError):
        recorder.record(**right | both)

    assert [recorder.ask(f"SELECT * FROM {table}") for table in tables] == before  # noqa: S608 - as above
    assert statuses(recorder) == {1: "completed", 2: "pending"}
