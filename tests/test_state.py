"""What happens next in a run: what is dispatched (R6), in which order (R7), and what errors and crashes change (R8)."""

from __future__ import annotations

import pytest

from liteflow.engine.state import Entry, Request, RunState
from liteflow.model import Dispatch, RunStatus, TaskStatus
from tests.states import all_running, ask, begin, loaded, run_of, spawn

BEHIND, FAILED, MERGED, PENDING = TaskStatus.BEHIND, TaskStatus.FAILED, TaskStatus.MERGED, TaskStatus.PENDING


# ---------------------------------------------------------------- R6: dispatching


def test_a_task_of_which_no_instance_is_active_gets_its_id_as_key():
    assert ask(all_running("a"), Request("b"), spawn("c")) == [(3, "b", PENDING, None), (4, "c", PENDING, None)]


def test_spawned_instances_are_numbered_up_and_no_number_is_used_twice():
    state = all_running("a", "b", spawn("b"))
    state.completed(4, [])

    assert ask(state, spawn("b"), spawn("b")) == [(5, "b#3", PENDING, None), (6, "b#4", PENDING, None)]


def test_no_instance_number_is_used_twice_after_a_crash():
    state = loaded(Entry(Dispatch(2, "a")), Entry(Dispatch(3, "b")), spawned={"b": 7}, next_number=12)
    state.resume()
    begin(state, 2)

    assert ask(state, spawn("b")) == [(12, "b#8", PENDING, None)]


def test_a_dispatch_with_equal_inputs_merges_into_one_that_has_not_started():
    state = run_of("a", Request("b", "1"))
    begin(state, 2)

    assert ask(state, Request("b", "1")) == [(4, "b", MERGED, 3)]


def test_a_dispatch_with_other_inputs_is_one_more_turn_in_dispatch_order():
    state = run_of("a", Request("b", "1"))
    begin(state, 2)
    assert ask(state, Request("b", "2"), Request("b", "3")) == [(4, "b", BEHIND, None), (5, "b", BEHIND, None)]

    order = []
    while ready := state.take_ready():
        order += ready
        begin(state, *ready)
        state.completed(ready[0], [])

    assert order == [3, 4, 5]


def test_the_next_turn_may_start_when_the_one_before_has_completed():
    state = all_running(Request("b", "1"), Request("b", "2"))
    assert state.take_ready() == []

    decision = state.completed(2, [])

    assert decision.moved == [(3, PENDING)]
    assert state.take_ready() == [3]


def test_a_dispatch_merges_into_an_equal_turn_that_is_still_to_come():
    state = all_running("a", Request("b", "1"), Request("b", "2"))

    assert ask(state, Request("b", "2")) == [(5, "b", MERGED, 4)]


def test_a_dispatch_prefers_an_equal_one_that_has_not_started_whichever_instance_it_is():
    state = run_of("a", Request("b", "1"), spawn("b", "1"))
    begin(state, 2, 3)

    assert ask(state, Request("b", "1")) == [(5, "b#2", MERGED, 4)]


def test_a_dispatch_that_merges_into_a_running_one_ends_with_it_if_nothing_it_read_has_changed():
    state = all_running("a", "reduce")
    assert ask(state, Request("reduce")) == [(4, "reduce", BEHIND, 3)]

    decision = state.completed(3, [])

    assert decision.merged == [(4, 3)]
    assert decision.run is RunStatus.COMPLETED


def test_a_reducer_that_was_running_runs_once_more_when_what_it_read_has_changed():
    state = all_running("a", "reduce")
    ask(state, Request("reduce"))

    decision = state.completed(3, [], wrote={"reduce"}, outdated=["total"])

    assert decision.merged == []
    assert decision.moved[-1] == (4, PENDING)
    assert state.take_ready() == [4]
    assert state.live[4].merges_into is None


def test_all_that_merge_into_a_running_one_are_at_most_one_more_turn():
    state = all_running("a", "reduce")

    assert ask(state, Request("reduce"), Request("reduce")) == [(4, "reduce", BEHIND, 3), (5, "reduce", MERGED, 4)]


def test_a_task_may_dispatch_itself():
    state = all_running("loop")

    assert ask(state, Request("loop")) == [(3, "loop", PENDING, None)]
    assert state.take_ready() == [3]


def test_a_task_that_dispatches_itself_comes_after_the_turns_behind_it():
    state = all_running(Request("loop", "1"), Request("loop", "2"))

    assert ask(state, Request("loop", "3"), Request("loop", "2")) == [(4, "loop", BEHIND, None), (5, "loop", MERGED, 3)]


def test_one_more_turn_goes_to_the_oldest_instance():
    state = all_running("a", Request("b", "1"), spawn("b", "2"), spawn("b", "3"))
    state.completed(3, [])

    assert ask(state, Request("b", "4")) == [(6, "b#2", BEHIND, None)]


def test_one_more_turn_goes_to_the_oldest_instance_after_a_crash_too():
    turn_of_the_oldest = Entry(Dispatch(5, "b", 1, "3"))
    state = loaded(Entry(Dispatch(2, "a")), Entry(Dispatch(4, "b", 2, "2")), turn_of_the_oldest)
    state.resume()
    begin(state, 2)

    assert ask(state, Request("b", "4")) == [(9, "b", BEHIND, None)]


def test_whether_inputs_are_equal_is_not_for_the_state_to_say():
    state = RunState(lambda one, other: one is not None and other is not None and one.lower() == other.lower())
    state.start(Request("start"))
    begin(state, 1)

    decision = state.completed(1, [Request("a", "X"), Request("a", "x")])

    assert [(status, into) for _, status, into, *_ in decision.dispatched] == [(PENDING, None), (MERGED, 2)]


def test_only_a_dispatch_that_asks_for_nothing_is_a_leaf():
    state = all_running("a")

    assert not state.completed(2, [Request("b")]).leaf
    begin(state, 3)
    assert state.completed(3, []).leaf


# ---------------------------------------------------------------- R7: order


def test_dispatches_are_numbered_in_the_order_of_the_commits_that_hold_them():
    state = all_running("a", "b")

    first = state.completed(3, [Request("c"), Request("d")])
    second = state.completed(2, [Request("e")])

    numbered = [(d.number, d.task_id, d.dispatched_by) for d, *_ in first.dispatched + second.dispatched]
    assert numbered == [(4, "c", 3), (5, "d", 3), (6, "e", 2)]


def test_each_dispatch_is_handed_out_once_in_order():
    state = run_of("a", "b", "c")

    assert state.take_ready() == [2, 3, 4]
    assert state.take_ready() == []


def test_a_dispatch_that_runs_is_not_begun_again():
    state = all_running("a")

    assert state.begin(2) is None
    assert state.begin(7) is None


def test_a_run_completes_with_its_last_dispatch():
    state = all_running("a", "b")

    assert state.completed(2, []).run is None
    assert state.completed(3, []).run is RunStatus.COMPLETED


# ---------------------------------------------------------------- R8: errors


def test_after_a_failure_nothing_starts_that_was_not_running():
    state = run_of("a", "b", "c")
    handed = state.take_ready()[:2]
    begin(state, 2)

    decision = state.failed(2)

    assert decision.moved == [(2, FAILED)]
    assert decision.run is RunStatus.FAILED
    assert [state.begin(number) for number in handed] == [None, None]
    assert state.take_ready() == []


def test_what_runs_when_another_fails_is_let_finish_and_what_it_dispatches_is_kept():
    state = all_running("a", "b")

    assert state.failed(2).run is None
    decision = state.completed(3, [Request("c")])

    assert [d.task_id for d, *_ in decision.dispatched] == ["c"]
    assert decision.run is RunStatus.FAILED
    assert set(state.live) == {2, 4}


def test_the_first_failure_is_the_one_that_the_run_failed_with():
    state = all_running("a", "b")

    state.failed(3)
    state.failed(2)

    assert state.stopping == (RunStatus.FAILED, 3)


def test_an_instance_that_conflicts_while_the_run_stops_waits_for_the_resume():
    state = all_running("a", "b")
    state.failed(2)

    decision = state.completed(3, [], wrote={"k"}, outdated=["k"])

    assert decision.run is RunStatus.FAILED
    assert state.take_ready() == []


def test_a_dispatch_that_equals_a_failed_one_merges_into_it():
    state = all_running("a", "b")
    state.failed(3)

    assert ask(state, Request("b")) == [(4, "b", MERGED, 3)]


@pytest.mark.parametrize("how", [RunState.failed, RunState.given_up])
def test_what_was_to_merge_into_an_attempt_that_came_to_nothing_merges_for_good(how):
    state = all_running("a", "reduce")
    ask(state, Request("reduce"))

    assert how(state, 3).merged == [(4, 3)]


def test_an_attempt_that_is_given_up_runs_again():
    state = all_running("a")

    decision = state.given_up(2)

    assert decision.moved == [(2, PENDING)]
    assert decision.run is None
    assert state.take_ready() == [2]


def test_a_resume_runs_again_what_failed_and_what_was_running_and_nothing_that_waits_behind():
    state = loaded(
        Entry(Dispatch(2, "a"), FAILED, attempts=3),
        Entry(Dispatch(3, "b"), TaskStatus.RUNNING, attempts=1),
        Entry(Dispatch(4, "c")),
        Entry(Dispatch(5, "b", 1, "other"), BEHIND),
        failed=2,
    )
    assert state.take_ready() == []

    decision = state.resume()

    assert decision.run is RunStatus.RUNNING
    assert decision.moved == [(2, PENDING), (3, PENDING)]
    assert state.take_ready() == [2, 3, 4]
    assert [state.begin(number) for number in (2, 3, 4)] == [4, 2, 1]


def test_a_resume_merges_what_was_to_merge_into_an_attempt_that_is_lost():
    state = loaded(Entry(Dispatch(2, "reduce"), attempts=1), Entry(Dispatch(3, "reduce"), BEHIND, merges_into=2))

    decision = state.resume()

    assert decision.merged == [(3, 2)]
    assert list(state.live) == [2]


def test_a_run_that_is_to_pause_pauses_once_what_runs_has_ended():
    state = all_running("a", "b")

    assert state.stop(RunStatus.PAUSED).run is None
    assert state.completed(2, [Request("c")]).run is None
    assert state.given_up(3).run is RunStatus.PAUSED


def test_a_run_in_which_nothing_runs_pauses_at_once():
    assert run_of("a").stop(RunStatus.PAUSED).run is RunStatus.PAUSED


def test_a_run_that_is_to_pause_while_its_last_dispatch_completes_is_completed():
    state = all_running("a")
    state.stop(RunStatus.PAUSED)

    assert state.completed(2, []).run is RunStatus.COMPLETED
    assert state.stop(RunStatus.PAUSED).run is RunStatus.COMPLETED


def test_a_failure_in_a_run_that_is_to_pause_fails_it():
    state = all_running("a")
    state.stop(RunStatus.PAUSED)

    assert state.failed(2).run is RunStatus.FAILED


# ---------------------------------------------------------------- recovery


def test_a_run_that_is_loaded_is_as_the_one_that_was_recorded():
    state = all_running("a", "reduce", spawn("reduce", "1"))
    ask(state, Request("reduce"), Request("b"))

    copy = loaded(
        Entry(Dispatch(3, "reduce", 1, None, 1)),
        Entry(Dispatch(4, "reduce", 2, "1", 1)),
        Entry(Dispatch(5, "reduce", 1, None, 2), BEHIND, merges_into=3),
        Entry(Dispatch(6, "b", 1, None, 2)),
        spawned={"reduce": 2},
        produced=["start", "a"],
        next_number=7,
    )

    assert copy.recorded() == state.recorded()
