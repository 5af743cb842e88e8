"""Finding runs, and asking one how it stands, what it did and what came of it."""

from __future__ import annotations

import threading

import pytest

from liteflow import Context, Flow, GetTimeoutError, NextTask, TaskOutput
from tests.features.children import output_of
from tests.features.records import one, rows
from tests.features.waiting import Helper, passes, until


def add_tasks(flow: Flow) -> None:
    flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("second")]))
    flow.add_task("second", lambda ctx: "second")


def test_runs_lists_this_flows_runs_newest_first(flow: Flow, store: str):
    add_tasks(flow)
    flow.add_task("fail", lambda ctx: 1 / 0)
    started = [flow.start(task) for task in ("first", "fail", "first")]
    for run in started:
        run.wait(20)
    ids = [run.id for run in reversed(started)]

    assert [run.id for run in flow.runs()] == ids
    assert [run.id for run in flow.runs(limit=2)] == ids[:2]
    assert [run.id for run in flow.runs(status="failed")] == [started[1].id]
    assert flow.runs(status="running") == []
    with Flow(name="other", store=store) as other:
        assert other.runs() == []


def test_another_process_sees_status_tasks_and_result_of_a_run(flow: Flow, store: str):
    add_tasks(flow)
    flow.run("first", run_id="r")

    printed = output_of(
        """
        import sys
        from liteflow import Flow

        run = Flow(store=sys.argv[1]).get_run("r")
        print(run.status, run.result(), [(task.key, str(task.status)) for task in run.tasks()], run.context.to_dict())
        """,
        store,
    )

    assert printed == [
        "completed {'second': 'second'} [('first', 'completed'), ('second', 'completed')] {'first': 'done', 'second': 'second'}"
    ]


def test_result_and_wait_end_with_their_timeout_and_the_run_goes_on(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on) or "done")
    run = flow.start("wait")
    passes(began)

    for same in (run, flow.get_run(run.id)):
        with pytest.raises(GetTimeoutError, match=rf"^The result of run {run.id} was not there within 0.05 s") as timed_out:
            same.result(timeout=0.05)
        assert isinstance(timed_out.value, TimeoutError)
        assert same.wait(timeout=0) == "running"
    go_on.set()

    assert run.result(20) == {"wait": "done"}


def test_a_record_of_a_dispatch_tells_its_inputs_times_and_who_asked_for_it(flow: Flow):
    flow.add_task("first", lambda ctx: TaskOutput(None, [NextTask("second", {"n": (1,)})]))
    flow.add_task("second", lambda ctx: None)
    run = flow.start("first", {"a": 1})
    run.result(20)

    first, second = run.tasks()

    assert (first.inputs, second.inputs) == ({"a": 1}, {"n": (1,)})
    assert (first.dispatched_by, second.dispatched_by) == (None, 1)
    assert first.dispatched_at <= first.started_at <= first.finished_at <= second.started_at <= second.finished_at
    assert first.dispatched_at.tzinfo is not None


def test_closing_a_flow_leaves_its_live_runs_paused_and_resumable(store: str):
    began, go_on = threading.Event(), threading.Event()
    flow = Flow(store=store)
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on) or ctx.attempt)
    run = flow.start("wait")
    passes(began)

    flow.close()
    go_on.set()

    assert rows(store, "SELECT status, reason FROM runs") == [("paused", "its flow was closed")]
    assert one(store, "SELECT ended_at IS NOT NULL FROM owners") == 1
    assert flow.resume(run.id).result(20) == {"wait": 2}
    flow.close()


def test_a_run_in_a_thread_that_is_not_the_main_one_works_the_same(flow: Flow):
    add_tasks(flow)

    assert Helper(lambda: flow.run("first")).result() == {"second": "second"}


def test_contexts_of_runs_are_kept_apart_by_name(flow: Flow):
    add_tasks(flow)
    flow.run("first", {"who": 1}, context=Context("a"))
    flow.run("first", {"who": 2}, context=Context("b"))

    assert [run.context.get("who") for run in flow.runs()] == [2, 1]
    until(lambda: all(run.status == "completed" for run in flow.runs()))
