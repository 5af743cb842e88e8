"""A run that was killed at any commit, or at any task, and resumed, ends as one that was not killed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.flows import SHAPES
from tests.crash.harness import differences, struck, uncrashed

if TYPE_CHECKING:
    from tests.crash.harness import Told, Ward

POINTS, FLOWS = 650, 17


def compared(shape: str, calm: Told, resumed: Told) -> list[str]:
    return differences([shape], calm, resumed)


@pytest.mark.timeout(600)
def test_a_run_killed_at_any_point_and_resumed_ends_as_one_that_was_not(ward: Ward):
    kills: list[int] = []

    def sequence(shape: str, calm: Told, at: str, when: str, again: int) -> list[str]:
        count, found = struck(ward, shape, calm, at, when, judge=compared, fresh=shape == "chain", again=again)
        kills.append(count)
        return found

    calm = {}
    for shape in SHAPES:
        with ward.place(fresh=shape == "chain") as place:
            calm[shape] = uncrashed(place, [shape])

    found = ward.all(
        partial(sequence, shape, calm[shape], at, when, again)
        for shape in SHAPES
        for at in ("commit", "task")
        for when in ("before", "after")
        for again in ((0, 3) if at == "commit" else (0,))
    )

    ward.say(f"{sum(kills)} points x {len(SHAPES)} flows", found)
    assert found == []
    assert sum(kills) >= POINTS
    assert len(SHAPES) >= FLOWS
