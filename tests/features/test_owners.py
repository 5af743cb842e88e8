"""A process is registered as an owner with its first run, however many of them begin at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.features.waiting import Helper

if TYPE_CHECKING:
    from liteflow import Flow

MANY = 16


def test_many_threads_may_start_the_first_runs_of_a_process_together(flow: Flow):
    together = threading.Barrier(MANY)

    @flow.task("work")
    def work(ctx):
        return ctx.run_id

    def start() -> dict[str, object]:
        together.wait(20)
        run = flow.start("work")
        return {run.id: run.result(20)["work"]}

    results = [helper.result() for helper in [Helper(start) for _ in range(MANY)]]

    assert [list(result) for result in results] == [list(result.values()) for result in results]
