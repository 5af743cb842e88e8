"""Who may take over a run and when; what a crash, and a power cut, leave of it (R8, R10, R12)."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, RetryPolicy, RunConflictError, TaskFailedError, TaskOutput
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from collections.abc import Iterator

LEASE = 30  # seconds


# ---------------------------------------------------------------- R10: when an owner is gone


@pytest.fixture
def clock() -> FakeClock:
    """The clock of who wants to take over."""
    return FakeClock(datetime.now(UTC))


@pytest.fixture
def heir(store: str, clock: FakeClock) -> Iterator[Flow]:
    """A flow that wants to take over the run ``r``, which another one in this process has at work."""
    go_on = threading.Event()
    began = threading.Event()
    with Flow(store=store) as owner, Flow(store=store, clock=clock) as heir:
        owner.add_task("work", lambda ctx: began.set() or passes(go_on))
        heir.add_task("work", lambda ctx: "heir")
        owner.start("work", run_id="r")
        passes(began)
        yield heir
        go_on.set()


def change_owner(store: str, column: str, value: str) -> None:
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as db, db:
        db.execute(f"UPDATE owners SET {column} = ?", (value,))  # noqa: S608 - a name of our own


def is_refused(heir: Flow) -> bool:
    """Return whether the run is said to be live, and left alone by who recovers."""
    with pytest.raises(RunConflictError, match="is live in process"):
        heir.resume("r")
    return heir.recover() == []


def test_the_run_of_a_process_that_is_alive_on_this_machine_is_not_taken_whatever_its_lease_says(
    heir: Flow, store: str, clock: FakeClock
):
    change_owner(store, "leased_until", "2000-01-01T00:00:00.000000Z")
    clock.advance(100 * LEASE)

    assert is_refused(heir)


def test_the_run_of_a_process_whose_pid_another_one_has_by_now_is_taken_at_once(heir: Flow, store: str):
    change_owner(store, "process_started", "1")

    assert heir.resume("r").result(20) == {"work": "heir"}


def test_the_run_of_a_process_elsewhere_is_taken_when_its_lease_expires_and_not_before(heir: Flow, store: str, clock: FakeClock):
    change_owner(store, "machine", "another boot, or another pid namespace")
    assert is_refused(heir)

    clock.advance(LEASE + 1)

    assert [run.result(20) for run in heir.recover()] == [{"work": "heir"}]


# ---------------------------------------------------------------- R8: a crash does not reset how often it was tried

TRIES = """
import sys, threading
from liteflow import Flow, RetryPolicy

flow = Flow(store=sys.argv[1])

@flow.task("call", retry=RetryPolicy(max_attempts=2, initial_interval=0))
def call(ctx):
    if ctx.attempt == 1:
        raise ConnectionError("the first try")
    print("the second try")
    threading.Event().wait()

flow.run("call", run_id="r")
"""


def test_a_crash_is_no_try_and_does_not_reset_how_many_there_were(flow: Flow, store: str):
    child = Child(TRIES, store)
    assert child.line() == "the second try"
    until(lambda: rows(store, "SELECT 1 FROM tasks WHERE status = 'running' AND attempts = 2"))
    child.kill()
    tries = []

    @flow.task("call", retry=RetryPolicy(max_attempts=2, initial_interval=0))
    def call(ctx: Context):
        tries.append(ctx.attempt)
        raise ConnectionError("the second try, once more")

    with pytest.raises(TaskFailedError, match="once more"):
        flow.resume("r").result(20)

    assert tries == [3]
    assert rows(store, "SELECT attempt, status FROM attempts ORDER BY attempt") == [(1, "failed"), (2, "lost"), (3, "failed")]


# ---------------------------------------------------------------- R12: a power cut

LINKS = 20
CHAIN = f"""
import os, sys, threading
from liteflow import Flow, NextTask, TaskOutput

told = threading.Event()
flow = Flow(store=sys.argv[1])

@flow.task("link")
def link(ctx):
    n = ctx.get("n", 0)
    if not n:
        told.wait()
    if n == {LINKS}:
        print("all but the last one are committed")
        threading.Event().wait()
    ctx.set("n", n + 1)
    ctx.stream(n)
    return TaskOutput(n, [NextTask("link")])

flow.start("link", run_id="r")
print(os.path.getsize(sys.argv[2]))
told.set()
threading.Event().wait()
"""


def add_chain(flow: Flow) -> list[int]:
    """Register the rest of the chain; return where each link notes that it ran."""
    ran: list[int] = []

    @flow.task("link")
    def link(ctx: Context):
        n = ctx.get("n", 0)
        ran.append(n)
        ctx.set("n", n + 1)
        ctx.stream(n)
        return TaskOutput(n, [NextTask("link")] if n < LINKS else None)

    return ran


def test_a_power_cut_takes_back_the_last_commits_at_most_and_the_resume_runs_those_tasks_again(tmp_path: Path, store: str):
    file = Path(store.removeprefix("sqlite:///"))
    log = file.with_name(f"{file.name}-wal")
    child = Child(CHAIN, store, log)
    synced = int(child.line())  # of the log, when the id of the run was handed out
    assert child.line() == "all but the last one are committed"
    child.kill()
    written, again = log.stat().st_size, []

    for part in range(9):
        cut = tmp_path / f"{part}.db"
        shutil.copyfile(file, cut)
        shutil.copyfile(log, f"{cut}-wal")
        with Path(f"{cut}-wal").open("r+b") as tail:
            tail.truncate(synced + (written - synced) * part // 8)
        with Flow(store=f"sqlite:///{cut}") as flow:
            ran = add_chain(flow)
            run = flow.resume("r")

            assert run.result(20) == {"link": LINKS}
            assert [version.value for version in run.context.history("n")] == list(range(1, LINKS + 2))
            assert [chunk.value for chunk in run.stream(view="final")] == [n for n in range(LINKS + 1) for _ in range(2)]
            assert one(f"sqlite:///{cut}", "SELECT count(*) FROM tasks") == LINKS + 1
            again.append(len(ran))

    assert again == sorted(again, reverse=True)
    assert (again[0], again[-1]) == (LINKS + 1, 1)
