"""R13: what keeps a dispatch from starting, a time or keys that are to be written; retries and cancellation, too (R8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from liteflow.engine.holds import Holds
from liteflow.engine.state import Entry, Request
from liteflow.model import Dispatch, RunStatus, TaskStatus
from tests.states import all_running, ask, begin, loaded, run_of, spawn

BEHIND, MERGED, PENDING = TaskStatus.BEHIND, TaskStatus.MERGED, TaskStatus.PENDING
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


def awaiting(task_id: str, *keys: str, given: str = "", inputs: str | None = None) -> Request:
    """Ask for a task that waits for keys, of which some are *given* already."""
    return Request(task_id, inputs, wait_for=keys, missing=frozenset(keys) - {*given.split()})


def delayed(task_id: str, inputs: str | None = None) -> Request:
    return Request(task_id, inputs, not_before=NOON)


# ---------------------------------------------------------------- keys


def test_a_dispatch_starts_when_the_last_of_its_keys_is_written_in_whatever_order():
    state = run_of(awaiting("ship", "a", "b"))
    assert state.take_ready() == []

    state.written(["b", "other"])
    assert state.take_ready() == []
    state.written(["a"])

    assert state.take_ready() == [2]


def test_a_dispatch_does_not_wait_for_what_was_written_before():
    assert run_of(awaiting("ship", "a", "b", given="a b")).take_ready() == [2]


def test_keys_that_are_written_together_or_again_start_a_dispatch_once():
    state = run_of(awaiting("ship", "a", "b"))

    state.written(["a", "b", "a"])
    state.written(["b"])

    assert state.take_ready() == [2]
    assert state.take_ready() == []


def test_all_who_wait_for_a_key_start_with_it_in_dispatch_order():
    state = run_of(awaiting("ship", "a"), awaiting("bill", "a"), awaiting("tell", "b"))

    state.written(["a"])

    assert state.take_ready() == [2, 3]


def test_a_key_starts_nothing_in_a_run_that_stands_still_and_is_not_forgotten():
    state = run_of(awaiting("ship", "a"))
    state.stop(RunStatus.PAUSED)

    state.written(["a"])

    assert state.take_ready() == []
    assert state.live[2].missing == set()


def test_a_turn_whose_keys_are_written_waits_for_the_turn_before_it():
    state = all_running(Request("ship", "1"), awaiting("ship", "a", inputs="2"))

    state.written(["a"])
    assert state.take_ready() == []
    state.completed(2, [])

    assert state.take_ready() == [3]


def test_a_turn_that_comes_before_its_keys_waits_for_them():
    state = all_running(Request("ship", "1"), awaiting("ship", "a", inputs="2"))

    state.completed(2, [])
    assert state.take_ready() == []
    state.written(["a"])

    assert state.take_ready() == [3]


def test_what_was_missing_when_the_rows_were_loaded_is_what_is_waited_for():
    state = loaded(Entry(Dispatch(2, "ship"), wait_for=("a", "b"), missing={"b"}))
    state.resume()
    assert state.take_ready() == []

    state.written(["b"])

    assert state.take_ready() == [2]


def test_dispatches_that_wait_for_the_same_merge_and_others_are_turns():
    state = all_running("ask")

    assert ask(state, *[awaiting("ship", *keys) for keys in (["a"], ["a"], ["b"], [])]) == [
        (3, "ship", PENDING, None),
        (4, "ship", MERGED, 3),
        (5, "ship", BEHIND, None),
        (6, "ship", BEHIND, None),
    ]


def test_a_dispatch_whose_keys_are_all_written_merges_into_an_equal_one_that_runs():
    state = all_running("ask", "ship")

    assert ask(state, awaiting("ship", "a", given="a")) == [(4, "ship", BEHIND, 3)]


def test_a_dispatch_that_waits_does_not_end_with_an_equal_one_that_runs_without_its_key():
    state = all_running("ask", "ship")

    recorded = ask(state, awaiting("ship", "approval"))
    state.completed(3, [])

    assert recorded == [(4, "ship", BEHIND, None)]
    assert list(state.live) == [4]  # it still waits
    assert state.take_ready() == []


def test_a_dispatch_that_waits_does_not_merge_into_an_equal_one_that_is_tried_again():
    state = all_running("ask", "ship")
    state.retried(3, NOON)

    assert ask(state, awaiting("ship", "approval")) == [(4, "ship", BEHIND, None)]


# ---------------------------------------------------------------- times


def test_a_delayed_dispatch_starts_when_its_time_has_come_and_its_time_is_told_once():
    state = run_of(delayed("poll"))
    assert state.take_ready() == []
    assert (state.take_delayed(), state.take_delayed()) == ([(2, NOON)], [])

    state.due(2)

    assert state.take_ready() == [2]


def test_a_time_that_has_come_twice_starts_it_once():
    state = run_of(delayed("poll"))

    state.due(2)
    state.due(2)

    assert state.take_ready() == [2]


@pytest.mark.parametrize("number", [2, 9])
def test_the_time_of_what_has_none_or_is_over_changes_nothing(number: int):
    state = run_of("a")
    before = state.recorded()

    state.due(number)

    assert state.recorded() == before


@pytest.mark.parametrize("time_first", [True, False])
def test_a_delay_and_keys_must_both_be_over(*, time_first: bool):
    state = run_of(awaiting("ship", "a")._replace(not_before=NOON))
    steps = [lambda: state.due(2), lambda: state.written(["a"])]

    steps[not time_first]()
    assert state.take_ready() == []
    steps[time_first]()

    assert state.take_ready() == [2]


def test_a_delayed_turn_has_its_time_told_when_its_turn_comes():
    state = all_running(Request("poll", "1"), delayed("poll", "2"))
    assert state.take_delayed() == []

    state.completed(2, [])

    assert state.take_delayed() == [(3, NOON)]
    assert state.take_ready() == []


def test_delayed_dispatches_merge_with_none():
    state = all_running("ask")

    assert ask(state, delayed("poll"), delayed("poll"), Request("poll")) == [
        (3, "poll", PENDING, None),
        (4, "poll", BEHIND, None),
        (5, "poll", BEHIND, None),
    ]


def test_a_process_that_takes_a_run_up_is_told_of_the_times_again():
    state = loaded(Entry(Dispatch(2, "poll"), not_before=NOON))

    state.resume()

    assert state.take_ready() == []
    assert state.take_delayed() == [(2, NOON)]
    state.due(2)
    assert state.take_ready() == [2]


# ---------------------------------------------------------------- retries


def test_a_dispatch_that_is_tried_again_starts_at_its_time_and_its_failure_is_counted():
    state = all_running("a")

    decision = state.retried(2, NOON)

    assert (decision.moved, decision.run) == ([(2, PENDING)], None)
    assert state.live[2].failures == 1
    assert state.take_ready() == []
    state.due(2)
    assert state.take_ready() == [2]
    assert state.begin(2) == 2


def test_each_try_waits_for_a_time_of_its_own():
    state = run_of(delayed("a"))
    state.due(2)
    begin(state, *state.take_ready())
    state.take_delayed()

    state.retried(2, LATER)

    assert state.take_delayed() == [(2, LATER)]
    assert state.take_ready() == []


def test_the_failures_and_the_time_of_a_dispatch_survive_the_process():
    state = loaded(Entry(Dispatch(2, "a"), attempts=2, failures=2, not_before=NOON))
    state.resume()
    state.due(2)
    begin(state, *state.take_ready())

    state.retried(2, LATER)

    assert (state.live[2].failures, state.live[2].not_before) == (3, LATER)


def test_a_dispatch_merges_into_an_equal_one_that_is_tried_again_as_that_will_see_all():
    state = all_running("a", "sink")
    state.retried(3, NOON)

    assert ask(state, Request("sink")) == [(4, "sink", MERGED, 3)]


def test_followers_of_an_attempt_that_is_tried_again_merge_for_good():
    state = all_running("a", "sink")
    ask(state, Request("sink"))

    assert state.retried(3, NOON).merged == [(4, 3)]


def test_who_is_tried_again_passes_its_turn_over_a_key_on():
    state = all_running("a", "b")
    for number in (2, 3):
        state.completed(number, [], wrote={"k"}, outdated=["k"])
    begin(state, *state.take_ready())

    state.retried(2, NOON)

    assert state.take_ready() == [3]


def test_a_try_to_come_does_not_keep_a_run_from_standing_still():
    state = all_running("a")
    state.stop(RunStatus.PAUSED)

    assert state.retried(2, NOON).run is RunStatus.PAUSED


# ---------------------------------------------------------------- cancellation


def test_cancellation_wins_over_a_failure_and_a_pause_before_and_after_it():
    state = all_running("a", "b", "c", "d")
    state.stop(RunStatus.PAUSED)
    state.failed(2)

    state.stop(RunStatus.CANCELLED)
    state.failed(3)
    state.stop(RunStatus.PAUSED)

    assert state.given_up(4).run is None
    assert state.given_up(5).run is RunStatus.CANCELLED
    assert state.take_ready() == []


def test_a_run_of_which_nothing_runs_is_cancelled_at_once():
    assert run_of(delayed("a"), awaiting("b", "k")).stop(RunStatus.CANCELLED).run is RunStatus.CANCELLED


def test_a_run_that_is_cancelled_while_its_last_dispatch_completes_is_completed():
    state = all_running("a")
    state.stop(RunStatus.CANCELLED)

    assert state.completed(2, []).run is RunStatus.COMPLETED


# ---------------------------------------------------------------- the holds alone


def entry(number: int, *keys: str, members: tuple[int, ...] = ()) -> Entry:
    return Entry(Dispatch(number, "a"), wait_for=keys, missing={*keys}, members={*members})


def test_holds_tell_who_waits_for_nothing_more():
    holds, one, two = Holds(), entry(1, "a"), entry(2, "a", "b")
    for each in (one, two):
        holds.enter(each)

    assert holds.written(["a"]) == [one]
    assert holds.written(["a", "b"]) == [two]
    assert holds.written(["a", "b"]) == []


def test_a_key_alone_does_not_free_a_join_that_waits_for_members():
    holds, join = Holds(), entry(3, "a", members=(1, 2))
    holds.enter(join)

    assert holds.written(["a"]) == []
    assert holds.completed(1) == [join]
    assert holds.completed(2) == [join]
    assert join.is_free


def test_a_member_that_is_merged_is_waited_for_in_who_does_its_work():
    holds, join = Holds(), entry(3, members=(2,))
    holds.enter(join)

    holds.merged(2, 1)

    assert join.members == {1}
    assert holds.completed(2) == []
    assert holds.completed(1) == [join]
    assert join.is_free


def test_members_that_are_merged_into_one_another_are_waited_for_once():
    holds, join = Holds(), entry(3, members=(1, 2))
    holds.enter(join)

    holds.merged(2, 1)

    assert join.members == {1}
    assert holds.completed(1) == [join]
    assert holds.completed(1) == []


def test_spawned_instances_wait_each_for_its_own_key():
    state = run_of(*[spawn("ship", k)._replace(wait_for=(k,), missing=frozenset({k})) for k in "ab"])

    state.written(["b"])

    assert state.take_ready() == [3]
