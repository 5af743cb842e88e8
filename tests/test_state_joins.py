"""R6: a join starts once, when every dispatch of the output that asked for it has completed, whoever did its work."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from liteflow.engine.state import Decision, Entry, Request, RunState
from liteflow.model import Dispatch, RunStatus, TaskStatus
from tests.states import all_running, begin, loaded, spawn

BEHIND, MERGED, PENDING = TaskStatus.BEHIND, TaskStatus.MERGED, TaskStatus.PENDING
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fan(state: RunState, *members: Request, join: Request | None = None, by: int = 2) -> Decision:
    """Let a dispatch complete with these members of a join."""
    return state.completed(by, members, join or Request("reduce"))


def run_all_ready(state: RunState) -> list[int]:
    """Begin what is ready; return it."""
    numbers = state.take_ready()
    begin(state, *numbers)
    return numbers


def fanned(*members: Request, join: Request | None = None) -> RunState:
    """Return a run in which dispatch 2 fanned out to these, numbered from 3, and their join; those that may run do."""
    state = all_running("fan")
    fan(state, *members, join=join)
    run_all_ready(state)
    return state


# ---------------------------------------------------------------- when a join starts


def test_a_join_starts_with_the_completion_of_its_last_member_and_once():
    state = fanned(spawn("part", "1"), spawn("part", "2"))

    state.completed(4, [])
    assert state.take_ready() == []
    state.completed(3, [])

    assert state.take_ready() == [5]
    assert state.take_ready() == []


def test_a_join_is_recorded_after_its_members_with_their_number_and_they_with_its_number():
    decision = fan(all_running("fan"), spawn("part", "1"), spawn("part", "2"))

    assert [(new.dispatch.number, new.dispatch.key, new.dispatch.joins, new.join) for new in decision.dispatched] == [
        (3, "part", None, 5),
        (4, "part#2", None, 5),
        (5, "reduce", 2, None),
    ]


def test_a_join_of_nothing_starts_at_once():
    state = all_running("fan")

    decision = fan(state)

    assert [(new.dispatch.joins, new.status) for new in decision.dispatched] == [(0, PENDING)]
    assert state.take_ready() == [3]


def test_an_attempt_that_loses_a_conflict_asks_for_no_join():
    state = all_running("fan")

    decision = state.completed(2, [spawn("part")], Request("reduce"), wrote={"k"}, outdated=["k"])

    assert (decision.conflicted, decision.dispatched, list(state.live)) == (True, [], [2])


@pytest.mark.parametrize("how", [RunState.given_up, lambda state, number: state.retried(number, NOON)])
def test_a_member_whose_attempt_comes_to_nothing_is_still_waited_for(how):
    state = fanned(spawn("part", "1"), spawn("part", "2"))
    state.completed(3, [])

    how(state, 4)
    state.due(4)

    assert run_all_ready(state) == [4]
    state.completed(4, [])
    assert state.take_ready() == [5]


def test_a_join_does_not_start_when_a_member_fails_and_starts_once_that_has_run_again():
    state = fanned(spawn("part", "1"), spawn("part", "2"))
    state.failed(3)

    assert state.completed(4, []).run is RunStatus.FAILED
    assert state.take_ready() == []
    state.resume()
    assert run_all_ready(state) == [3]
    state.completed(3, [])

    assert state.take_ready() == [5]


def test_a_join_waits_for_its_own_time_and_keys_too():
    join = Request("reduce", not_before=NOON, wait_for=("k",), missing=frozenset("k"))
    state = fanned(spawn("part"), join=join)

    state.completed(3, [])
    assert state.take_ready() == []
    state.written(["k"])
    assert state.take_ready() == []
    state.due(4)

    assert state.take_ready() == [4]


def test_a_delayed_member_is_waited_for():
    state = fanned(Request("part", not_before=NOON), spawn("part", "2"))
    state.completed(4, [])

    assert state.take_ready() == []
    assert state.is_idle
    state.due(3)
    assert run_all_ready(state) == [3]
    state.completed(3, [])
    assert state.take_ready() == [5]


def test_a_run_ends_with_its_join_and_not_with_its_last_member():
    state = fanned(spawn("part"))

    assert state.completed(3, []).run is None
    run_all_ready(state)

    assert state.completed(4, []).run is RunStatus.COMPLETED


# ---------------------------------------------------------------- members that merge


def test_a_member_that_merges_into_another_member_is_waited_for_in_that():
    state = all_running("fan")

    decision = fan(state, Request("part"), Request("part"))
    run_all_ready(state)

    assert [(new.status, new.merged_into) for new in decision.dispatched] == [(PENDING, None), (MERGED, 3), (PENDING, None)]
    state.completed(3, [])
    assert state.take_ready() == [5]


def test_a_member_that_merges_into_an_instance_that_has_not_started_waits_for_that():
    state = all_running("fan", "a", Request("a", "2"))

    fan(state, Request("a", "2"))

    assert state.live[6].members == {4}
    state.completed(3, [])
    assert run_all_ready(state) == [4]
    state.completed(4, [])
    assert state.take_ready() == [6]


@pytest.mark.parametrize("outdated", [[], ["k"]])
def test_a_member_that_merges_into_one_that_runs_is_done_with_it_unless_that_must_run_once_more(outdated: list[str]):
    state = all_running("fan", "part")
    fan(state, Request("part"))

    decision = state.completed(3, [], wrote={"part"}, outdated=outdated)

    if outdated:
        assert run_all_ready(state) == [4]
        state.completed(4, [])
    else:
        assert decision.merged == [(4, 3)]
    assert state.take_ready() == [5]


def test_a_member_that_follows_an_attempt_that_comes_to_nothing_is_done_when_that_has_run_again():
    state = all_running("fan", "part")
    fan(state, Request("part"))

    assert state.given_up(3).merged == [(4, 3)]
    assert state.live[5].members == {3}
    assert run_all_ready(state) == [3]
    state.completed(3, [])

    assert state.take_ready() == [5]


def test_one_dispatch_may_be_waited_for_by_several_joins():
    state = all_running("fan", spawn("fan"), Request("part", "1"), Request("part", "2"))
    fan(state, Request("part", "2"))
    fan(state, Request("part", "2"), join=Request("other"), by=3)
    state.completed(4, [])
    assert run_all_ready(state) == [5]

    decision = state.completed(5, [])

    assert not decision.leaf
    assert sorted(state.take_ready()) == [7, 9]


def test_who_does_the_work_of_a_member_is_not_in_the_result_and_who_is_no_member_is():
    state = all_running("fan", "part", "alone")
    fan(state, Request("part"))

    assert state.completed(4, []).leaf
    assert not state.completed(3, []).leaf
    run_all_ready(state)
    assert state.completed(6, []).leaf


# ---------------------------------------------------------------- joins among each other


def test_a_join_is_no_twin_of_any_dispatch_and_merges_into_none():
    state = all_running("fan", "reduce")

    decision = fan(state, spawn("part"))
    again = state.completed(3, [Request("reduce")])

    assert [(new.dispatch.number, new.status, new.merged_into) for new in decision.dispatched] == [
        (4, PENDING, None),
        (5, BEHIND, None),
    ]
    assert [(new.dispatch.number, new.status, new.merged_into) for new in again.dispatched] == [(6, BEHIND, None)]


@pytest.mark.parametrize("members_first", [True, False])
def test_a_join_behind_an_active_instance_of_its_task_waits_for_its_turn_and_its_members(*, members_first: bool):
    state = all_running("fan", Request("reduce", "other"))
    fan(state, spawn("part"))
    run_all_ready(state)
    first, last = (4, 3) if members_first else (3, 4)

    state.completed(first, [])
    assert state.take_ready() == []
    state.completed(last, [])

    assert state.take_ready() == [5]


def test_a_join_of_the_same_task_as_its_members_starts_after_them():
    state = all_running("fan")
    fan(state, Request("work", "1"), Request("work", "2"), join=Request("work", "all"))

    order = []
    while ready := run_all_ready(state):
        order += ready
        state.completed(ready[0], [])

    assert order == [3, 4, 5]


def test_a_join_that_is_spawned_has_an_instance_of_its_own():
    state = all_running("fan", "reduce")

    fan(state, spawn("part"), join=spawn("reduce"))

    assert state.live[5].dispatch.key == "reduce#2"


def test_a_member_has_completed_when_it_returned_whatever_it_dispatched():
    state = fanned(spawn("part"))

    fan(state, spawn("leaf"), join=Request("inner"), by=3)

    assert state.take_ready() == [4, 5]
    assert state.live[6].members == {5}


def test_a_join_may_ask_for_the_next_join_of_its_own_task():
    state = fanned(spawn("part"))
    state.completed(3, [])
    run_all_ready(state)

    fan(state, spawn("part"), by=4)

    assert run_all_ready(state) == [5]
    state.completed(5, [])
    assert state.take_ready() == [6]


# ---------------------------------------------------------------- waits


def test_a_member_that_waits_for_its_join_is_stuck_once_nothing_else_goes_on():
    state = fanned(spawn("part", "1"), spawn("part", "2"))
    state.blocks(3, "reduce")
    assert state.stuck() == []

    state.completed(4, [])

    assert state.stuck() == [3]


def test_who_waits_for_a_join_is_not_stuck_while_its_members_go_on():
    state = all_running("fan", "watch")
    fan(state, spawn("part"))
    run_all_ready(state)

    state.blocks(3, "reduce")
    assert state.stuck() == []
    state.completed(4, [])

    assert state.stuck() == []
    assert state.take_ready() == [5]


def test_a_run_whose_joins_wait_for_members_that_wait_is_idle():
    state = all_running("fan")
    fan(state, Request("part", not_before=NOON))
    state.take_ready()

    assert state.is_idle


def test_a_run_whose_join_is_ready_is_not_idle():
    state = fanned(spawn("part"))

    state.completed(3, [])

    assert not state.is_idle


# ---------------------------------------------------------------- recovery


def test_a_join_that_is_loaded_waits_for_those_of_its_members_that_are_live():
    join = Entry(Dispatch(6, "reduce", joins=4), members={3, 5})
    state = loaded(Entry(Dispatch(3, "part"), join=6), Entry(Dispatch(5, "part", 3), join=6), join, spawned={"part": 3})
    state.resume()
    assert run_all_ready(state) == [3, 5]

    state.completed(5, [])
    assert state.take_ready() == []
    state.completed(3, [])

    assert state.take_ready() == [6]


def test_a_join_whose_members_have_all_completed_starts_with_the_resume():
    state = loaded(Entry(Dispatch(6, "reduce", joins=4)))

    state.resume()

    assert state.take_ready() == [6]


def test_a_follower_that_is_a_member_is_waited_for_after_a_crash_in_who_does_its_work():
    followed = Entry(Dispatch(3, "part"), attempts=1)
    follower = Entry(Dispatch(5, "part"), BEHIND, merges_into=3, join=6)
    state = loaded(followed, follower, Entry(Dispatch(6, "reduce", joins=1), members={5}))

    assert state.resume().merged == [(5, 3)]
    assert run_all_ready(state) == [3]
    assert not state.completed(3, []).leaf

    assert state.take_ready() == [6]


def test_a_run_with_joins_that_is_loaded_is_as_the_one_that_was_recorded():
    state = all_running("fan", "part", Request("reduce", "other"))
    fan(state, Request("part"), spawn("leaf"), join=Request("reduce", wait_for=("k",), missing=frozenset("k")))

    copy = loaded(
        Entry(Dispatch(3, "part", 1, None, 1)),
        Entry(Dispatch(4, "reduce", 1, "other", 1)),
        Entry(Dispatch(5, "part", 1, None, 2), BEHIND, merges_into=3, join=7),
        Entry(Dispatch(6, "leaf", 1, None, 2), join=7),
        Entry(Dispatch(7, "reduce", 1, None, 2, 2), BEHIND, wait_for=("k",), missing={"k"}, members={5, 6}),
        produced=["start", "fan"],
        next_number=8,
    )

    assert copy.recorded() == state.recorded()
