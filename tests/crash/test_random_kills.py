"""A process that runs loops, map-reduces and streams is killed at random times, and a new one brings them to the same end."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.harness import KILLED, differences, reused_numbers, uncrashed

if TYPE_CHECKING:
    from tests.crash.harness import Ward

SHAPES = ("loop", "map-reduce", "streams", "large")
KILLS = 50
SEED = 20261123


def seconds_of_a_run(ward: Ward) -> list[float]:
    """Return how long a run takes, beside others, once the parent of the victim has started."""
    with ward.place() as place:
        place.send(SHAPES[:1])
        began = time.monotonic()
        place.send(SHAPES[1:])
        return [time.monotonic() - began]


@pytest.mark.timeout(600)
def test_50_random_kills_change_nothing_in_the_end(ward: Ward):
    chance = random.Random(SEED)  # noqa: S311 - times, no secret
    struck: list[int] = []
    with ward.place() as place:
        calm = uncrashed(place, SHAPES)
    usual = max(ward.all([partial(seconds_of_a_run, ward)] * 4))

    def killed(seconds: float, again: float) -> list[str]:
        with ward.place() as place:
            outcome, first = place.send(SHAPES, seconds=seconds)
            if outcome["code"] != KILLED or not place.ask("SELECT id FROM runs WHERE status = 'running'"):
                return []  # it came too late, or too early
            struck.append(2 if again else 1)
            victims = [first, place.send(SHAPES, seconds=again)[1]] if again else [first]
            victims.append(place.send(SHAPES)[1])
            wrong = [*differences(SHAPES, calm, victims[-1]), *reused_numbers(victims), *place.faults()]
        return [f"killed after {seconds:.3f} s, {again:.3f} s: {what}" for what in wrong]

    found: list[str] = []
    tries = 0
    while len(struck) < KILLS and tries < 20 * KILLS:
        times = [(chance.uniform(0, usual), chance.choice((0, 0, chance.uniform(0, usual)))) for _ in range(KILLS // 2)]
        tries += len(times)
        found += ward.all(partial(killed, seconds, again) for seconds, again in times)

    ward.say(f"seed {SEED}, {len(struck)} processes killed in the middle of {tries}, {struck.count(2)} of them twice", found)
    assert found == []
    assert len(struck) >= KILLS
