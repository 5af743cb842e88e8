"""A wait that nothing can end is an error that names who waits for what (R4)."""

from __future__ import annotations

import threading

import pytest

from liteflow import Context, DeadlockError, Flow, NextTask, TaskFailedError, TaskOutput
from tests.features.waiting import passes


def fan(*task_ids: str) -> TaskOutput:
    return TaskOutput("fan", [NextTask(task_id) for task_id in task_ids])


def deadlock_of(flow: Flow, start: str = "fan") -> DeadlockError:
    """Run into a deadlock; return what it says."""
    with pytest.raises(TaskFailedError) as failed:
        flow.run(start)
    assert isinstance(failed.value.__cause__, DeadlockError)
    return failed.value.__cause__


def test_a_wait_for_a_task_that_nobody_dispatches_names_who_waits_for_what(any_flow: Flow):
    any_flow.add_task("never", lambda ctx: 1)
    any_flow.add_task("fan", lambda ctx: ctx.get("never"))

    error = deadlock_of(any_flow)

    assert error.key == "never"
    assert error.waiting == {"fan": "never"}
    assert "fan waits for never" in str(error)


def test_a_circle_of_waits_names_all_who_wait(any_flow: Flow):
    any_flow.add_task("fan", lambda ctx: fan("a", "b", "c"))
    any_flow.add_task("a", lambda ctx: ctx.get("b"))
    any_flow.add_task("b", lambda ctx: ctx.get("c"))
    any_flow.add_task("c", lambda ctx: ctx.get("a"))

    error = deadlock_of(any_flow)

    assert error.waiting == {"a": "b", "b": "c", "c": "a"}
    assert "a waits for b" in str(error)


def test_a_circle_is_found_while_another_task_still_runs(flow: Flow):
    go_on, caught = threading.Event(), threading.Event()
    flow.add_task("fan", lambda ctx: fan("a", "b", "long"))
    flow.add_task("long", lambda ctx: passes(go_on))

    def wait_for(key: str):
        def wait(ctx: Context):
            try:
                return ctx.get(key)
            except DeadlockError:
                caught.set()
                return "deadlock"

        return wait

    flow.add_task("a", wait_for("b"))
    flow.add_task("b", wait_for("a"))
    run = flow.start("fan")
    passes(caught)
    go_on.set()

    assert set(run.result(20)) == {"a", "b", "long"}


def test_a_deadlock_that_a_task_catches_lets_the_run_go_on(any_flow: Flow):
    any_flow.add_task("never", lambda ctx: 1)

    @any_flow.task("reader")
    def reader(ctx: Context):
        try:
            return ctx.get("never")
        except DeadlockError:
            return "gave up"

    assert any_flow.run("reader") == {"reader": "gave up"}


def test_a_wait_with_a_timeout_for_a_task_that_nobody_dispatches_is_a_deadlock_at_once(flow: Flow):
    flow.add_task("never", lambda ctx: 1)
    flow.add_task("fan", lambda ctx: ctx.get("never", timeout=3600))

    assert deadlock_of(flow).waiting == {"fan": "never"}
