"""Pools of processes cannot run tasks: they are refused by name, with what to use instead."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from liteflow import Flow, InvalidOptionError, LiteFlowError, PoolExecutor

SPAWN = multiprocessing.get_context("spawn")


class OwnPool(ProcessPoolExecutor):
    """One that a user has made to measure."""


@pytest.mark.parametrize("kind", [ProcessPoolExecutor, OwnPool], ids=lambda kind: kind.__name__)
def test_a_process_pool_executor_is_refused_by_name_with_what_to_use_instead(kind: type[ProcessPoolExecutor]):
    with kind(1, mp_context=SPAWN) as pool, pytest.raises(InvalidOptionError) as refused:
        Flow(executor=pool)

    text = str(refused.value)
    assert kind.__name__ in text
    assert "cannot run tasks" in text
    assert "RayExecutor()" in text
    assert "call the process pool from within a task" in text
    assert isinstance(refused.value, LiteFlowError)
    assert refused.value.option == "executor"


def test_a_pool_of_multiprocessing_is_refused_by_name_with_what_to_use_instead():
    with SPAWN.Pool(1) as pool:
        with pytest.raises(InvalidOptionError, match=r"is a Pool, which cannot run tasks; its processes .* RayExecutor\(\)"):
            Flow(executor=pool)
        pool.close()
        pool.join()


def test_threads_of_multiprocessing_are_refused_too_and_are_not_taken_for_processes():
    with multiprocessing.pool.ThreadPool(1) as pool:
        with pytest.raises(InvalidOptionError, match="is a ThreadPool, which cannot run tasks; give .* a ThreadPoolExecutor"):
            Flow(executor=pool)
        pool.close()
        pool.join()


@pytest.mark.parametrize("executor", ["threads", 4, object(), ThreadPoolExecutor, PoolExecutor], ids=repr)
def test_anything_else_that_runs_no_tasks_is_refused_with_what_to_give(executor: object):
    with pytest.raises(InvalidOptionError, match=r"give PoolExecutor\(\), a ThreadPoolExecutor, or nothing for 4 threads"):
        Flow(executor=executor)


def test_the_process_pool_that_the_error_speaks_of_can_be_called_from_within_a_task(flow: Flow):
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        flow.add_task("square", lambda ctx: pool.submit(pow, 7, 2).result(60))

        assert flow.run("square") == {"square": 49}
