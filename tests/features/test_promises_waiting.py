"""A wait goes on as long as something may still end it, from inside or outside; a delay outlives its process (R4, R13)."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, TaskOutput
from liteflow.testing import FakeClock
from tests.features.waiting import Helper, passes, until

if TYPE_CHECKING:
    from liteflow import Run


def somebody_waits(flow: Flow, run: Run) -> None:
    """Wait until a task of the run is blocked in a get."""
    until(flow._opened().drivers[run.id]._state.waits)


@pytest.mark.parametrize(
    "later", [NextTask("later", delay=60), NextTask("later", wait_for=["go"])], ids=["delayed", "expected from outside"]
)
def test_a_get_is_no_deadlock_while_what_is_delayed_or_expected_may_dispatch_who_gives_the_key(store: str, later: NextTask):
    clock = FakeClock()
    with Flow(store=store, clock=clock) as flow:
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("reader"), later]))
        flow.add_task("reader", lambda ctx: ctx.get("made"))
        flow.add_task("later", lambda ctx: TaskOutput(None, [NextTask("made")]))
        flow.add_task("made", lambda ctx: "made")
        run = flow.start("fan")
        somebody_waits(flow, run)

        clock.advance(60)
        run.context.set("go", True)

        assert run.result(20) == {"reader": "made", "made": "made"}


def test_a_write_from_outside_is_committed_at_once_and_ends_the_get_that_waits_for_it(flow: Flow):
    go_on = threading.Event()
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("reader"), NextTask("long")]))
    flow.add_task("reader", lambda ctx: ctx.get("approval"))
    flow.add_task("approval", lambda ctx: "nobody dispatches it")
    flow.add_task("long", lambda ctx: passes(go_on))
    run = flow.start("fan")
    somebody_waits(flow, run)
    until(
        lambda: [record.status for record in run.tasks()] == ["completed", "running", "running"]
    )  # so that nothing more commits

    run.context.set("approval", "from outside")

    assert [(version.value, version.run_id) for version in run.context.history("approval")] == [("from outside", None)]
    assert Helper(lambda: run.context.get("reader")).result() == "from outside"
    go_on.set()
    assert run.result(20)["reader"] == "from outside"


@pytest.mark.parametrize("days", [0, 3, 3_000])
def test_a_delay_survives_the_restart_of_its_process_however_long_that_is_down(store: str, days: int):
    clock, ran = FakeClock(), []

    def flow_of_today() -> Flow:
        flow = Flow(store=store, clock=clock, context=Context("poll"))
        flow.add_task("now", lambda ctx: TaskOutput("now", [NextTask("later", delay=timedelta(days=3))]))
        flow.add_task("later", lambda ctx: ran.append(clock.now()) or "later")
        return flow

    began = clock.now()
    with flow_of_today() as flow:
        run = flow.start("now", run_id="r")
        until(lambda: run.status == "waiting")
    clock.advance(timedelta(days=days))

    with flow_of_today() as flow:
        (run,) = flow.recover()
        if not days:
            until(lambda: run.status == "waiting")
            assert ran == []
            clock.advance(timedelta(days=3))

        assert run.result(20) == {"later": "later"}
    assert ran == [began + timedelta(days=days or 3)]
