"""A process that was stopped, and has lost its run to another one, commits nothing more."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, LeaseLostError, LiteFlowError
from tests.crash.harness import Ward, uncrashed
from tests.crash.zombies import all_outlived
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.harness import Told

SHAPES = ("chain", "loop", "map-reduce", "updates", "streams")
PLACES = (
    ("task", "before"),
    ("chunk", "after"),
    ("task", "after"),
    ("commit", "after"),
)  # who stops before a commit holds SQLite's lock
TAKEN = 2  # commits, after which an heir has the run: it asks for it, and takes it
ZOMBIES = 150


def test_a_body_whose_run_was_taken_over_is_told_by_its_next_calls_and_the_heir_is_not_disturbed(store: str):
    entered, taken, told = threading.Event(), threading.Event(), []

    def write_on(ctx: Context) -> None:
        ctx.set("who", "zombie")
        entered.set()
        passes(taken)
        until(lambda: ctx.stream("still here"))  # which returns None, again and again

    def watched(ctx: Context) -> None:
        try:
            write_on(ctx)
        except LiteFlowError as error:
            told.append(type(error))
            raise

    with Flow(store=store) as zombie, Flow(store=store) as heir:
        zombie.add_task("work", watched)
        heir.add_task("work", lambda ctx: ctx.get("who", "nobody"))
        run = zombie.start("work")
        passes(entered)
        with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as db, db:
            db.execute("UPDATE owners SET machine = 'elsewhere', leased_until = '2000-01-01T00:00:00.000000Z'")
        result = heir.resume(run.id).result(20)
        taken.set()
        until(lambda: told)

        assert told == [LeaseLostError]
        assert result == {"work": "nobody"}
        assert [version.value for version in heir.get_run(run.id).context.history("work")] == ["nobody"]
        assert [chunk.value for chunk in heir.get_run(run.id).stream()] == ["nobody"]


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
        for heir_stops in (0, TAKEN)
    )

    ward.say(f"{sum(counts)} zombies x {len(SHAPES)} flows", found)
    assert found == []
    assert sum(counts) >= ZOMBIES
