"""Waiting costs no CPU, and tasks see the context variables of their caller."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput
from tests.features.children import output_of
from tests.features.waiting import Helper, passes

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = 1.0  # seconds in which nothing happens
MOST = 0.05  # seconds of CPU that a process may use meanwhile, all threads together

user = contextvars.ContextVar("user", default="nobody")


def cpu_while_quiet() -> float:
    """Return the CPU seconds that this process uses while nothing is to happen."""
    threading.Event().wait(0.2)  # what was begun ends
    before = time.process_time()
    threading.Event().wait(QUIET)
    return time.process_time() - before


# ---------------------------------------------------------------- quiet


def test_a_flow_that_has_nothing_to_do_uses_no_cpu(flow: Flow):
    flow.add_task("a", lambda ctx: TaskOutput(1, [NextTask("b", spawn_another=True) for _ in range(8)]))
    flow.add_task("b", lambda ctx: None)
    flow.run("a")

    assert cpu_while_quiet() < MOST


@pytest.mark.parametrize("workers", [1, 4])
def test_no_thread_spins_while_gets_wait_for_each_other_and_for_a_task_that_waits(store: str, workers: int):
    began, go_on = threading.Event(), threading.Event()
    with Flow(executor=PoolExecutor(max_workers=workers), store=store) as flow:
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask(key) for key in ("outer", "inner", "held")]))
        flow.add_task("outer", lambda ctx: ctx.get("inner"))
        flow.add_task("inner", lambda ctx: ctx.get("held"))
        flow.add_task("held", lambda ctx: began.set() or passes(go_on) or "output")
        run = flow.start("fan")
        passes(began)

        used = cpu_while_quiet()
        go_on.set()

        assert run.result(20) == {"outer": "output", "inner": "output", "held": "output"}
        assert used < MOST


WAITS: dict[str, Callable[[Flow, str], object]] = {
    "result": lambda flow, run_id: flow.get_run(run_id).result(20),
    "get": lambda flow, run_id: flow.context.get("held"),
    "stream": lambda flow, run_id: list(flow.get_run(run_id).stream()),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_observers_in_this_process_wait_without_cpu(flow: Flow, wait: Callable[[Flow, str], object]):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("held", lambda ctx: began.set() or passes(go_on) or "output")
    run = flow.start("held", context=flow.context)
    passes(began)
    observer = Helper(lambda: wait(flow, run.id))

    used = cpu_while_quiet()
    go_on.set()
    observer.result()

    assert used < MOST


def test_a_task_that_has_written_and_now_waits_uses_no_cpu(flow: Flow):
    began, go_on = threading.Event(), threading.Event()

    @flow.task("write")
    def write(ctx: Context):
        ctx.set("a", 1)
        ctx.stream("chunk")
        began.set()
        passes(go_on)

    run = flow.start("write")
    passes(began)

    used = cpu_while_quiet()
    go_on.set()
    run.result(20)

    assert used < MOST


# ---------------------------------------------------------------- threads come and go


def test_flows_that_are_closed_leave_no_threads_behind(store: str):
    before = set(threading.enumerate())

    for _ in range(5):
        with Flow(store=store) as flow:
            flow.add_task("a", lambda ctx: None)
            flow.run("a")
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)

    assert [thread for thread in left if thread.is_alive()] == []


def test_importing_the_package_starts_no_thread_and_brings_no_database_library():
    printed = output_of(
        """
        import sys, threading
        import liteflow
        from liteflow import Context, Flow

        flow = Flow()
        flow.add_task("a", lambda ctx: 1)
        print(threading.active_count(), [name for name in ("sqlalchemy", "alembic", "ray", "sqlite3") if name in sys.modules])
        """
    )

    assert printed == ["1 []"]


def test_300_waiting_tasks_need_no_more_than_one_worker(store: str):
    count = 300

    with Flow(executor=PoolExecutor(max_workers=1), store=store) as flow:

        @flow.task("fan")
        def fan(ctx: Context):
            return TaskOutput(None, [*(NextTask("wait", spawn_another=True) for _ in range(count)), NextTask("last")])

        flow.add_task("wait", lambda ctx: ctx.get("last"))
        flow.add_task("last", lambda ctx: "there")

        assert list(flow.run("fan").values()) == ["there"] * (count + 1)


# ---------------------------------------------------------------- context variables


def test_tasks_see_the_context_variables_of_who_started_the_run(flow: Flow):
    flow.add_task("who", lambda ctx: TaskOutput(user.get(), [NextTask("next")]))
    flow.add_task("next", lambda ctx: [ctx.get("who"), user.get()])

    def run_as(name: str) -> object:
        user.set(name)
        return flow.start("who").result(20)

    results = [Helper(lambda name=name: run_as(name)) for name in ("Ada", "Bob", "Cid")]

    assert [helper.result() for helper in results] == [{"next": [name, name]} for name in ("Ada", "Bob", "Cid")]
    assert user.get() == "nobody"


def test_tasks_see_the_variables_of_their_caller_also_when_another_thread_commits_its_start(flow: Flow):
    flow.add_task("who", lambda ctx: user.get())
    together = threading.Barrier(8)

    def run_as(name: str) -> object:
        user.set(name)
        together.wait(20)
        return [flow.start("who").result(20)["who"] for _ in range(10)]

    starters = [Helper(lambda name=str(n): run_as(name)) for n in range(8)]

    assert [starter.result() for starter in starters] == [[str(n)] * 10 for n in range(8)]


def test_what_a_task_sets_is_seen_by_no_other(store: str):
    with ThreadPoolExecutor(1) as pool, Flow(executor=pool, store=store) as flow:

        @flow.task("set")
        def change(ctx: Context):
            user.set("changed")
            return TaskOutput(None, [NextTask("look")])

        flow.add_task("look", lambda ctx: user.get())

        assert flow.run("set") == {"look": "nobody"}
        assert pool.submit(user.get).result(20) == "nobody"
