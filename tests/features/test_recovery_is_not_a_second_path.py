"""What a process that takes a run over would load is, after every commit, what the process that drives it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from liteflow import Flow, PoolExecutor, TaskFailedError
from liteflow.engine.driver import RunDriver
from liteflow.model import RunStatus
from tests.crash.flows import ALL_SHAPES

if TYPE_CHECKING:
    from liteflow.engine.engine import Engine

COMMITS = 3  # of each flow, at least


class Comparison:
    """Compares, in place of the driver's own `committed`, and then does what that does."""

    def __init__(self, engine: Engine) -> None:
        self.commits = 0
        self.differences: list[str] = []
        self._engine, self._committed = engine, RunDriver.committed

    def committed(self, driver: RunDriver) -> None:
        with driver._lock, driver._services.database.read() as tx:
            row = driver._services.queries.run(driver.run_id, tx) or {}
            loaded = self._engine.load(tx, driver.run_id, failed=row["failed_task"]).recorded()
            known = driver._state.recorded()
        self.commits += 1
        if row["status"] == RunStatus.RUNNING and driver._state.stopping is not None and row["failed_task"] is None:
            known["stopping"] = None  # to stand still is a wish of this process, not of the run
        self.differences += [
            f"{part}: loaded {loaded[part]}, known {known[part]}" for part in known if loaded[part] != known[part]
        ]
        self._committed(driver)


@pytest.mark.parametrize("name", ALL_SHAPES)
def test_after_every_commit_the_loaded_state_is_the_state(name: str, store: str, monkeypatch: pytest.MonkeyPatch):
    shape: Any = ALL_SHAPES[name]

    with Flow(PoolExecutor(max_workers=shape.workers), store=store) as flow:
        shape.register(flow)
        comparison = Comparison(flow._opened())
        monkeypatch.setattr(RunDriver, "committed", lambda driver: comparison.committed(driver))
        run = flow.start(shape.start, {"given": name})
        try:
            run.result(20)
        except TaskFailedError:
            run.context.set("mended", True)
            flow.resume(run.id).result(20)

    print(f"recovery, {name}: {comparison.commits} commits; differences: {len(comparison.differences)}")  # noqa: T201 - the figures
    assert comparison.differences == []
    assert comparison.commits >= COMMITS
