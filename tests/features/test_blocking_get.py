"""A get in a task waits for the task that produces the key, and takes up no worker while it waits (R4)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from liteflow import Context, ContextKeyError, Flow, GetTimeoutError, NextTask, PoolExecutor, TaskFailedError, TaskOutput
from tests.features.waiting import Helper, passes, until


def fan(*task_ids: str) -> TaskOutput:
    return TaskOutput("fan", [NextTask(task_id) for task_id in task_ids])


# ---------------------------------------------------------------- the six steps


def test_1_the_attempts_own_write_comes_first(any_flow: Flow):
    any_flow.context.set("other", "committed")
    any_flow.add_task("fan", lambda ctx: fan("reader", "other"))
    any_flow.add_task("other", lambda ctx: "output")

    @any_flow.task("reader")
    def reader(ctx: Context):
        ctx.set("other", "own")
        return ctx.get("other")

    assert any_flow.run("fan")["reader"] == "own"


def test_2_a_dispatched_instance_is_waited_for_also_when_the_context_has_an_older_value(any_flow: Flow):
    any_flow.context.set("slow", "of an earlier run")
    any_flow.add_task("fan", lambda ctx: fan("reader", "slow"))
    any_flow.add_task("reader", lambda ctx: ctx.get("slow"))
    any_flow.add_task("slow", lambda ctx: "of this run")

    assert any_flow.run("fan")["reader"] == "of this run"


def test_2_a_default_does_not_keep_a_get_from_waiting_for_a_dispatched_instance(any_flow: Flow):
    any_flow.add_task("fan", lambda ctx: fan("reader", "slow"))
    any_flow.add_task("reader", lambda ctx: ctx.get("slow", "default"))
    any_flow.add_task("slow", lambda ctx: "output")

    assert any_flow.run("fan")["reader"] == "output"


def test_2_a_spawned_instance_is_waited_for_by_its_key(any_flow: Flow):
    @any_flow.task("fan")
    def begin(ctx: Context):
        return TaskOutput(None, [NextTask("reader"), *(NextTask("part", n, spawn_another=True) for n in range(3))])

    @any_flow.task("part")
    def part(ctx: Context, inputs):
        return inputs * 10

    any_flow.add_task("reader", lambda ctx: [ctx.get("part"), ctx.get("part#2"), ctx.get("part#3")])

    assert any_flow.run("fan")["reader"] == [0, 10, 20]


def test_2_an_instance_that_has_written_an_output_in_this_run_is_not_waited_for(flow: Flow):
    """In a loop, the value of the turn before is there while the next turn runs."""
    second_turn, read = threading.Event(), threading.Event()

    @flow.task("loop")
    def loop(ctx: Context):
        turn = ctx.get("turn", 0)
        ctx.set("turn", turn + 1)
        if turn == 0:
            return TaskOutput("first", [NextTask("loop"), NextTask("reader")])
        second_turn.set()
        passes(read)
        return "second"

    @flow.task("reader")
    def reader(ctx: Context):
        passes(second_turn)
        value = ctx.get("loop")
        read.set()
        return value

    assert flow.run("loop") == {"loop": "second", "reader": "first"}


def test_2_a_task_that_reads_its_own_key_does_not_wait_for_itself(any_flow: Flow):
    any_flow.context.set("self", "before")
    any_flow.add_task("self", lambda ctx: ctx.get("self") + " and after")

    assert any_flow.run("self") == {"self": "before and after"}


def test_3_the_committed_value_comes_next(any_flow: Flow):
    any_flow.add_task("first", lambda ctx: ctx.set("a", 1) or fan("second"))
    any_flow.add_task("second", lambda ctx: [ctx.get("first"), ctx.get("a", "default")])

    assert any_flow.run("first") == {"second": ["fan", 1]}


@pytest.mark.parametrize("default", [None, 0, "text"])
def test_4_then_the_default_also_if_it_is_none(any_flow: Flow, default: object):
    any_flow.add_task("late", lambda ctx: 1)  # registered, and never dispatched
    any_flow.add_task("reader", lambda ctx: [ctx.get("late", default), ctx.get("no task", default)])

    assert any_flow.run("reader") == {"reader": [default, default]}


def test_5_a_registered_task_is_waited_for_before_it_is_dispatched(any_flow: Flow):
    any_flow.add_task("fan", lambda ctx: fan("reader", "starter"))
    any_flow.add_task("reader", lambda ctx: ctx.get("late"))
    any_flow.add_task("starter", lambda ctx: fan("late"))
    any_flow.add_task("late", lambda ctx: "there")

    assert any_flow.run("fan") == {"reader": "there", "late": "there"}


def test_6_a_key_that_nothing_can_give_is_an_error_that_says_so(any_flow: Flow):
    any_flow.add_task("reader", lambda ctx: ctx.get("nowhere"))

    with pytest.raises(TaskFailedError, match="Key nowhere not found in context") as failed:
        any_flow.run("reader")

    assert isinstance(failed.value.__cause__, ContextKeyError)
    assert str(failed.value.__cause__) == "Key nowhere not found in context"


# ---------------------------------------------------------------- waiting takes up no worker


def test_a_chain_of_20_waits_ends_with_any_number_of_workers(any_flow: Flow):
    length = 20

    @any_flow.task("fan")
    def begin(ctx: Context):
        return TaskOutput(None, [NextTask("link", n, spawn_another=True) for n in range(length)])

    @any_flow.task("link")
    def link(ctx: Context, inputs):
        return 1 if inputs == length - 1 else 1 + ctx.get(f"link#{inputs + 2}")

    result = any_flow.run("fan")

    assert result["link"] == length


def test_no_more_tasks_than_workers_are_at_work_while_others_wait(store: str):
    at_work, most = set(), 0
    lock = threading.Lock()

    def work(ctx: Context) -> None:
        nonlocal most
        with lock:
            at_work.add(ctx.key)
            most = max(most, len(at_work))
        threading.Event().wait(0.002)
        with lock:
            at_work.discard(ctx.key)

    with Flow(executor=PoolExecutor(max_workers=2), store=store) as flow:

        @flow.task("fan")
        def begin(ctx: Context):
            waiting = [NextTask("waiting", spawn_another=True) for _ in range(8)]
            return TaskOutput(None, [*waiting, *(NextTask("working", spawn_another=True) for _ in range(8)), NextTask("last")])

        @flow.task("waiting")
        def waiting(ctx: Context):
            work(ctx)
            ctx.get("last")
            work(ctx)

        flow.add_task("working", work)
        flow.add_task("last", work)
        flow.run("fan")

    assert most == 2


def test_the_users_own_pool_of_one_is_free_for_the_users_jobs_while_a_task_waits(store: str):
    waits = threading.Event()

    with ThreadPoolExecutor(1) as users, Flow(executor=users, store=store) as flow:
        flow.add_task("fan", lambda ctx: fan("reader", "held"))
        flow.add_task("reader", lambda ctx: waits.set() or ctx.get("held"))
        go_on = threading.Event()
        flow.add_task("held", lambda ctx: passes(go_on) or "output")
        run = flow.start("fan")
        passes(waits)
        go_on.set()

        assert run.result(20)["reader"] == "output"
        assert users.submit(lambda: 42).result(20) == 42


def test_a_run_may_be_waited_for_inside_a_task_of_another_run_with_one_worker(store: str):
    with Flow(executor=PoolExecutor(max_workers=1), store=store) as flow:
        flow.add_task("inner", lambda ctx: "inner")
        flow.add_task("outer", lambda ctx: flow.start("inner").result(20)["inner"])

        assert flow.run("outer") == {"outer": "inner"}


# ---------------------------------------------------------------- timeouts


def test_a_wait_ends_with_its_timeout(flow: Flow):
    waited, go_on = threading.Event(), threading.Event()
    flow.add_task("fan", lambda ctx: fan("reader", "slow"))

    @flow.task("reader")
    def reader(ctx: Context):
        try:
            return ctx.get("slow", timeout=0.05)
        except GetTimeoutError as error:
            waited.set()
            return [str(error), error.timeout, isinstance(error, TimeoutError)]

    flow.add_task("slow", lambda ctx: passes(go_on))
    run = flow.start("fan")
    passes(waited)
    go_on.set()

    message, timeout, is_timeout = run.result(20)["reader"]
    assert message.startswith("Key slow was not there within 0.05 s")
    assert (timeout, is_timeout) == (0.05, True)


# ---------------------------------------------------------------- observers wait, too


def test_an_observer_waits_for_an_instance_while_the_run_is_live(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("slow", lambda ctx: began.set() or passes(go_on) or "output")
    run = flow.start("slow", context=flow.context)
    passes(began)

    observer = Helper(lambda: flow.context.get("slow"))
    with pytest.raises(GetTimeoutError, match="slow"):
        flow.context.get("slow", timeout=0.05)
    assert not observer.is_done
    go_on.set()

    assert observer.result() == "output"
    run.result(20)


def test_an_observer_waits_for_a_task_that_is_dispatched_later(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("first", lambda ctx: began.set() or passes(go_on) or fan("later"))
    flow.add_task("later", lambda ctx: "output")
    run = flow.start("first", context=flow.context)
    passes(began)
    observer = Helper(lambda: flow.context.get("later"))
    go_on.set()

    assert observer.result() == "output"
    run.result(20)


def test_an_observer_that_waits_for_what_the_run_never_wrote_is_told_when_the_run_has_ended(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("only", lambda ctx: began.set() or passes(go_on))
    flow.add_task("never", lambda ctx: 1)
    run = flow.start("only", context=flow.context)
    passes(began)
    observer = Helper(lambda: flow.context.get("never"))
    go_on.set()
    run.result(20)

    with pytest.raises(ContextKeyError, match="^Key never not found in context$"):
        observer.result()


def test_an_observer_without_a_live_run_does_not_wait(flow: Flow):
    flow.add_task("never", lambda ctx: 1)

    with pytest.raises(ContextKeyError, match="^Key never not found in context$"):
        flow.context.get("never")
    assert flow.context.get("never", "default") == "default"


def test_a_wait_of_a_task_ends_with_an_error_when_its_run_is_paused(flow: Flow):
    waits, ended = threading.Event(), []
    flow.add_task("fan", lambda ctx: fan("reader", "slow"))

    @flow.task("reader")
    def reader(ctx: Context):
        waits.set()
        try:
            ctx.get("slow")
        finally:
            ended.append("reader")

    go_on = threading.Event()
    flow.add_task("slow", lambda ctx: passes(go_on))
    run = flow.start("fan")
    passes(waits)
    until(lambda: not run.interrupt() or run.status == "paused")
    go_on.set()
    until(lambda: ended)

    assert run.status == "paused"
    assert flow.resume(run.id).wait(20) == "completed"
