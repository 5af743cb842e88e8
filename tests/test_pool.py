"""`PoolExecutor`: its threads, the pool that a user lends it, forks, and the end of a script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import liteflow.executor
from liteflow.errors import LiteFlowError
from liteflow.executor import PoolExecutor
from tests.contract.test_executor import QUIET, SECONDS, chain, occupied, passes, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]

each_case = pytest.mark.parametrize("case", ["own 1", "own 4", "users 1", "users 4"])


@pytest.fixture
def users() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="users") as pool:
        yield pool


def thread_of_a_job(executor: PoolExecutor) -> str:
    names: list[str] = []
    done = threading.Event()
    executor.submit(lambda: (names.append(threading.current_thread().name), done.set()))
    passes(done)
    return names[0]


# ---------------------------------------------------------------- the user's pool


def test_jobs_run_on_the_threads_of_the_users_pool_and_leave_them_when_done(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)

    assert thread_of_a_job(executor).startswith("users")
    assert users.submit(lambda: 42).result(SECONDS) == 42
    assert thread_of_a_job(executor).startswith("users")


def test_shutdown_leaves_the_users_pool_running(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)
    thread_of_a_job(executor)

    executor.shutdown(wait=True)

    assert users.submit(lambda: 42).result(SECONDS) == 42
    assert thread_of_a_job(PoolExecutor(users)).startswith("users")


def test_a_stand_in_hands_the_work_back_to_the_users_pool_when_nobody_waits_any_more():
    names: list[str] = []
    over = threading.Event()

    def note() -> None:
        names.append(threading.current_thread().name.rstrip("0123456789"))

    def stand_in() -> None:
        note()
        waiting.go_on.set()
        until(lambda: executor._blocked == 0 and len(executor._at_work) == 1)
        executor.submit(lambda: (note(), over.set()), next_here=True)

    with ThreadPoolExecutor(2, thread_name_prefix="users") as users:
        executor = PoolExecutor(users)
        with occupied(executor, 1, "waits") as [waiting]:
            executor.submit(stand_in)
            passes(over)

    assert names == ["liteflow-", "users_"]


def test_an_abandoned_job_keeps_a_thread_of_the_users_pool_and_one_of_ours_stands_in(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)
    with occupied(executor, 1) as [job]:
        executor.abandon(job)
        assert thread_of_a_job(executor).startswith("liteflow")
    until(lambda: not executor._at_work)

    assert thread_of_a_job(executor).startswith("users")


def test_a_thread_that_comes_when_all_slots_are_taken_again_runs_nothing():
    elsewhere, waiting, event, stop = (threading.Event() for _ in range(4))
    ran: list[str] = []

    def wait() -> None:
        with executor.blocked():
            waiting.set()
            passes(event)
        passes(stop)

    with ThreadPoolExecutor(2) as users:
        executor = PoolExecutor(users)
        executor.submit(wait)
        passes(waiting)
        users.submit(passes, elsewhere)
        executor.submit(lambda: passes(stop))  # by the stand-in
        executor.submit(lambda: passes(stop))  # by a thread of the pool, which is long in coming
        until(lambda: executor._running == 1 and executor._theirs_coming == 1)
        event.set()
        until(lambda: executor._running == 2)
        executor.submit(lambda: ran.append("at last"))
        elsewhere.set()
        until(lambda: executor._theirs_coming == 0)

        assert (executor._running, len(executor._queue), ran) == (2, 2, [])
        stop.set()
        until(lambda: ran == ["at last"])


def test_a_waiting_job_gets_a_stand_in_though_the_rest_of_the_users_pool_is_busy_elsewhere():
    elsewhere, event, over = threading.Event(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as users:
        executor = PoolExecutor(users)
        users.submit(passes, elsewhere)

        def wait() -> None:
            executor.submit(event.set)  # asks the pool for a thread that does not come
            with executor.blocked():
                passes(event)
            over.set()

        executor.submit(wait)
        try:
            passes(over)
        finally:
            elsewhere.set()


def test_a_thread_of_the_users_pool_may_itself_wait_for_a_job(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)

    def caller() -> bool:
        done = threading.Event()
        executor.submit(done.set)
        with executor.blocked():
            return done.wait(SECONDS)

    assert users.submit(caller).result(SECONDS)


def test_a_thread_of_the_users_pool_that_is_back_there_makes_no_promise_any_more(users: ThreadPoolExecutor):
    executor, done = PoolExecutor(users), threading.Event()
    thread_of_a_job(executor)

    users.submit(executor.submit, done.set, next_here=True).result(SECONDS)

    passes(done)


def test_a_wait_elsewhere_calls_for_no_stand_in(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)

    with executor.blocked():
        assert thread_of_a_job(executor).startswith("users")


def test_a_users_pool_that_was_shut_down_is_told(users: ThreadPoolExecutor):
    executor = PoolExecutor(users)
    users.shutdown()

    with pytest.raises(LiteFlowError, match="ThreadPoolExecutor of this PoolExecutor was shut down"):
        executor.submit(lambda: None)


def test_what_was_taken_on_is_done_though_the_users_pool_cancels_its_threads(users: ThreadPoolExecutor):
    executor, elsewhere = PoolExecutor(users), threading.Event()
    users.submit(passes, elsewhere)
    done, threads = threading.Event(), set()

    def job(left: int) -> None:
        threads.add(threading.get_ident())
        executor.submit(partial(job, left - 1), next_here=True) if left else done.set()

    executor.submit(partial(job, 20))

    users.shutdown(wait=False, cancel_futures=True)

    try:
        passes(done)
    finally:
        elsewhere.set()
    assert len(threads) == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: PoolExecutor(max_workers=0), "give at least 1"),
        (lambda: PoolExecutor(4), r"4 cannot run tasks; .*PoolExecutor\(max_workers=4\)"),
    ],
)
def test_what_cannot_run_anything_is_refused(make: Callable[[], PoolExecutor], told: str):
    with pytest.raises(LiteFlowError, match=told):
        make()


def test_the_executor_for_ray_says_that_it_is_still_to_come():
    with pytest.raises(ImportError, match="RayExecutor comes with a later part"):
        from liteflow.executor import RayExecutor  # noqa: F401, PLC0415 - the import is what is tested
    assert not hasattr(liteflow.executor, "RayExecuter")


# ---------------------------------------------------------------- threads of our own


def test_no_more_threads_are_started_than_there_are_workers_while_nobody_waits():
    executor, meeting, over = PoolExecutor(max_workers=2), threading.Barrier(2), threading.Event()

    for _ in range(10):
        executor.submit(partial(meeting.wait, SECONDS))
    executor.submit(over.set)

    passes(over)
    assert next(executor._names) == 3
    executor.shutdown()


def test_a_job_that_is_abandoned_when_about_to_wait_frees_one_slot():
    executor = PoolExecutor(max_workers=1)
    with occupied(executor, 1) as [job]:
        [carrier] = executor._at_work
        executor.abandon(job)
        with executor._lock:
            assert executor._let_go(carrier) == []
        assert (executor._running, executor._blocked) == (0, 1)


def test_of_many_stand_ins_no_more_stay_than_there_are_workers():
    executor, waiting, event = PoolExecutor(max_workers=2), threading.Semaphore(0), threading.Event()

    def wait() -> None:
        with executor.blocked():
            waiting.release()
            passes(event)

    for _ in range(20):
        executor.submit(wait)
    assert all(waiting.acquire(timeout=SECONDS) for _ in range(20))
    event.set()
    until(lambda: executor._ours == 0)

    assert len(executor._parked) == 2
    executor.shutdown()


def test_a_thread_that_cannot_be_started_is_told_and_its_job_is_not_taken_on(monkeypatch: pytest.MonkeyPatch):
    executor, ran = PoolExecutor(max_workers=1), []

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", start)
        with pytest.raises(LiteFlowError, match="no thread could be started"):
            executor.submit(lambda: ran.append("refused"))

    assert thread_of_a_job(executor)
    assert ran == []
    executor.shutdown()


def test_an_executor_that_was_forgotten_lets_its_threads_end_and_does_what_it_took_on():
    ran, before = threading.Event(), set(threading.enumerate())
    executor = PoolExecutor()
    with occupied(executor, executor.max_workers):
        pass
    parked = executor._parked
    until(lambda: len(parked) == 4)
    threads = set(threading.enumerate()) - before
    gone = weakref.ref(executor)

    executor.submit(ran.set)
    del executor

    passes(ran)
    until(lambda: gone() is None)
    assert len(threads) == 4
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def switches() -> dict[str, list[str]]:
    """Return how often each thread of this process has gone to sleep."""
    others = (task for task in Path("/proc/self/task").iterdir() if task.name != str(threading.get_native_id()))
    return {task.name: re.findall(r"^voluntary.*", (task / "status").read_text(), re.MULTILINE) for task in others}


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux counts for each thread")
@each_case
def test_no_thread_wakes_while_there_is_nothing_to_do(case: str):
    kind, workers = case.split()
    with ThreadPoolExecutor(int(workers)) as users:
        executor = PoolExecutor(users if kind == "users" else None, max_workers=int(workers))
        chain(executor, 10)
        with occupied(executor, executor.max_workers):
            pass
        until(lambda: not executor._at_work)
        threading.Event().wait(QUIET / 3)

        before = switches()
        threading.Event().wait(QUIET)

        assert switches() == before
        executor.shutdown()


SCRIPT = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from liteflow.executor import PoolExecutor

kind, workers = sys.argv[1], int(sys.argv[2])
executor = PoolExecutor(ThreadPoolExecutor(workers)) if kind == "users" else PoolExecutor(max_workers=workers)

def works():
    done, inner = threading.Event(), threading.Event()
    def outer():
        executor.submit(inner.set)
        with executor.blocked():
            inner.wait()
        done.set()
    executor.submit(outer)
    return done.wait(10)

assert works()
"""

FORK = """
def child_works():
    child = os.fork()
    if child == 0:
        os._exit(0 if works() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

assert child_works(), "while idle"
with executor._lock:
    assert child_works(), "while another thread had the lock"
inside, over, deed = [], threading.Event(), int
def job():
    deed()
    inside.append(child_works())
    child = os.fork()
    if child == 0:
        return  # up into the loop of a thread that is not there any more
    if kind == "own":
        os.waitpid(child, 0)
    else:
        os.kill(child, 9)  # it is back in the user's pool, which does not expect it
    over.set()
for deed in (int, lambda: executor.abandon(job)):
    over.clear()
    executor.submit(job)
    assert over.wait(20) and inside.pop(), "within a job"
assert works(), "the parent"
"""


def run_script(script: str, case: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *case.split()]
    ended = subprocess.run(command, cwd=ROOT, timeout=2 * SECONDS, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr


@each_case
def test_an_idle_executor_does_not_keep_a_script_from_ending(case: str):
    run_script(SCRIPT, case)


@pytest.mark.parametrize("hang", ["hold()", "with executor.blocked(): hold()", "executor.abandon(job); hold()"])
def test_a_job_that_hangs_on_a_thread_of_ours_does_not_keep_a_script_from_ending(hang: str):
    job = f"begun, hold = threading.Event(), threading.Event().wait\ndef job():\n    begun.set()\n    {hang}\n"

    run_script(SCRIPT + job + "executor.submit(job)\nbegun.wait()\n", "own 4")


@each_case
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_and_its_parent_go_on(case: str):
    run_script(SCRIPT + FORK, case)
