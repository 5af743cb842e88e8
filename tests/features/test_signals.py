"""R13: a dispatch that waits for keys starts once all of them were written since its run began, however long that takes."""

from __future__ import annotations

import threading
import time

import pytest

from liteflow import Context, Flow, InvalidKeyError, InvalidOptionError, NextTask, PoolExecutor, TaskFailedError, TaskOutput
from liteflow.testing import FakeClock
from tests.features.children import Child, output_of
from tests.features.records import one
from tests.features.waiting import until


def add_ask(flow: Flow, *keys: str, **options: object) -> list[list[object]]:
    """Register a task that dispatches one that waits for keys; return what that finds each time it starts."""
    found: list[list[object]] = []
    flow.add_task("ask", lambda ctx: TaskOutput("asked", [NextTask("ship", wait_for=keys, **options)]))

    @flow.task("ship")
    def ship(ctx: Context):
        found.append([ctx.get(key, "deleted") for key in keys])
        return found[-1]

    return found


def waiting(flow: Flow, run_id: str | None = None, context: Context | None = None):
    """Start a run, and wait until it waits."""
    run = flow.start("ask", run_id=run_id, context=context)
    until(lambda: run.status == "waiting")
    return run


# ---------------------------------------------------------------- what starts it


def test_a_key_that_is_set_from_outside_starts_who_waits_for_it(any_flow: Flow):
    found = add_ask(any_flow, "approval")
    run = waiting(any_flow)
    assert found == []

    run.context.set("approval", True)

    assert run.result(20) == {"ship": [True]}
    assert found == [[True]]


def test_a_key_that_a_task_writes_starts_who_waits_for_it_once_that_is_committed(flow: Flow):
    order = []
    flow.add_task("ask", lambda ctx: TaskOutput(0, [NextTask("ship", wait_for=["approval"]), NextTask("approve")]))
    flow.add_task("ship", lambda ctx: order.append("ship") or ctx.get("approval"))

    @flow.task("approve")
    def approve(ctx: Context):
        ctx.set("approval", "given")
        ctx.stream("so that it is recorded at once")
        order.append("approve")

    assert flow.run("ask") == {"approve": None, "ship": "given"}
    assert order == ["approve", "ship"]


def test_the_output_of_a_task_is_such_a_key(flow: Flow):
    flow.add_task("ask", lambda ctx: TaskOutput(0, [NextTask("ship", wait_for=["a", "b"]), NextTask("a"), NextTask("b")]))
    for task in ("a", "b"):
        flow.add_task(task, lambda ctx: ctx.key)
    flow.add_task("ship", lambda ctx: [ctx.get("a"), ctx.get("b")])

    assert flow.run("ask")["ship"] == ["a", "b"]


def test_what_a_lost_attempt_wrote_starts_nobody(flow: Flow):
    found = add_ask(flow, "approval")
    flow.add_task("both", lambda ctx: TaskOutput(0, [NextTask("ask"), NextTask("approve")]))

    @flow.task("approve", retry=2)
    def approve(ctx: Context):
        if ctx.attempt == 1:
            ctx.set("approval", "lost")
            raise ConnectionError("no luck")

    run = flow.start("both")
    until(lambda: run.status == "waiting" and "approve" in run.context)
    assert found == []

    run.context.set("approval", "given")

    assert run.result(20)["ship"] == ["given"]


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]], ids="".join)
def test_several_keys_may_come_in_any_order(flow: Flow, order: list[str]):
    found = add_ask(flow, "a", "b", "c")
    run = waiting(flow)

    for key in order:
        assert found == []
        assert run.status == "waiting"
        run.context.set(key, key.upper())

    assert run.result(20) == {"ship": ["A", "B", "C"]}


def test_keys_that_are_set_together_start_it_once(flow: Flow):
    found = add_ask(flow, "a", "b")
    run = waiting(flow)

    run.context.from_dict({"a": 1, "b": 2})

    assert run.result(20) == {"ship": [1, 2]}
    assert found == [[1, 2]]


def test_keys_that_were_written_after_the_run_began_and_before_the_dispatch_count(flow: Flow):
    flow.add_task("first", lambda ctx: ctx.set("approval", "early") or TaskOutput(0, [NextTask("ask")]))
    add_ask(flow, "approval", "mode")

    assert flow.run("first", {"mode": "an input of the run"}) == {"ship": ["early", "an input of the run"]}


def test_a_key_that_the_dispatching_task_itself_writes_counts(flow: Flow):
    flow.add_task("ask", lambda ctx: ctx.set("approval", 1) or TaskOutput(0, [NextTask("ship", wait_for=["approval", "ask"])]))
    flow.add_task("ship", lambda ctx: "shipped")

    assert flow.run("ask") == {"ship": "shipped"}


def test_a_key_that_an_earlier_run_in_the_same_context_wrote_does_not_count(flow: Flow):
    found = add_ask(flow, "approval")
    flow.context.set("approval", "before any run")
    first = waiting(flow, context=flow.context)
    first.context.set("approval", 1)
    first.result(20)

    second = waiting(flow, context=flow.context)
    assert found == [[1]]
    second.context.set("approval", 2)

    assert second.result(20) == {"ship": [2]}


def test_a_key_that_was_written_and_deleted_since_has_been_written(flow: Flow):
    found = add_ask(flow, "a", "b")
    run = waiting(flow)
    run.context.set("a", 1)
    run.context.delete("a")
    run.context.set("b", 2)

    assert run.result(20) == {"ship": ["deleted", 2]}
    assert found == [["deleted", 2]]


def test_the_deletion_of_a_key_is_no_write_that_starts_anybody(flow: Flow):
    found = add_ask(flow, "approval")
    flow.context.set("approval", "before the run")
    run = waiting(flow, context=flow.context)

    run.context.delete("approval")

    assert run.status == "waiting"
    assert found == []
    run.context.set("approval", "given")
    assert run.result(20) == {"ship": ["given"]}


def test_a_key_that_was_written_and_deleted_before_the_dispatch_has_been_written(flow: Flow):
    add_ask(flow, "approval")
    flow.add_task("first", lambda ctx: ctx.set("approval", 1) or TaskOutput(0, [NextTask("second")]))
    flow.add_task("second", lambda ctx: ctx.delete("approval") or TaskOutput(0, [NextTask("ask")]))

    assert flow.run("first") == {"ship": ["deleted"]}


# ---------------------------------------------------------------- several that wait


def test_two_that_wait_for_the_same_key_both_start(flow: Flow):
    waits = [NextTask(task, wait_for=["approval"]) for task in ("ship", "bill")]
    flow.add_task("ask", lambda ctx: TaskOutput(0, waits))
    for task in ("ship", "bill"):
        flow.add_task(task, lambda ctx: [ctx.key, ctx.get("approval")])
    run = waiting(flow)

    run.context.set("approval", 1)

    assert run.result(20) == {"ship": ["ship", 1], "bill": ["bill", 1]}


def test_two_dispatches_of_a_task_that_wait_for_the_same_are_one_and_for_different_keys_are_two_turns(flow: Flow):
    found = []
    waits = [NextTask("ship", wait_for=keys) for keys in (["a", "b"], ["b", "a"], ["c"])]
    flow.add_task("ask", lambda ctx: TaskOutput(0, waits))
    flow.add_task("ship", lambda ctx: found.append(ctx.get("a")))
    run = waiting(flow)

    run.context.from_dict({"c": 3, "a": 1, "b": 2})

    assert run.result(20) == {"ship": None}
    assert found == [1, 1]
    assert [record.status for record in run.tasks()] == ["completed", "completed", "merged", "completed"]


def test_each_spawned_instance_waits_for_a_key_of_its_own(flow: Flow):
    waits = [NextTask("ship", n, spawn_another=True, wait_for=[f"approval {n}"]) for n in range(3)]
    flow.add_task("ask", lambda ctx: TaskOutput(0, waits))
    flow.add_task("ship", lambda ctx, inputs: ctx.get(f"approval {inputs}"))
    run = waiting(flow)

    for n in (2, 0, 1):
        run.context.set(f"approval {n}", n)
        assert run.context.get(("ship", "ship#2", "ship#3")[n], timeout=20) == n

    assert run.result(20) == {"ship": 0, "ship#2": 1, "ship#3": 2}


# ---------------------------------------------------------------- how the run stands meanwhile


def test_the_run_is_waiting_and_says_who_waits_for_what_and_runs_again_afterwards(flow: Flow):
    seen = []
    add_ask(flow, "approval")
    run = flow.start("ask", run_id="r")
    flow.add_task("ship", lambda ctx: seen.append((run.status, run.reason)))
    until(lambda: run.status == "waiting")

    assert run.reason == "task ship waits for approval"
    assert [again.id for again in flow.runs(status="waiting")] == ["r"]
    assert [(record.key, record.status, record.wait_for) for record in run.tasks()][1:] == [("ship", "pending", ("approval",))]
    run.context.set("approval", True)
    run.result(20)

    assert seen == [("running", None)]
    assert (run.status, run.reason) == ("completed", None)


def test_the_reason_names_only_the_keys_that_are_still_missing(flow: Flow):
    add_ask(flow, "a", "b")
    run = waiting(flow)
    assert run.reason == "task ship waits for a and b"

    run.context.set("a", 1)

    assert run.reason == "task ship waits for b"


def test_a_delay_and_keys_must_both_be_over(store: str):
    clock = FakeClock()
    with Flow(store=store, clock=clock) as flow:
        found = add_ask(flow, "approval", delay=60)
        first, second = waiting(flow), waiting(flow)
        first.context.set("approval", 1)
        assert first.status == "waiting"
        clock.advance(60)

        assert first.result(20) == {"ship": [1]}
        assert second.status == "waiting"
        second.context.set("approval", 2)
        assert second.result(20) == {"ship": [2]}
        assert found == [[1], [2]]


@pytest.mark.parametrize(
    ("wait_for", "error", "why"),
    [
        ("approval", InvalidOptionError, "wait_for='approval' is one string; give a list of keys"),
        ([""], InvalidKeyError, "Key to wait for"),
        (["a", 7], InvalidKeyError, "Key to wait for 7"),
        (["a\0b"], InvalidKeyError, "Key to wait for"),
        ([None], InvalidKeyError, "Key to wait for None"),
    ],
)
def test_what_is_no_list_of_keys_is_refused(flow: Flow, wait_for: object, error: type[Exception], why: str):
    flow.add_task("ship", lambda ctx: None)
    flow.add_task("ask", lambda ctx: TaskOutput(0, [NextTask("ship", wait_for=wait_for)]))

    with pytest.raises(TaskFailedError, match=why) as failed:
        flow.run("ask")

    assert isinstance(failed.value.__cause__, error)


# ---------------------------------------------------------------- what waiting costs


def test_a_hundred_waiting_runs_take_no_thread_no_worker_and_no_cpu(store: str):
    with Flow(store=store, executor=PoolExecutor(max_workers=1)) as flow:
        add_ask(flow, "approval")
        flow.add_task("other", lambda ctx: "done")
        flow.run("other", context=Context())
        threads = set(threading.enumerate())
        runs = [flow.start("ask") for _ in range(100)]
        until(lambda: all(run.status == "waiting" for run in runs))
        assert len(set(threading.enumerate()) - threads) <= 1  # a worker, if the first one has gone

        used, began = time.process_time(), time.monotonic()
        threading.Event().wait(0.3)
        share = (time.process_time() - used) / (time.monotonic() - began)
        assert share < 0.05, f"{share:.1%} of a core while nothing happens"

        assert flow.run("other", context=Context()) == {"other": "done"}
        for run in runs:
            run.context.set("approval", 1)
        assert [run.result(20) for run in runs] == [{"ship": [1]}] * 100


# ---------------------------------------------------------------- restarts

ASK = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
flow.add_task("ask", lambda ctx: TaskOutput("asked", [NextTask("ship", wait_for=["approval"])]))
flow.add_task("ship", lambda ctx: ctx.get("approval"))

"""
KILLED = f"""{ASK}
run = flow.start("ask", run_id="r")
while run.status != "waiting":
    threading.Event().wait(0.01)
if sys.argv[2] == "before":
    flow.add_task("ship", lambda ctx: threading.Event().wait())
    run.context.set("approval", "before")
print("waits")
threading.Event().wait()
"""
SIGNAL = """
import sys
from liteflow import Flow

with Flow(store=sys.argv[1]) as flow:
    flow.get_run("r").context.set("approval", sys.argv[2])
"""


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_process_that_is_killed_loses_no_signal_given_before_during_or_after_its_downtime(flow: Flow, store: str, when: str):
    child = Child(KILLED, store, when)
    assert child.line() == "waits"
    child.kill()
    if when == "during":
        output_of(SIGNAL, store, when)
    add_ask(flow, "approval")

    (run,) = flow.recover()
    if when == "after":
        until(lambda: run.status == "waiting")
        run.context.set("approval", when)

    assert run.result(20) == {"ship": [when]}
    assert one(store, "SELECT count(*) FROM tasks") == 2


def test_a_signal_that_another_process_gave_is_noticed_at_the_latest_when_something_happens_here(flow: Flow, store: str):
    add_ask(flow, "approval")
    run = waiting(flow, "r")
    output_of(SIGNAL, store, "from afar")

    run.context.set("anything", "else")

    assert run.result(20) == {"ship": ["from afar"]}


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_a_run_that_waits_survives_the_closing_of_its_flow(store: str, when: str):
    with Flow(store=store) as first:
        add_ask(first, "approval")
        waiting(first, "r")
    assert one(store, "SELECT status FROM runs") == "waiting"
    if when == "meanwhile":
        output_of(SIGNAL, store, "meanwhile")

    with Flow(store=store) as second:
        found = add_ask(second, "approval")
        (run,) = second.recover()
        if when == "afterwards":
            until(lambda: run.status == "waiting")
            run.context.set("approval", "afterwards")

        assert run.result(20) == {"ship": [when]}
        assert found == [[when]]


def test_a_key_that_was_written_and_deleted_counts_in_the_next_process_too(store: str):
    with Flow(store=store) as first:
        add_ask(first, "a", "b")
        run = waiting(first, "r")
        run.context.set("a", 1)
        run.context.delete("a")

    with Flow(store=store) as second:
        add_ask(second, "a", "b")
        run = second.resume("r")
        run.context.set("b", 2)

        assert run.result(20) == {"ship": ["deleted", 2]}
