"""Who waits takes up no worker and no CPU, however many wait (R4)."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, TaskOutput
from tests.features.waiting import SECONDS, until

COROUTINES, GETS = 500, 50
ONE_PERCENT, MARGIN = 0.01, 0.01  # the margin is for what else lives in the process of the tests


def cpu_share(seconds: float) -> float:
    """Which share of a core this process uses while its main thread waits so long."""
    used, began = time.process_time(), time.monotonic()
    threading.Event().wait(seconds)
    return (time.process_time() - used) / (time.monotonic() - began)


def add_waiting(flow: Flow) -> itertools.count:
    """Register a task that dispatches those that wait for `gate`, which waits for a signal; return what counts them."""
    waits = [NextTask("coroutine", n, spawn_another=True) for n in range(COROUTINES)]
    waits += [NextTask("thread", n, spawn_another=True) for n in range(GETS)]
    flow.add_task("start", lambda ctx: TaskOutput(0, [NextTask("gate", wait_for=["go"]), *waits]))
    flow.add_task("gate", lambda ctx: ctx.get("go"))
    began = itertools.count()

    @flow.task("coroutine")
    async def coroutine(ctx: Context, inputs: int):
        next(began)
        return inputs + await ctx.aget("gate")

    @flow.task("thread")
    def thread(ctx: Context, inputs: int):
        next(began)
        return inputs + ctx.get("gate")

    return began


def count_of(counter: itertools.count) -> int:
    return int(repr(counter)[6:-1])


def all_wait(flow: Flow, began: itertools.count) -> None:
    """Wait until all have begun, and those on threads and on the loop are where they wait."""
    until(lambda: count_of(began) == COROUTINES + GETS)
    (driver,) = flow._opened().drivers.values()
    until(lambda: len(driver._state.waits()) == COROUTINES + GETS)
    until(lambda: sum(record.status == "running" for record in flow.get_run("r").tasks()) == COROUTINES + GETS)


def check(result: dict[str, object]) -> None:
    """All have ended, each with what it waited for."""
    assert len(result) == COROUTINES + GETS + 1
    for task, count in (("coroutine", COROUTINES), ("thread", GETS)):
        found = [value for key, value in result.items() if key.partition("#")[0] == task]
        assert found == [1_000 + n for n in range(count)]


@pytest.mark.parametrize("way", ["run", "arun"])
def test_500_coroutines_and_50_blocked_gets_on_2_workers_use_no_cpu_and_all_finish(store: str, way: str):
    with Flow(store=store, executor=PoolExecutor(max_workers=2)) as flow:
        began = add_waiting(flow)

        async def main():
            run = asyncio.ensure_future(flow.arun("start", run_id="r"))
            await asyncio.to_thread(all_wait, flow, began)
            shares.append(await asyncio.to_thread(cpu_share, 1.0))
            await asyncio.to_thread(flow.context.set, "go", 1_000)
            return await asyncio.wait_for(run, SECONDS)

        shares: list[float] = []
        if way == "arun":
            result = asyncio.run(main())
        else:
            run = flow.start("start", run_id="r")
            all_wait(flow, began)
            shares.append(cpu_share(1.0))
            run.context.set("go", 1_000)
            result = run.result(SECONDS)

        print(f"{COROUTINES} coroutines and {GETS} gets wait under {way}: {shares[0]:.2%} of a core")  # noqa: T201 - the figure itself
        assert shares[0] < ONE_PERCENT + MARGIN
        check(result)


def test_workers_are_free_for_others_while_so_many_wait(store: str):
    with Flow(store=store, executor=PoolExecutor(max_workers=2)) as flow:
        began = add_waiting(flow)
        flow.add_task("other", lambda ctx: "done")
        run = flow.start("start", run_id="r")
        all_wait(flow, began)

        assert flow.run("other") == {"other": "done"}

        run.context.set("go", 1_000)
        check(run.result(SECONDS))


def test_an_idle_flow_uses_no_cpu(flow: Flow):
    flow.add_task("other", lambda ctx: "done")
    flow.run("other")

    share = cpu_share(1.0)

    print(f"an idle flow: {share:.2%} of a core")  # noqa: T201 - the figure itself
    assert share < ONE_PERCENT + MARGIN
