"""What every executor promises."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from liteflow.errors import LiteFlowError
from liteflow.executor import Executor, PoolExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 20  # a wait this long has failed
QUIET = 0.3  # seconds in which nothing is to happen


class CountingPool(ThreadPoolExecutor):
    """A user's pool that counts how often it is asked for a thread."""

    asked = 0

    def submit(self, fn, /, *args, **kwargs):
        self.asked += 1
        return super().submit(fn, *args, **kwargs)


class Case(NamedTuple):
    executor: Executor
    users: CountingPool | None


@pytest.fixture(params=["own-1", "own-4", "users-1", "users-4"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    kind, workers = request.param.split("-")
    users = CountingPool(int(workers)) if kind == "users" else None
    executor = PoolExecutor(users) if users else PoolExecutor(max_workers=int(workers))
    yield Case(executor, users)
    executor.shutdown(wait=True)
    if users:
        users.shutdown()


@pytest.fixture
def executor(case: Case) -> Executor:
    return case.executor


def passes(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what only the inside of an executor tells."""
    beat, left = threading.Event(), SECONDS * 1_000
    while not condition():
        left -= 1
        assert left, "it did not happen"
        beat.wait(0.001)


class Crowd:
    """Counts who is at work side by side."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        yield
        with self._lock:
            self.now -= 1


class Stuck:
    """A job that goes on until it is let go."""

    def __init__(self, executor: Executor, way: str = "runs") -> None:
        self.begun, self.go_on, self.ended = (threading.Event() for _ in range(3))
        self.executor, self.way = executor, way
        executor.submit(self)

    def __call__(self) -> None:
        if "promises" in self.way:
            self.executor.submit(int, next_here=True)
        with ExitStack() as waits:
            for _ in range(self.way.count("waits")):
                waits.enter_context(self.executor.blocked())
            self.begun.set()
            passes(self.go_on)
        if self.way == "goes on":
            with self.executor.blocked():
                self.executor.submit(int, next_here=True)
        self.ended.set()


@contextmanager
def occupied(executor: Executor, slots: int, way: str = "runs") -> Iterator[list[Stuck]]:
    """Have jobs hold *slots* slots until the block ends, or until they are let go."""
    jobs = [Stuck(executor, way) for _ in range(slots)]
    try:
        for job in jobs:
            passes(job.begun)
        yield jobs
    finally:
        for job in jobs:
            job.go_on.set()


def drained(executor: Executor) -> None:
    """Wait until all that was submitted has begun."""
    last = threading.Event()
    executor.submit(last.set)
    passes(last)


# ---------------------------------------------------------------- order and slots


def test_jobs_begin_in_the_order_of_submission(executor: Executor):
    order: list[int] = []
    with occupied(executor, executor.max_workers - 1):  # one thread is left, so that the order of appending tells
        for number in range(200):
            executor.submit(lambda number=number: order.append(number))
        drained(executor)

    assert order == list(range(200))


def test_as_many_jobs_as_there_are_workers_run_side_by_side_and_never_more(executor: Executor):
    crowd, meeting, done = Crowd(), threading.Barrier(executor.max_workers), threading.Semaphore(0)
    jobs = 25 * executor.max_workers

    def job() -> None:
        with crowd.inside():
            meeting.wait(SECONDS)
        done.release()

    for _ in range(jobs):
        executor.submit(job)

    assert all(done.acquire(timeout=SECONDS) for _ in range(jobs))
    assert crowd.most == executor.max_workers


def test_there_are_never_more_at_once_when_jobs_wait_and_come_back_in_a_crowd(executor: Executor):
    crowd, done = Crowd(), threading.Semaphore(0)

    def job(depth: int) -> None:
        child = threading.Event()
        with crowd.inside():
            for event in (child, threading.Event()):
                executor.submit(lambda event=event: (job(depth - 1) if depth else None, event.set()), next_here=depth % 2 == 0)
        with executor.blocked():
            passes(child)
        with crowd.inside():
            done.release()

    for _ in range(8):
        executor.submit(lambda: job(4))

    assert all(done.acquire(timeout=SECONDS) for _ in range(8 * (2**5 - 1)))
    assert crowd.most <= executor.max_workers


def test_a_job_that_raises_is_told_and_takes_no_slot_with_it(executor: Executor, caplog: pytest.LogCaptureFixture):
    for error in (ValueError("broken"), SystemExit(3), KeyboardInterrupt()) * 3:
        executor.submit(lambda error=error: (_ for _ in ()).throw(error))

    with occupied(executor, executor.max_workers):
        assert [record.exc_info[0] for record in caplog.records if record.exc_info].count(SystemExit) == 3


# ---------------------------------------------------------------- jobs that wait


def test_a_job_that_waits_leaves_its_slot_to_others(executor: Executor):
    with occupied(executor, 3 * executor.max_workers, "waits") as waiting, occupied(executor, executor.max_workers):
        pass

    assert all(job.ended.wait(SECONDS) for job in waiting)


def test_fifty_jobs_that_each_wait_for_the_next_come_to_an_end(executor: Executor):
    unwound: list[int] = []

    def job(depth: int, over: threading.Event) -> None:
        if depth < 50:
            inner = threading.Event()
            executor.submit(lambda: job(depth + 1, inner))
            with executor.blocked():
                passes(inner)
        unwound.append(depth)
        over.set()

    over = threading.Event()
    executor.submit(lambda: job(0, over))
    passes(over)

    assert unwound == list(range(50, -1, -1))


def test_who_comes_back_waits_for_a_slot_and_goes_before_jobs_that_have_not_begun(executor: Executor):
    order: list[str] = []
    with occupied(executor, 1, "waits") as [back], occupied(executor, executor.max_workers) as [other, *_]:
        for _ in range(5):
            executor.submit(lambda: order.append("back" if back.ended.is_set() else "new"))
        back.go_on.set()
        until(lambda: len(executor._returning) == 1)
        assert order == []
        other.go_on.set()
        drained(executor)

    assert order == 5 * ["back"]


def test_a_wait_within_a_wait_and_a_wait_outside_a_job_free_no_further_slot(executor: Executor):
    one_too_many = threading.Barrier(executor.max_workers + 1)
    alone = threading.Semaphore(0)

    def meet() -> None:
        try:
            one_too_many.wait(QUIET)
        except threading.BrokenBarrierError:
            alone.release()

    with occupied(executor, 1, "waits, waits"), executor.blocked():
        for _ in range(executor.max_workers + 1):
            executor.submit(meet)
        met = [alone.acquire(timeout=SECONDS) for _ in range(executor.max_workers + 1)]

    assert all(met)


def test_an_error_in_a_wait_passes_through_and_the_slot_is_taken_back(executor: Executor):
    caught = threading.Semaphore(0)

    def job() -> None:
        with pytest.raises(LookupError), executor.blocked():
            raise LookupError
        caught.release()

    for _ in range(10):
        executor.submit(job)

    assert all(caught.acquire(timeout=SECONDS) for _ in range(10))
    until(lambda: executor._running == 0)
    assert executor._blocked == 0


# ---------------------------------------------------------------- a job's next


def chain(executor: Executor, length: int) -> set[int]:
    """Run jobs that each submit the next one as their last deed; return on which threads."""
    threads: set[int] = set()
    over = threading.Event()

    def job(left: int) -> None:
        threads.add(threading.get_ident())
        if left:
            executor.submit(lambda: job(left - 1), next_here=True)
        else:
            over.set()

    executor.submit(lambda: job(length - 1))
    passes(over)
    return threads


def test_a_chain_of_a_thousand_stays_on_one_thread_and_asks_the_pool_once(case: Case):
    assert len(chain(case.executor, 1_000)) == 1
    assert case.users is None or case.users.asked == 1
    drained(case.executor)  # and no promise outlives its job


def test_a_job_that_promised_to_end_and_then_waits_strands_nobody(executor: Executor):
    with occupied(executor, 1, "promises, waits"):
        until(lambda: not executor._queue)


def test_the_promise_holds_for_one_job_only(executor: Executor):
    meeting = threading.Barrier(executor.max_workers + 1)

    def job() -> None:
        for _ in range(executor.max_workers):
            executor.submit(lambda: meeting.wait(SECONDS), next_here=True)

    executor.submit(job)
    meeting.wait(SECONDS)


def test_the_promise_means_nothing_outside_a_job(executor: Executor):
    done = threading.Event()
    executor.submit(done.set, next_here=True)

    passes(done)


# ---------------------------------------------------------------- jobs that are abandoned


@pytest.mark.parametrize("way", ["runs", "waits", "promises", "goes on"])
def test_an_abandoned_job_leaves_its_slot_for_good_whatever_it_goes_on_to_do(executor: Executor, way: str):
    slots = executor.max_workers
    with occupied(executor, 1 if way == "promises" else slots, way) as abandoned:
        for job in 2 * abandoned:
            executor.abandon(job)
        with occupied(executor, slots):  # so all are free
            executor.submit(int)
            for job in abandoned:
                job.go_on.set()
                passes(job.ended)
            until(lambda: executor._blocked == 0)
            assert (executor._running, len(executor._queue)) == (slots, 1 + slots * (way == "goes on"))
    until(lambda: not executor._at_work)
    assert (executor._running, executor._promised, len(executor._queue)) == (0, 0, 0)


def test_an_abandoned_job_that_is_back_from_waiting_waits_for_no_slot(executor: Executor):
    with occupied(executor, 1, "waits") as [job], occupied(executor, executor.max_workers):
        job.go_on.set()
        until(lambda: len(executor._returning) == 1)
        executor.abandon(job)
        passes(job.ended)


def test_to_abandon_a_job_that_does_not_run_changes_nothing(executor: Executor):
    with occupied(executor, 1) as [ended]:
        pass
    with occupied(executor, executor.max_workers):  # one of them on the same thread, maybe
        later = Stuck(executor)
        for job in (ended, later):
            executor.abandon(job)
        assert (executor._running, len(executor._queue)) == (executor.max_workers, 1)
    later.go_on.set()
    passes(later.ended)


@pytest.mark.parametrize("way", ["runs", "waits"])
def test_shutdown_does_not_wait_for_jobs_that_are_abandoned(executor: Executor, way: str):
    with occupied(executor, executor.max_workers, way) as jobs:
        shutdown = threading.Thread(target=executor.shutdown, args=[True])
        shutdown.start()
        until(lambda: executor._is_closed)
        for job in jobs:
            assert shutdown.is_alive()
            executor.abandon(job)
        shutdown.join(SECONDS)
        assert not shutdown.is_alive()


# ---------------------------------------------------------------- the end


def test_shutdown_drops_the_jobs_that_have_not_begun_and_lets_the_others_end(executor: Executor):
    ran: list[str] = []
    with occupied(executor, executor.max_workers, "goes on") as jobs:  # they get no error when they submit
        executor.submit(lambda: ran.append("dropped"))
        executor.shutdown()
    executor.shutdown(wait=True)

    assert [job.ended.is_set() for job in jobs] == [True] * executor.max_workers
    assert [*ran, *executor._queue] == []
    with pytest.raises(LiteFlowError, match="was shut down"):
        executor.submit(lambda: None)


def test_shutdown_waits_for_the_jobs_that_have_begun_when_asked_to(executor: Executor):
    ran: list[str] = []
    begun = threading.Event()

    def job() -> None:
        begun.set()
        until(lambda: executor._is_closed)
        ran.append("to its end")

    executor.submit(job)
    passes(begun)
    executor.shutdown(wait=True)

    assert ran == ["to its end"]


def test_shutdown_from_within_a_job_does_not_wait_for_that_job(executor: Executor):
    over = threading.Event()
    executor.submit(lambda: (executor.shutdown(wait=True), over.set()))

    passes(over)
