"""What every store must do with contexts, runs and owners: the promise of each method, and its guard."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from liteflow.errors import LeaseLostError, StoreError
from liteflow.model import ABSENT
from liteflow.store.statements import NEW_WRITE
from tests.contract.records import LATER, NOW, T, begun, chunk, owner, run, task, write
from tests.features.waiting import Helper

LATER_TIME = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


# ---------------------------------------------------------------- contexts


def test_a_context_begins_at_version_0_and_counts_each_write(database, store):
    assert database.write(lambda tx: store.open_context(tx, "c", now=NOW)) == (0, 0)

    assert database.write(lambda tx: store.set_values(tx, "c", [("a", "1"), ("b", "2"), ("a", "3")], now=NOW)) == 3

    with database.read() as tx:
        assert store.head(tx, "c") == (3, 0)
        assert store.value(tx, "c", "a") == (3, "3")
        assert store.writes_since(tx, "c", 1) == [(2, "b", "2"), (3, "a", "3")]


def test_a_context_that_is_there_is_opened_as_it_stands(database, store):
    database.write(lambda tx: store.set_values(tx, "c", [("a", "1")], now=NOW))

    assert database.write(lambda tx: store.open_context(tx, "c", now=LATER_TIME)) == (1, 0)


def test_setting_nothing_leaves_a_context_at_its_version(database, store):
    database.write(lambda tx: store.set_values(tx, "c", [("a", "1")], now=NOW))

    assert database.write(lambda tx: store.set_values(tx, "c", [], now=NOW)) == 1


def test_what_is_not_there_reads_as_absent(database, store):
    database.write(lambda tx: store.set_values(tx, "c", [("a", "1")], now=NOW))

    with database.read() as tx:
        assert store.head(tx, "none") is None
        assert store.value(tx, "c", "none") == store.value(tx, "none", "a") == ABSENT
        assert store.open_value(tx, "c", "a") is None
        assert store.keys(tx, "none") == {}
        assert store.writes_since(tx, "none", 0) == store.open_keys(tx, "c") == []


def test_a_deletion_is_a_write_without_a_value(database, store):
    database.write(lambda tx: store.set_values(tx, "c", [("a", "1"), ("a", None)], now=NOW))

    with database.read() as tx:
        assert store.value(tx, "c", "a") == (2, None)
        assert store.keys(tx, "c") == {}


def test_keys_come_in_the_order_of_their_first_writes_with_the_version_of_the_last(database, store):
    items = [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4")]

    database.write(lambda tx: store.set_values(tx, "c", items, now=NOW))

    with database.read() as tx:
        assert list(store.keys(tx, "c").items()) == [("b", 4), ("a", 2), ("c", 3)]


def test_contexts_do_not_see_each_others_values(database, store):
    for context in ("c", "d"):
        database.write(lambda tx, name=context: store.set_values(tx, name, [("a", f'"{name}"')], now=NOW))

    with database.read() as tx:
        assert [store.value(tx, name, "a").text for name in ("c", "d")] == ['"c"', '"d"']


def test_writes_from_outside_side_by_side_each_get_a_version_of_their_own(database, store):
    def add(_: int) -> int:
        return database.write(lambda tx: store.set_values(tx, "c", [("a", "1"), ("b", "2")], now=NOW))

    adding = [Helper(lambda n=n: add(n)) for n in range(8)]

    assert sorted(helper.result() for helper in adding) == [2 * n for n in range(1, 9)]


def test_a_key_may_be_any_text_and_is_told_from_those_like_it(database, store):
    names = ["a", "A", "a ", "ä", "a\u0308", "%", "_", "'; DROP TABLE writes; --", "日本", "🙂", "x" * 512]

    database.write(lambda tx: store.set_values(tx, "c", [(name, f"{n}") for n, name in enumerate(names)], now=NOW))

    with database.read() as tx:
        assert [store.value(tx, "c", name).text for name in names] == [f"{n}" for n in range(len(names))]


# ---------------------------------------------------------------- runs


def test_a_run_that_begins_is_recorded_holds_its_context_and_has_a_token_of_its_own(database, store, recorder, queries):
    assert recorder.fence == 1
    assert queries.run("r").items() >= run().items()
    with database.read() as tx:
        assert store.live_run_in(tx, "c") == ("r", "o")
        assert store.head(tx, "c") == (0, recorder.fence)


@pytest.mark.parametrize("status", ["running", "waiting"])
def test_a_second_live_run_in_a_context_is_refused_by_the_database(database, store, recorder, queries, status):
    recorder.record(run={"to_status": status})

    with pytest.raises(StoreError):
        database.write(lambda tx: store.create_run(tx, run("s"), fence=recorder.fence))

    assert queries.run("s") is None
    assert database.write(lambda tx: store.check_fence(tx, "r", "c", recorder.fence)) == 0


def test_a_run_that_stands_still_leaves_its_context_to_the_next_which_shuts_it_out(database, store, recorder):
    recorder.record(run={"to_status": "paused", "to_reason": "why"})

    token = database.write(lambda tx: store.create_run(tx, run("s"), fence=recorder.fence))

    with database.read() as tx:
        assert store.live_run_in(tx, "c") == ("s", "o")
    assert database.write(lambda tx: store.check_fence(tx, "s", "c", token)) == 0
    with pytest.raises(LeaseLostError, match="Run r"):
        database.write(lambda tx: store.check_fence(tx, "r", "c", recorder.fence))


def test_a_run_id_is_used_once(database, store, recorder):
    with pytest.raises(StoreError):
        database.write(lambda tx: store.open_context(tx, "d", now=NOW) and store.create_run(tx, run("r", "d"), fence=0))

    with database.read() as tx:
        assert store.live_run_in(tx, "c") == ("r", "o")
        assert store.live_run_in(tx, "d") is store.head(tx, "d") is None


def test_the_token_of_who_drives_a_run_gives_the_version_of_its_context(database, store, recorder):
    recorder.record(dispatched=[task()], writes=[write("k", "1", 1)])

    assert database.write(lambda tx: store.check_fence(tx, "r", "c", recorder.fence)) == 1


def test_the_token_of_a_context_that_is_not_there_is_refused(database, store, recorder):
    with pytest.raises(LeaseLostError):
        database.write(lambda tx: store.check_fence(tx, "r", "none", 0))


# ---------------------------------------------------------------- claiming


def test_a_claim_voids_the_token_of_the_former_owner(database, store, recorder):
    head = recorder.claim()

    assert head == (0, recorder.fence + 1)
    assert database.write(lambda tx: store.check_fence(tx, "r", "c", head.fence)) == 0
    with pytest.raises(LeaseLostError):
        database.write(lambda tx: store.check_fence(tx, "r", "c", recorder.fence))


def test_a_claim_names_the_new_owner_and_reserves_its_numbers(database, store, recorder, queries):
    database.write(lambda tx: store.register_owner(tx, owner("heir")))

    recorder.claim("heir", seq_reserved=300)

    row = queries.run("r")
    assert (row["status"], row["owner_id"], row["seq_reserved"]) == ("running", "heir", 300)


def test_a_claim_loses_what_was_open_and_nothing_that_was_committed(store, recorder, database):
    recorder.record(
        dispatched=[task(), task(2, "b")], begun=[begun(), begun(2)],
        writes=[write("k", "1", 1), write("k", "2"), write("m", "3", number=2)],
        chunks=[chunk(1, status="committed"), chunk(2), chunk(3, number=2)],
    )  # fmt: skip

    recorder.claim()

    with database.read() as tx:
        assert store.value(tx, "c", "k") == (1, "1")
        assert (store.open_value(tx, "c", "k"), store.open_keys(tx, "c")) == (None, [])
    assert recorder.ask("SELECT value, status FROM writes ORDER BY id") == [("1", "committed"), ("2", "lost"), ("3", "lost")]
    assert recorder.ask("SELECT seq, status FROM chunks ORDER BY seq") == [(1, "committed"), (2, "lost"), (3, "lost")]
    assert recorder.ask("SELECT number, attempt, status, started_at, ended_at FROM attempts ORDER BY number") == [
        (1, 1, "lost", T, T), (2, 1, "lost", T, T),
    ]  # fmt: skip


def test_a_claim_leaves_other_runs_as_they_are(database, store, recorder):
    def other(tx):
        store.open_context(tx, "d", now=NOW)
        store.create_run(tx, run("s", "d"), fence=0)
        store._many(tx, NEW_WRITE, [write("k", "1") | {"context_id": "d", "run_id": "s"}])

    database.write(other)

    recorder.claim()

    with database.read() as tx:
        assert store.open_value(tx, "d", "k") == (0, "1")
        assert store.head(tx, "d") == (0, 1)


@pytest.mark.parametrize(
    ("status", "more", "crashes"),
    [
        ("running", {}, 1),
        ("waiting", {}, 0),
        ("queued", {}, 0),
        ("paused", {"to_reason": "Ctrl-C"}, 0),
        ("failed", {"to_reason": "OSError", "to_failed_task": 1, "to_finished_at": T}, 0),
    ],
)
def test_a_claim_counts_a_crash_of_a_run_that_ran_and_clears_why_it_stood_still(recorder, queries, status, more, crashes):
    recorder.record(run={"to_status": status, **more})

    assert recorder.claim() is not None

    row = queries.run("r")
    cleared = (row["status"], row["crashes"], row["reason"], row["failed_task"], row["finished_at"])
    assert cleared == ("running", crashes, None, None, None)


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_a_run_that_is_final_cannot_be_claimed_and_keeps_its_token(database, store, recorder, queries, status):
    recorder.record(run={"to_status": status, "to_finished_at": T})
    before = queries.run("r")

    assert recorder.claim() is None

    assert queries.run("r") == before
    assert database.write(lambda tx: store.check_fence(tx, "r", "c", recorder.fence)) == 0


def test_a_claim_is_refused_by_the_database_while_another_run_holds_the_context(database, store, recorder, queries):
    recorder.record(run={"to_status": "paused", "to_reason": "why"})
    token = database.write(lambda tx: store.create_run(tx, run("s"), fence=recorder.fence))

    with pytest.raises(StoreError):
        recorder.claim()

    assert queries.run("r")["status"] == "paused"
    assert database.write(lambda tx: store.check_fence(tx, "s", "c", token)) == 0


def test_of_those_who_claim_a_run_at_once_the_last_one_holds_it(database, store, recorder):
    claims = [Helper(recorder.claim) for _ in range(6)]

    tokens = sorted(claim.result().fence for claim in claims)

    assert tokens == list(range(recorder.fence + 1, recorder.fence + 7))
    for token in tokens[:-1]:
        with pytest.raises(LeaseLostError):
            database.write(lambda tx, old=token: store.check_fence(tx, "r", "c", old))
    assert database.write(lambda tx: store.check_fence(tx, "r", "c", tokens[-1])) == 0


# ---------------------------------------------------------------- owners


def test_a_lease_is_renewed_until_its_owner_ends(database, store):
    database.write(lambda tx: store.register_owner(tx, owner()))

    assert database.write(lambda tx: store.renew_lease(tx, "o", until=LATER_TIME))
    with database.read() as tx:
        assert store.owner(tx, "o") == owner() | {"leased_until": LATER, "ended_at": None}

    database.write(lambda tx: store.end_owner(tx, "o", now=NOW))
    assert not database.write(lambda tx: store.renew_lease(tx, "o", until=LATER_TIME))
    with database.read() as tx:
        assert store.owner(tx, "o")["ended_at"] == T


def test_an_owner_that_is_not_there_has_no_lease(database, store):
    assert not database.write(lambda tx: store.renew_lease(tx, "nobody", until=NOW))
    with database.read() as tx:
        assert store.owner(tx, "nobody") is None


def test_an_owner_ends_once_and_leaves_others_as_they_are(database, store):
    for name in ("o", "p"):
        database.write(lambda tx, name=name: store.register_owner(tx, owner(name)))
    database.write(lambda tx: store.end_owner(tx, "o", now=NOW))

    database.write(lambda tx: store.end_owner(tx, "o", now=LATER_TIME))

    with database.read() as tx:
        assert [store.owner(tx, name)["ended_at"] for name in ("o", "p")] == [T, None]


def test_a_run_of_an_owner_that_is_not_registered_is_refused(database, store):
    with pytest.raises(StoreError):
        database.write(lambda tx: store.open_context(tx, "c", now=NOW) and store.create_run(tx, run(), fence=0))


# ---------------------------------------------------------------- transactions


def test_a_transaction_whose_work_raises_records_nothing(database, store):
    def work(tx):
        store.set_values(tx, "c", [("a", "1")], now=NOW)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.write(work)

    with database.read() as tx:
        assert store.head(tx, "c") is None
