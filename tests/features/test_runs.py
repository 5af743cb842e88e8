"""Starting, finding, resuming and recovering runs; a run id makes a start idempotent."""

from __future__ import annotations

import threading

import pytest

from liteflow import (
    ContextBusyError,
    Flow,
    GetTimeoutError,
    InvalidKeyError,
    NextTask,
    RunConflictError,
    RunNotFoundError,
    TaskOutput,
)
from tests.features.children import Child
from tests.features.records import one
from tests.features.waiting import Helper, passes

WAITS = """
import os, sys, threading
from liteflow import Context, Flow, NextTask, TaskOutput

def second(ctx):
    print("began")
    while not os.path.exists(sys.argv[2]):
        threading.Event().wait(0.01)
    return "second"

flow = Flow(context=Context("shared"), store=sys.argv[1])
flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("second")]))
flow.add_task("second", second)
print(flow.run("first", {"a": 1}, run_id="r"))
"""


def add_tasks(flow: Flow) -> list[str]:
    """Add the tasks of the child's flow; return where they note that they ran."""
    ran: list[str] = []
    flow.add_task("first", lambda ctx: ran.append("first") or TaskOutput("done", [NextTask("second")]))
    flow.add_task("second", lambda ctx: ran.append("second") or "second")
    return ran


def killed(store: str) -> None:
    """Start the run in another process, and kill that in its second task."""
    child = Child(WAITS, store, "a file that never comes")
    assert child.line() == "began"
    child.kill()


# ---------------------------------------------------------------- a run id makes a start idempotent


def test_an_id_that_was_never_seen_starts_a_run(flow: Flow):
    add_tasks(flow)

    assert flow.run("first", run_id="r") == {"second": "second"}
    assert flow.get_run("r").status == "completed"


def test_an_id_of_a_completed_run_gives_its_recorded_result_and_runs_nothing(flow: Flow):
    ran = add_tasks(flow)
    first = flow.run("first", {"a": 1}, run_id="r")

    assert flow.run("first", {"a": 1}, run_id="r") == first
    assert flow.start("first", {"a": 1}, run_id="r").result(20) == first
    assert ran == ["first", "second"]


def test_an_id_of_a_failed_run_resumes_it(flow: Flow):
    ran = add_tasks(flow)
    flow.add_task("second", lambda ctx: 1 / 0)
    assert flow.start("first", run_id="r").wait(20) == "failed"
    flow.add_task("second", lambda ctx: "mended")

    assert flow.run("first", run_id="r") == {"second": "mended"}
    assert ran == ["first"]


def test_an_id_of_an_interrupted_run_resumes_it(flow: Flow, store: str):
    killed(store)
    ran = add_tasks(flow)

    assert flow.run("first", {"a": 1}, run_id="r") == {"second": "second"}
    assert ran == ["second"]


def test_an_id_of_a_run_that_is_live_here_waits_for_it(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on) or ctx.attempt)
    flow.start("wait", run_id="r")
    passes(began)

    second = Helper(lambda: flow.run("wait", run_id="r"))
    go_on.set()

    assert second.result() == {"wait": 1}
    assert len(flow.runs()) == 1


def test_an_id_of_a_run_that_is_live_elsewhere_waits_for_it(flow: Flow, store: str, tmp_path):
    go_on = tmp_path / "go on"
    child = Child(WAITS, store, go_on)
    assert child.line() == "began"
    ran = add_tasks(flow)

    second = Helper(lambda: flow.run("first", {"a": 1}, run_id="r"))
    with pytest.raises(GetTimeoutError):
        flow.start("first", {"a": 1}, run_id="r").result(0.1)
    go_on.touch()

    assert second.result() == {"second": "second"}
    assert ran == []
    assert child.end() == 0


def test_two_threads_that_start_one_id_at_once_start_one_run(flow: Flow):
    ran = add_tasks(flow)
    together = threading.Barrier(8)

    helpers = [Helper(lambda: (together.wait(20) and None) or flow.run("first", run_id="r")) for _ in range(8)]

    assert [helper.result() for helper in helpers] == [{"second": "second"}] * 8
    assert ran == ["first", "second"]


@pytest.mark.parametrize(
    ("start", "inputs"), [("second", {"a": 1}), ("first", {"a": 2}), ("first", None), ("first", {"a": 1, "b": 2}), ("first", {})]
)
def test_an_id_with_another_start_is_refused_and_starts_nothing(flow: Flow, start: str, inputs: dict[str, int] | None):
    add_tasks(flow)
    flow.run("first", {"a": 1}, run_id="r")
    before = flow.context.to_dict()

    with pytest.raises(RunConflictError, match="^Run r was started with another task, other inputs"):
        flow.run(start, inputs, run_id="r")

    assert flow.context.to_dict() == before
    assert len(flow.runs()) == 1


def test_inputs_that_are_equal_are_the_same_start(flow: Flow):
    add_tasks(flow)
    flow.run("first", {"a": {"x": (1, 2), "y": {3, 4}}, "b": 2}, run_id="r")

    assert flow.run("first", {"b": 2, "a": {"y": {4, 3}, "x": (1, 2)}}, run_id="r") == {"second": "second"}


@pytest.mark.parametrize("run_id", ["", "a\0b", 7, "x" * 513, "\ud800"], ids=["empty", "NUL", "number", "long", "surrogate"])
def test_a_run_id_that_cannot_be_stored_is_refused(flow: Flow, run_id: object):
    add_tasks(flow)

    with pytest.raises(InvalidKeyError, match="^Run id "):
        flow.run("first", run_id=run_id)
    assert flow.runs() == []


# ---------------------------------------------------------------- resume


def test_resume_of_an_unknown_run_says_so_and_creates_nothing(flow: Flow, store: str):
    add_tasks(flow)

    for ask in (flow.resume, flow.get_run):
        with pytest.raises(RunNotFoundError, match="^Run nowhere not found in sqlite:///") as unknown:
            ask("nowhere")
    assert isinstance(unknown.value, LookupError)
    assert one(store, "SELECT count(*) FROM runs") == 0


def test_resume_of_a_completed_run_says_where_its_result_is(flow: Flow):
    add_tasks(flow)
    flow.run("first", run_id="r")

    with pytest.raises(RunConflictError, match=r"^Run r is completed .* flow.get_run\('r'\).result\(\)"):
        flow.resume("r")


def test_resume_of_a_live_run_says_who_drives_it(flow: Flow, store: str):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on) or ctx.attempt)
    run = flow.start("wait", run_id="r")
    passes(began)

    with pytest.raises(RunConflictError, match=r"^Run r is live in process \d+; wait for it"):
        flow.resume("r")
    with Flow(store=store) as other, pytest.raises(RunConflictError, match=r"^Run r is live in process \d+; wait for it"):
        other.resume("r")
    go_on.set()

    assert run.result(20) == {"wait": 1}


def test_a_live_run_that_was_refused_to_resume_or_recover_is_still_known_as_live(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on) or ctx.attempt)
    run = flow.start("wait", run_id="r")
    passes(began)

    for _ in range(2):
        assert flow.recover() == []
        with pytest.raises(RunConflictError, match="is live in process"):
            flow.resume("r")
    go_on.set()

    assert run.result(20) == {"wait": 1}


def test_resume_by_another_flow_names_the_right_one(flow: Flow, store: str):
    add_tasks(flow)
    flow.run("first", run_id="r")

    with Flow(name="other", store=store) as other:
        add_tasks(other)
        with pytest.raises(RunConflictError, match="^Run r is of flow flow, not of flow other"):
            other.resume("r")
        with pytest.raises(RunConflictError):
            other.run("first", run_id="r")
        assert other.runs() == []


def test_resume_is_refused_while_another_run_holds_the_context(flow: Flow):
    flow.add_task("fail", lambda ctx: 1 / 0)
    failed = flow.start("fail", context=flow.context)
    assert failed.wait(20) == "failed"
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on))
    live = flow.start("wait", context=flow.context)
    passes(began)

    with pytest.raises(ContextBusyError, match=live.id):
        flow.resume(failed.id)
    go_on.set()
    live.result(20)
    assert failed.status == "failed"


def test_a_run_that_needs_a_task_which_the_code_no_longer_has_is_paused_and_says_so(flow: Flow, store: str):
    killed(store)
    flow.add_task("first", lambda ctx: None)

    run = flow.resume("r")

    assert run.wait(20) == "paused"
    assert "task second" in run.reason
    flow.add_task("second", lambda ctx: "added again")
    assert flow.resume("r").result(20) == {"second": "added again"}


def test_code_that_has_changed_goes_on_with_the_new_code(flow: Flow, store: str):
    killed(store)
    flow.add_task("first", lambda ctx: None)
    flow.add_task("second", lambda ctx: TaskOutput("new", [NextTask("third")]))
    flow.add_task("third", lambda ctx: [ctx.get("first"), ctx.get("second"), ctx.get("a")])

    assert flow.resume("r").result(20) == {"third": ["done", "new", 1]}


# ---------------------------------------------------------------- recover


def test_recover_takes_the_runs_of_this_flow_whose_process_was_killed(flow: Flow, store: str):
    killed(store)
    ran = add_tasks(flow)
    live, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: live.set() or passes(go_on))
    flow.start("wait")
    passes(live)

    recovered = flow.recover()

    assert [run.id for run in recovered] == ["r"]
    assert recovered[0].result(20) == {"second": "second"}
    assert ran == ["second"]
    assert flow.recover() == []
    go_on.set()


def test_recover_leaves_runs_of_other_flows_and_of_tasks_it_does_not_have(
    flow: Flow, store: str, caplog: pytest.LogCaptureFixture
):
    killed(store)

    with Flow(name="other", store=store) as other:
        add_tasks(other)
        assert other.recover() == []
    assert flow.recover() == []

    assert "run r left alone: this code has no task first" in caplog.text
    assert one(store, "SELECT status FROM runs") == "running"


def test_a_killed_run_counts_the_crash_and_is_not_taken_twice(flow: Flow, store: str):
    killed(store)
    add_tasks(flow)
    other = Flow(store=store)
    add_tasks(other)

    taken = [*flow.recover(), *other.recover()]

    assert len(taken) == 1
    assert taken[0].result(20) == {"second": "second"}
    assert one(store, "SELECT crashes FROM runs") == 1
    other.close()


def test_the_result_of_a_run_whose_process_was_killed_says_how_to_go_on(flow: Flow, store: str):
    killed(store)

    with pytest.raises(RunConflictError, match=r"^Run r was interrupted: its process is gone; go on with flow.resume\('r'\)"):
        flow.get_run("r").result(5)
