"""R8 and R13: a task is tried again, or starts later; the wait is a row, and survives the process."""

from __future__ import annotations

from datetime import timedelta

import pytest

from liteflow import Flow, InvalidOptionError, NextTask, RetryPolicy, TaskFailedError, TaskOutput, TerminalError
from liteflow.testing import FakeClock, temporary_store

SOON = RetryPolicy(max_attempts=3, initial_interval=0.01)


@pytest.fixture
def store():
    with temporary_store() as url:
        yield url


def failing(times: int, error: type[Exception] = ConnectionError):
    tries = []

    def task(ctx):
        tries.append(ctx.attempt)
        ctx.stream(f"try {ctx.attempt}")
        if len(tries) <= times:
            raise error(f"no luck at try {ctx.attempt}")
        return TaskOutput(len(tries))

    task.tries = tries
    return task


def test_a_task_that_fails_twice_of_three_tries_succeeds_and_streams_once(store):
    with Flow(store=store) as flow:
        task = failing(2)
        flow.add_task("call", task, retry=SOON)

        run = flow.start("call")

        assert run.result(10) == {"call": 3}
        assert task.tries == [1, 2, 3]
        assert [chunk.value for chunk in run.stream(view="final")] == ["try 3", 3]
        assert [record.attempts for record in run.tasks()] == [3]


def test_after_the_last_try_the_run_fails_with_the_last_error(store):
    with Flow(store=store) as flow:
        flow.add_task("call", failing(9), retry=SOON)

        with pytest.raises(TaskFailedError, match="no luck at try 3"):
            flow.run("call")


def test_a_number_is_a_policy_of_so_many_tries(store):
    with Flow(store=store) as flow:
        task = failing(9)
        flow.add_task("call", task, retry=1)

        with pytest.raises(TaskFailedError):
            flow.run("call")

        assert task.tries == [1]


def test_a_terminal_error_is_never_retried_and_others_only_if_the_policy_names_them(store):
    policy = RetryPolicy(max_attempts=5, initial_interval=0.01, retry_on=ConnectionError)
    for error in (TerminalError, ValueError):
        with Flow(store=store) as flow:
            task = failing(9, error)
            flow.add_task("call", task, retry=policy)

            with pytest.raises(TaskFailedError):
                flow.run("call")

            assert task.tries == [1]


def test_the_wait_and_the_count_survive_the_process(store):
    clock = FakeClock()
    first = Flow(store=store, clock=clock)
    first.add_task("call", failing(9), retry=RetryPolicy(max_attempts=2, initial_interval=3600, jitter=False))
    run = first.start("call", run_id="r")
    wait_until(lambda: run.tasks()[0].attempts == 1)
    first.close()

    with Flow(store=store, clock=clock) as second:
        task = failing(9)
        second.add_task("call", task, retry=RetryPolicy(max_attempts=2, initial_interval=3600, jitter=False))
        again = second.resume("r")
        assert again.wait(0.2) == "waiting"
        assert task.tries == []

        clock.advance(timedelta(hours=1))

        with pytest.raises(TaskFailedError, match="no luck at try 2"):
            again.result(10)
        assert task.tries == [2]


def test_a_delayed_task_starts_when_its_time_has_come(store):
    clock = FakeClock()
    with Flow(store=store, clock=clock) as flow:
        flow.add_task("now", lambda _: TaskOutput("now", [NextTask("later", delay=timedelta(days=3))]))
        flow.add_task("later", lambda _: "later")
        run = flow.start("now")
        assert run.wait(0.2) == "waiting"

        clock.advance(timedelta(days=3))

        assert run.result(10) == {"later": "later"}


@pytest.mark.parametrize(
    ("option", "value"), [("max_attempts", 0), ("initial_interval", -1), ("max_interval", "soon"), ("backoff_factor", 0.5)]
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(option, value):
    with pytest.raises(InvalidOptionError, match=option):
        RetryPolicy(**{option: value})


def test_waits_grow_to_the_longest_and_jitter_only_shortens_them():
    policy = RetryPolicy(initial_interval=1, backoff_factor=2, max_interval=10)

    assert [policy.wait_after(n).total_seconds() for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]
    assert policy.wait_after(3, 1.0) == timedelta(seconds=2)


def wait_until(condition):
    from threading import Event  # noqa: PLC0415 - for this bounded wait only

    for _ in range(500):
        if condition():
            return
        Event().wait(0.01)
    pytest.fail("it did not happen within 5 s")
