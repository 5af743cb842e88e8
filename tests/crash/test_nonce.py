"""An attempt takes effect whole: what one execution has drawn is all that is found of its instance, wherever it was killed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.flows import NONCE_SHAPES
from tests.crash.harness import struck, uncrashed
from tests.crash.nonces import disagreements

if TYPE_CHECKING:
    from tests.crash.harness import Told, Ward

POINTS = 200


@pytest.mark.timeout(600)
def test_context_output_stream_and_dispatches_come_from_one_execution_wherever_it_was_killed(ward: Ward):
    kills: list[int] = []

    def sequence(shape: str, calm: Told, at: str, when: str, again: int) -> list[str]:
        count, found = struck(ward, shape, calm, at, when, judge=disagreements, again=again)
        kills.append(count)
        return found

    calm = {}
    for shape in NONCE_SHAPES:
        with ward.place() as place:
            calm[shape] = uncrashed(place, [shape])
        assert disagreements(shape, calm[shape], calm[shape]) == []

    found = ward.all(
        partial(sequence, shape, calm[shape], at, when, again)
        for shape in NONCE_SHAPES
        for at in ("commit", "task")
        for when in ("before", "after")
        for again in (0, 2, 3)
    )

    ward.say(f"{sum(kills)} points x {len(NONCE_SHAPES)} flows", found)
    assert found == []
    assert sum(kills) >= POINTS
