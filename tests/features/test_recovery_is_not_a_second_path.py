"""What a process that takes a run over would load is, after every commit, what the process that drives it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from liteflow import Flow, PoolExecutor, TaskFailedError
from liteflow.engine.driver import RunDriver
from liteflow.engine.journal import Journal
from liteflow.model import RunStatus
from tests.crash.flows import ALL_SHAPES

if TYPE_CHECKING:
    from liteflow.engine.decision import Decision, Entry
    from liteflow.engine.engine import Engine

COMMITS = 3  # of each run, at least
RUNS = 5


class Comparison:
    """Compares, in place of the driver's own `committed`, and then does what that does."""

    def __init__(self, engine: Engine) -> None:
        self.commits = 0
        self.differences: list[str] = []
        self._engine, self._committed = engine, RunDriver.committed

    def committed(self, driver: RunDriver) -> None:
        with driver._lock, driver._services.database.read() as tx:
            row = driver._services.queries.run(driver.run_id, tx) or {}
            loaded = self._engine.load(tx, row, failed=row["failed_task"]).recorded()
            known = driver._state.recorded()
        self.commits += 1
        if row["status"] == RunStatus.RUNNING and driver._state.stopping is not None and row["failed_task"] is None:
            known["stopping"] = None  # to stand still is a wish of this process, not of the run
        self.differences += [
            f"{part}: loaded {loaded[part]}, known {known[part]}" for part in known if loaded[part] != known[part]
        ]
        self._committed(driver)


def compared(name: str, store: str, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """Run a flow several times, each in a context of its own; return what was compared."""
    shape = ALL_SHAPES[name]
    with Flow(PoolExecutor(max_workers=shape.workers), store=store) as flow:
        shape.register(flow)
        comparison = Comparison(flow._opened())

        def committed(driver: RunDriver) -> None:
            comparison.committed(driver)

        monkeypatch.setattr(RunDriver, "committed", committed)
        for _ in range(RUNS):
            run = flow.start(shape.start, {"given": name})
            try:
                run.result(20)
            except TaskFailedError:
                run.context.set("mended", True)
                flow.resume(run.id).result(20)
    figures = f"{RUNS} runs, {comparison.commits} commits; differences: {len(comparison.differences)}"
    print(f"recovery is not a second path: {name}, {figures}")  # noqa: T201 - the figures of the suite
    return comparison


@pytest.mark.parametrize("name", ALL_SHAPES)
def test_after_every_commit_the_loaded_state_is_the_state(name: str, store: str, monkeypatch: pytest.MonkeyPatch):
    comparison = compared(name, store, monkeypatch)

    assert comparison.differences == []
    assert comparison.commits >= RUNS * COMMITS


def test_a_decision_that_is_not_recorded_is_found(store: str, monkeypatch: pytest.MonkeyPatch):
    decided = Journal.decided

    def forgetful(journal: Journal, decision: Decision, live: dict[int, Entry]) -> None:
        decided(journal, decision, live)
        journal.batch.moved.clear()

    monkeypatch.setattr(Journal, "decided", forgetful)

    assert compared("retries", store, monkeypatch).differences != []
