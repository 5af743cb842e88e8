"""The suites find bugs: each of these is planted into the victims, and found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.harness import differences, reused_numbers, struck, uncrashed
from tests.crash.mutants import MUTANTS
from tests.crash.nonces import disagreements
from tests.crash.zombies import all_outlived

if TYPE_CHECKING:
    from tests.crash.harness import Told, Ward

SECONDS = 4.0  # a victim with a bug may never end
COMPARED = ("loop", "streams", "map-reduce")
DRAWN = ("nonces", "nonces of one worker")
OF_ONE_PROMISE = {  # bugs that only flows can find which make use of that promise
    "chunks apart from their checkpoint": ("checkpoints",),
    "steps forgotten on takeover": ("steps",),
    "members forgotten on takeover": ("joins",),
    "signals forgotten on takeover": ("signals",),
    "signals taken for given on takeover": ("signals",),
    "times forgotten on takeover": ("timeouts",),
    "attempts counted anew on takeover": ("timeouts",),
}
FOUND_BY = {
    "crash points": (
        "chunks outside the attempt", "output apart from writes", "dispatches apart", "done before work", "work before done",
        "numbers used again", "open rows survive a takeover",
        *OF_ONE_PROMISE,
    ),
    "nonce": (
        "chunks outside the attempt", "output apart from writes", "dispatches apart", "done before work", "work before done",
        "numbers used again", "open rows survive a takeover",
    ),
    "zombies": ("no fence check", "token kept on takeover"),
}  # fmt: skip


def compared(shape: str, calm: Told, resumed: Told) -> list[str]:
    return differences([shape], calm, resumed)


def found_by(suite: str, ward: Ward, shape: str, mutant: str) -> list[str]:
    """Run one flow of a suite, with the bug, until the suite finds it; while nobody is struck, nothing is to be found."""
    judge = disagreements if suite == "nonce" else compared
    with ward.place() as place:
        calm = uncrashed(place, [shape])
    with ward.place() as place:
        _, unstruck = place.send([shape], mutant=mutant)
        assert [*judge(shape, calm, unstruck), *reused_numbers([unstruck]), *place.faults()] == []
    for at, when in 2 * (("commit", "after"), ("commit", "before"), ("task", "after")):  # some only show if threads run so
        if suite == "zombies":
            _, found = all_outlived(ward, shape, calm, at="task", when="before", heir_stops=2, mutant=mutant, until_found=True)
        else:
            _, found = struck(ward, shape, calm, at, when, judge=judge, mutant=mutant, until_found=True, seconds=SECONDS)
        if found:
            return found
    return []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("suite", "mutant"), [(suite, mutant) for suite, mutants in FOUND_BY.items() for mutant in mutants])
def test_a_planted_bug_is_found(suite: str, mutant: str, ward: Ward):
    shapes = DRAWN if suite == "nonce" else OF_ONE_PROMISE.get(mutant, COMPARED)

    found = ward.all(partial(found_by, suite, ward, shape, mutant) for shape in shapes)

    ward.say(f"{mutant}, by {suite}", found)
    assert found != []


def test_every_planted_bug_is_looked_for():
    assert {mutant for mutants in FOUND_BY.values() for mutant in mutants} == set(MUTANTS)
