"""A process that was stopped, and has lost its run to another one, commits nothing more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.harness import Ward, uncrashed
from tests.crash.zombies import all_outlived

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.harness import Told

SHAPES = ("chain", "loop", "map-reduce", "streams")
PLACES = (("task", "before"), ("task", "after"), ("commit", "after"))  # who stops before a commit holds SQLite's lock
ZOMBIES = 100


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """Where zombies come from."""
    ward = Ward(tmp_path, "zombies")
    yield ward
    ward.close()


@pytest.mark.timeout(600)
def test_a_stopped_process_whose_run_was_taken_over_commits_nothing_and_is_told_so(ward: Ward):
    counts: list[int] = []

    def sequence(shape: str, calm: Told, at: str, when: str, heir_stops: int) -> list[str]:
        count, found = all_outlived(ward, shape, calm, at=at, when=when, heir_stops=heir_stops)
        counts.append(count)
        return found

    calm = {}
    for shape in SHAPES:
        with ward.place() as place:
            calm[shape] = uncrashed(place, [shape])

    found = ward.all(
        partial(sequence, shape, calm[shape], at, when, heir_stops)
        for shape in SHAPES
        for at, when in PLACES
        for heir_stops in (0, 1, 2)
    )

    ward.say(f"{sum(counts)} zombies x {len(SHAPES)} flows", found)
    assert found == []
    assert sum(counts) >= ZOMBIES
