"""What happens next in a run: who waits for whom (R4), who runs again after a conflict, and when (R5), and when all waits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from liteflow.engine.state import Entry, Request, RunState
from liteflow.model import Dispatch, RunStatus, TaskStatus
from tests.states import all_running, begin, loaded, run_of, spawn

PENDING = TaskStatus.PENDING
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def awaiting(task_id: str, key: str) -> Request:
    return Request(task_id, wait_for=(key,), missing=frozenset({key}))


def delayed(task_id: str, inputs: str | None = None) -> Request:
    return Request(task_id, inputs, not_before=NOON)


# ---------------------------------------------------------------- R4: waiting


def test_a_get_waits_for_an_instance_that_is_dispatched_and_has_no_output_yet():
    state = run_of("a", "b")

    assert state.must_wait("b", 2)
    assert state.must_wait("b", None)  # an observer does likewise


def test_a_get_waits_no_longer_once_the_instance_has_an_output():
    state = all_running("a", "b")

    state.completed(3, [])

    assert not state.must_wait("b", 2)


def test_a_get_does_not_wait_for_the_next_turn_of_an_instance_that_has_an_output_in_this_run():
    state = all_running("a", "b")

    state.completed(3, [Request("b")])

    assert 4 in state.live
    assert not state.must_wait("b", 2)


def test_after_a_crash_a_get_does_not_wait_for_what_had_an_output():
    state = loaded(Entry(Dispatch(4, "b")), Entry(Dispatch(5, "c")), produced=["b"])

    assert not state.must_wait("b", None)
    assert state.must_wait("c", None)


def test_a_task_does_not_wait_for_itself():
    state = all_running("a", spawn("a"))

    assert not state.must_wait("a", 2)
    assert state.must_wait("a", 3)


def test_a_get_does_not_wait_for_a_key_that_no_instance_has():
    assert not run_of("a").must_wait("b", 2)


def test_a_get_waits_for_each_spawned_instance_until_it_has_finished():
    state = all_running("a", "b", spawn("b"))

    state.completed(3, [])

    assert not state.must_wait("b", 2)
    assert state.must_wait("b#2", 2)
    state.completed(4, [])
    assert not state.must_wait("b#2", 2)


def test_a_wait_that_closes_a_circle_is_told_so():
    state = all_running("a", "b", "c")

    assert not state.blocks(2, "b")
    assert not state.blocks(3, "c")
    assert state.blocks(4, "a")
    assert state.waits() == {"a": "b", "b": "c", "c": "a"}


def test_a_task_that_waits_for_its_own_first_output_closes_a_circle():
    assert all_running("a").blocks(2, "a")


def test_a_chain_of_waits_is_no_circle():
    state = all_running("a", "b", "c")

    assert not state.blocks(2, "b")
    assert not state.blocks(3, "c")


def test_a_wait_that_is_over_closes_no_circle():
    state = all_running("a", "b")
    state.blocks(2, "b")

    state.unblocks(2)

    assert not state.blocks(3, "a")
    assert state.waits() == {"b": "a"}


def test_a_wait_for_a_task_that_is_dispatched_later_closes_a_circle_then():
    state = all_running("a", "starter")
    assert not state.blocks(2, "b")

    state.completed(3, [Request("b")])
    begin(state, 4)

    assert state.blocks(4, "a")


@pytest.mark.parametrize("other_begins", [False, True])
def test_nobody_is_stuck_while_something_runs_or_will_start(*, other_begins: bool):
    state = run_of("a", "b")
    begin(state, *[2, 3][: 1 + other_begins])

    state.blocks(2, "never")

    assert state.stuck() == []


def test_those_who_wait_for_what_nothing_will_produce_are_stuck_but_not_those_who_wait_for_them():
    state = all_running("a", "b")

    state.blocks(2, "b")
    state.blocks(3, "never")

    assert state.stuck() == [3]


def test_a_turn_behind_one_who_waits_frees_nobody():
    state = all_running(Request("a", "1"), Request("a", "2"))

    state.blocks(2, "never")

    assert state.stuck() == [2]


def test_in_a_run_that_stops_all_who_wait_are_stuck_once_nothing_else_runs():
    state = all_running("a", "b", "c", "d")
    state.blocks(2, "b")
    state.blocks(3, "c")

    state.failed(4)
    assert state.stuck() == []  # d may still let them go on
    state.completed(5, [Request("e")])

    assert state.stuck() == [2, 3]


# ---------------------------------------------------------------- R5: conflicts and turns


def test_an_attempt_that_wrote_what_it_had_read_and_others_changed_runs_again():
    state = all_running("a")

    decision = state.completed(2, [Request("next")], wrote={"k", "a"}, outdated=["k"])

    assert decision.conflicted
    assert decision.moved == [(2, PENDING)]
    assert (decision.dispatched, decision.run) == ([], None)
    assert state.take_ready() == [2]
    assert state.begin(2) == 2


def test_an_attempt_that_wrote_other_keys_than_those_that_changed_commits():
    decision = all_running("a").completed(2, [], wrote={"k", "a"}, outdated=["other", ""])

    assert not decision.conflicted


def test_those_who_lost_over_one_key_take_turns_in_the_order_of_their_losses():
    state = all_running("a", "b", "c")
    for number in (3, 2, 4):
        state.completed(number, [], wrote={"k"}, outdated=["k"])

    order = []
    while ready := state.take_ready():
        order.append(ready)
        begin(state, *ready)
        state.completed(ready[0], [], wrote={"k"})

    assert order == [[3], [2], [4]]


def test_those_who_lost_over_different_keys_run_side_by_side():
    state = all_running("a", "b")

    state.completed(2, [], wrote={"k"}, outdated=["k"])
    state.completed(3, [], wrote={"m"}, outdated=["m"])

    assert state.take_ready() == [2, 3]


def test_who_lost_over_two_keys_waits_for_the_turn_of_both_and_nobody_overtakes():
    state = all_running("a", "b", "c")
    state.completed(2, [], wrote={"k"}, outdated=["k"])
    state.completed(3, [], wrote={"k", "m"}, outdated=["k", "m"])
    state.completed(4, [], wrote={"m"}, outdated=["m"])
    assert state.take_ready() == [2]
    begin(state, 2)

    state.completed(2, [], wrote={"k"})
    assert state.take_ready() == [3]
    begin(state, 3)
    state.completed(3, [], wrote={"k", "m"})

    assert state.take_ready() == [4]


def test_who_loses_again_in_its_turn_goes_to_the_end():
    state = all_running("a", "b")
    for number in (2, 3):
        state.completed(number, [], wrote={"k"}, outdated=["k"])
    begin(state, *state.take_ready())

    state.completed(2, [], wrote={"k"}, outdated=["k"])

    assert state.take_ready() == [3]


def test_an_attempt_that_is_given_up_passes_its_turn_on():
    state = all_running("a", "b")
    for number in (2, 3):
        state.completed(number, [], wrote={"k"}, outdated=["k"])
    begin(state, *state.take_ready())

    state.given_up(2)

    assert sorted(state.take_ready()) == [2, 3]


def test_who_begins_to_wait_passes_its_turn_on_as_it_may_wait_for_the_next():
    state = all_running("a", "b")
    for number in (2, 3):
        state.completed(number, [], wrote={"k"}, outdated=["k"])
    begin(state, *state.take_ready())

    assert not state.blocks(2, "b")

    assert state.take_ready() == [3]


def test_a_conflict_takes_the_followers_in_as_the_next_attempt_begins_at_the_top():
    state = all_running("reduce", "a")
    state.completed(3, [Request("reduce")])

    decision = state.completed(2, [], wrote={"k"}, outdated=["k"])

    assert decision.merged == [(4, 2)]
    assert list(state.live) == [2]


def test_a_checkpoint_without_a_conflict_changes_nothing_of_the_run():
    state = all_running("a")
    before = state.recorded()

    decision = state.checkpointed(2, wrote={"k"}, outdated=["other", ""])

    assert (decision.conflicted, decision.moved, state.recorded()) == (False, [], before)
    assert state.live[2].status is TaskStatus.RUNNING


def test_a_checkpoint_of_a_key_that_was_read_and_has_changed_makes_the_attempt_run_again():
    state = all_running("a")

    decision = state.checkpointed(2, wrote={"k"}, outdated=["k"])

    assert (decision.conflicted, decision.moved) == (True, [(2, PENDING)])
    assert state.take_ready() == [2]
    assert state.begin(2) == 2


def test_those_who_lost_at_a_checkpoint_take_turns_too():
    state = all_running("a", "b")

    state.checkpointed(2, wrote={"k"}, outdated=["k"])
    state.completed(3, [], wrote={"k"}, outdated=["k"])

    assert state.take_ready() == [2]


# ---------------------------------------------------------------- a run that waits


def waiting(*requests: Request) -> RunState:
    state = run_of(*requests)
    state.take_ready()
    return state


@pytest.mark.parametrize(
    "requests", [[delayed("a")], [awaiting("a", "k")], [delayed("a"), delayed("a", "2"), awaiting("b", "k")]]
)
def test_a_run_is_idle_if_all_of_it_waits_for_a_time_a_key_or_its_turn(requests: list[Request]):
    assert waiting(*requests).is_idle


def test_a_run_of_which_something_is_ready_handed_out_or_runs_is_not_idle():
    state = run_of("a", delayed("b"))

    ready = state.is_idle
    state.take_ready()
    handed_out = state.is_idle
    begin(state, 2)

    assert (ready, handed_out, state.is_idle) == (False, False, False)
    state.completed(2, [])
    assert state.is_idle


def test_a_run_whose_tasks_wait_for_each_others_keys_is_not_idle_while_they_run():
    state = all_running("a", delayed("b"))
    state.blocks(2, "b")

    assert not state.is_idle


def test_a_run_is_idle_no_more_once_a_time_or_a_key_has_come():
    state = waiting(delayed("a"), awaiting("b", "k"))

    state.written(["k"])
    assert not state.is_idle
    begin(state, *state.take_ready())
    state.completed(3, [])
    assert state.is_idle
    state.due(2)

    assert not state.is_idle


def test_a_run_in_which_one_waits_for_its_turn_over_a_key_is_not_idle():
    state = all_running("a", "b", delayed("c"))
    for number in (2, 3):
        state.completed(number, [], wrote={"k"}, outdated=["k"])
    state.take_ready()

    assert not state.is_idle


@pytest.mark.parametrize("status", [RunStatus.PAUSED, RunStatus.CANCELLED])
def test_a_run_that_is_to_stand_still_is_not_idle(status: RunStatus):
    state = waiting(delayed("a"))

    state.stop(status)

    assert not state.is_idle


def test_a_run_that_is_over_is_not_idle():
    state = all_running("a")
    state.completed(2, [])

    assert not state.is_idle
