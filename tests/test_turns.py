"""R5: who lost a conflict takes turns with those that lost over the same keys; `Turns` alone, without a run."""

from __future__ import annotations

from random import Random

import pytest

from liteflow.engine.turns import Turns


def test_who_loses_first_has_its_turn_at_once():
    turns = Turns()

    assert turns.lost(1, ["k"]) == [1]
    assert not turns


def test_who_loses_over_a_key_that_another_holds_waits_until_it_is_done():
    turns = Turns()
    turns.lost(1, ["k"])

    assert turns.lost(2, ["k"]) == []
    assert turns
    assert turns.release(1, for_good=True) == [2]
    assert not turns


def test_turns_are_taken_in_the_order_of_the_losses():
    turns = Turns()
    for number in (3, 1, 2):
        turns.lost(number, ["k"])

    assert [turns.release(number, for_good=True) for number in (3, 1, 2)] == [[1], [2], []]


def test_who_lost_over_other_keys_has_its_turn_beside():
    turns = Turns()

    assert (turns.lost(1, ["k"]), turns.lost(2, ["m"])) == ([1], [2])


def test_who_wants_two_keys_waits_for_both():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.lost(2, ["m"])
    turns.lost(3, ["k", "m"])

    assert turns.release(1, for_good=True) == []
    assert turns.release(2, for_good=True) == [3]


def test_nobody_overtakes_one_who_waits_for_a_key_that_both_want():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.lost(2, ["k", "m"])

    assert turns.lost(3, ["m"]) == []  # m is free, but the turn of 2 comes first
    assert turns.release(1, for_good=True) == [2]
    assert turns.release(2, for_good=True) == [3]


def test_one_release_may_give_a_turn_to_several():
    turns = Turns()
    turns.lost(1, ["k", "m"])
    turns.lost(2, ["k"])
    turns.lost(3, ["m"])

    assert turns.release(1, for_good=True) == [2, 3]


def test_who_never_lost_has_nothing_to_pass_on():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.lost(2, ["k"])

    assert turns.release(7, for_good=True) == []


def test_who_loses_again_goes_to_the_end_and_still_wants_the_keys_it_lost_over_before():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.lost(2, ["k"])
    assert turns.release(1, for_good=False) == [2]

    assert turns.lost(1, ["m"]) == []  # m is free, k is not
    assert turns.release(2, for_good=True) == [1]


def test_who_passes_its_turn_on_for_a_while_is_not_in_the_line_until_it_loses_again():
    turns = Turns()
    turns.lost(1, ["k"])

    turns.release(1, for_good=False)

    assert not turns
    assert turns.lost(2, ["k"]) == [2]


def test_who_has_passed_its_turn_on_holds_no_key_against_others():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.lost(2, ["k"])

    assert turns.release(1, for_good=False) == [2]
    assert turns.release(1, for_good=True) == []
    assert turns.lost(3, ["k"]) == []  # it is the turn of 2


def test_what_a_dispatch_lost_over_is_forgotten_once_it_is_done():
    turns = Turns()
    turns.lost(1, ["k"])
    turns.release(1, for_good=True)
    turns.lost(2, ["k"])

    assert turns.lost(1, ["m"]) == [1]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_the_keys_everybody_has_one_turn_and_no_two_hold_a_key_at_a_time(seed: int):
    chance, turns = Random(seed), Turns()  # noqa: S311 - no secret: the same schedule each time
    wants = {number: set(chance.sample("klmn", chance.randint(1, 3))) for number in range(20)}
    holders: list[int] = []
    had: list[int] = []
    coming = list(wants)

    while coming or holders:
        if coming and (not holders or chance.random() < 0.5):
            new = turns.lost(number := coming.pop(0), wants[number])
        else:
            new = turns.release(holders.pop(chance.randrange(len(holders))), for_good=True)
        holders += new
        had += new
        held = [key for number in holders for key in wants[number]]
        assert len(held) == len(set(held))

    assert sorted(had) == list(wants)
    assert not turns
    for key in "klmn":  # over each key, first come, first served
        assert [number for number in had if key in wants[number]] == [number for number in wants if key in wants[number]]
