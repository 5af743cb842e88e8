"""Jobs on threads: on our own, or on those of a ``ThreadPoolExecutor`` that the user brings.

A *slot* is the right to run one job; there are ``max_workers`` of them. A *carrier* is a thread that takes jobs, each with a
slot, until there are none: a thread of ours parks then, a thread of the user's pool goes back to the pool. Whoever makes work or
frees a slot calls as many carriers as can begin a job and are not on their way yet; nobody ever looks in vain.

A carrier at a job is *running*, with a slot, or *blocked*, without: its job waits, or has waited and is *returning*, or is
*abandoned*, which it stays until it ends. Whenever the lock is free, ``_running <= max_workers``, nobody is returning while a
slot is free, and each carrier at a job counts once: in ``_running`` or in ``_blocked``.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

from liteflow.errors import LiteFlowError
from liteflow.executor.base import Executor
from liteflow.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


class _Carrier:
    """A thread that runs jobs.

    Attributes:
        is_ours: whether it is a thread of ours, or one lent by the user's pool.
        caller: who has called it, until it comes; else ``None``, so that parked threads do not keep an executor in being.
        gate: closed; opened once to let it go on, from parking or with the slot it waits for.
        is_at_work: whether it has come, and has not parked.
        promises: whether its job has promised to end at once, so that it will take the next one.
        is_blocked: whether its job has no slot.
        is_abandoned: whether nobody waits for its job any more; it is blocked, too.
        job: what it runs.
    """

    __slots__ = ("caller", "gate", "is_abandoned", "is_at_work", "is_blocked", "is_ours", "job", "promises")

    def __init__(self, caller: PoolExecutor, *, is_ours: bool) -> None:
        self.caller: PoolExecutor | None = caller
        self.is_ours = is_ours
        self.is_at_work = self.promises = self.is_blocked = self.is_abandoned = False
        self.job: Callable[[], None] | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class PoolExecutor(Executor):
    """Runs jobs on threads of this process.

    A job that waits takes up no slot: another thread stands in for it, so that one worker is enough for any number of waiting
    jobs. Threads are started when there is work for them. Our own are daemons, so no job of theirs keeps a script from ending.

    Args:
        pool: whose threads to use. They are borrowed while there are jobs; `shutdown` ends the borrowing, not the pool. For
            jobs that wait, threads of our own stand in.
        max_workers: how many jobs run at once; a *pool* has its own number.

    Raises:
        LiteFlowError: *pool* is no ``ThreadPoolExecutor``, or *max_workers* is less than 1.
    """

    def __init__(self, pool: ThreadPoolExecutor | None = None, *, max_workers: int = 4) -> None:
        if not isinstance(pool, ThreadPoolExecutor | None):
            raise LiteFlowError(f"{pool!r} cannot run tasks; give a ThreadPoolExecutor, or PoolExecutor(max_workers=4)")
        if max_workers < 1:
            raise LiteFlowError(f"max_workers is {max_workers}, which runs nothing; give at least 1")
        self._pool, self._lends = pool, pool is not None
        self._max_workers = pool._max_workers if pool else max_workers  # noqa: SLF001 - there is no public way to ask
        self._is_closed, self._names = False, itertools.count(1)
        self._begin()
        _executors.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)  # a carrier has, after shutdown
        self._local = threading.local()
        self._queue: deque[Callable[[], None]] = deque()
        self._returning: deque[_Carrier] = deque()  # they wait for a slot
        self._at_work: set[_Carrier] = set()
        self._parked: list[_Carrier] = []
        self._running = 0  # slots in use
        self._blocked = 0  # jobs without a slot, and threads of the user's pool that wait without being at a job
        self._promised = 0  # queued jobs for which a running job has promised its thread
        self._ours = 0  # own carriers that are not parked, those that are coming among them
        self._ours_coming = self._theirs_coming = 0

    def _begin_in_child(self) -> None:
        """Begin anew after a fork: no thread is left, the lock may be held for ever, and the jobs are the parent's."""
        self._pool, self._lends = None, False  # its threads are gone as well, and it does not know
        self._begin()

    def __del__(self) -> None:
        """Let the threads end that are parked; while one is at work, the executor is not deleted."""
        for carrier in getattr(self, "_parked", ()):
            carrier.gate.release()

    @property
    def max_workers(self) -> int:
        """How many jobs run at once."""
        return self._max_workers

    def submit(self, job: Callable[[], None], *, next_here: bool = False) -> None:
        """Have *job* run once, on one of the threads; see `Executor.submit`."""
        carrier = self._carrier
        with self._lock:
            if carrier is None:
                self._refuse()
            elif self._is_closed:
                return
            self._queue.append(job)
            if next_here and carrier is not None and not carrier.promises and not carrier.is_blocked:
                carrier.promises = True
                self._promised += 1
                return
            called = self._call()
        try:
            self._start(called)
        except RuntimeError as error:  # the process can have no more threads
            with self._lock:
                if self._running or job not in self._queue:
                    return  # there is somebody who will take it, or has
                self._queue.remove(job)
            raise LiteFlowError(f"no thread could be started for a task: {error}; run fewer at once") from error

    def _refuse(self) -> None:
        """Raise if nothing new may be submitted; the lock is held."""
        if self._is_closed:
            raise LiteFlowError("this PoolExecutor was shut down; make a new one")
        if self._pool is not None and self._pool._shutdown:  # noqa: SLF001 - asking by a submit would call a thread for nothing
            raise LiteFlowError("the ThreadPoolExecutor of this PoolExecutor was shut down; make new ones")

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Return a block in which the running job waits, and leaves its slot to others; see `Executor.blocked`.

        A thread of the user's pool that waits for jobs without being at one itself, in ``flow.run`` say, gets a stand-in, too.
        """
        carrier = self._carrier
        if carrier.is_blocked if carrier is not None else not self._is_guest():
            yield
            return
        with self._lock:
            called = self._let_go(carrier)
        try:
            self._start(called)
            yield
        finally:
            with self._lock:
                waits = self._come_back(carrier)
            if carrier is not None and waits:
                carrier.gate.acquire()

    def _is_guest(self) -> bool:
        """Whether the current thread is one of the user's pool; it is at no job."""
        return self._pool is not None and threading.current_thread() in self._pool._threads  # noqa: SLF001 - no public way

    def abandon(self, job: Callable[[], None]) -> None:
        """Wait no longer for *job*; see `Executor.abandon`. Its thread, whose ever it is, stays taken while the job runs."""
        called: list[_Carrier] = []
        with self._lock:
            for carrier in self._at_work:
                if carrier.job is job:
                    carrier.is_abandoned = True
                    if carrier in self._returning:
                        self._returning.remove(carrier)
                        carrier.gate.release()
                    called += self._let_go(carrier)
            self._left.notify_all()
        try:
            self._start(called)
        except RuntimeError:
            logger.exception("no thread could be started in place of one that is lost to a task; the next task tries again")

    def shutdown(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - as in concurrent.futures
        """Drop the jobs that have not begun, and let our threads end; see `Executor.shutdown`."""
        me = self._carrier
        with self._lock:
            self._is_closed = True
            dropped, self._queue = self._queue, deque()
            while self._parked:
                self._wake()
            if wait:
                self._left.wait_for(lambda: not self._ours_coming and all(one is me or one.is_abandoned for one in self._at_work))
        dropped.clear()  # without the lock, as what ends with a job may call us

    # -- slots; all with the lock held -----------------------------------------------------------------------------

    def _call(self) -> list[_Carrier]:
        """Call carriers for the jobs that can begin; return those that are still to be started."""
        called: list[_Carrier] = []
        while True:
            missing = min(len(self._queue) - self._promised, self._max_workers - self._running) - self._ours_coming
            if missing <= 0:
                return called
            # Theirs may be long in coming, so they do not count where a blocked job has a right to a stand-in.
            if not self._lends or self._ours < self._blocked:
                if self._parked:
                    self._wake()
                else:
                    self._ours += 1
                    self._ours_coming += 1
                    called.append(_Carrier(self, is_ours=True))
            elif missing > self._theirs_coming:
                self._theirs_coming += 1
                called.append(_Carrier(self, is_ours=False))
            else:
                return called

    def _wake(self) -> None:
        """Let the thread go on that parked last."""
        self._ours += 1
        self._ours_coming += 1
        carrier = self._parked.pop()
        carrier.caller = self
        carrier.gate.release()

    def _free_slot(self) -> None:
        """Give a slot to the first who wants it back, if anybody does."""
        if self._returning:
            self._blocked -= 1
            carrier = self._returning.popleft()
            carrier.is_blocked = False
            carrier.gate.release()
        else:
            self._running -= 1

    def _let_go(self, carrier: _Carrier | None) -> list[_Carrier]:
        """A job begins to wait, or is abandoned; a thread without a job (None) has no slot to free."""
        if carrier is not None:
            if carrier.is_blocked:
                return []
            carrier.is_blocked = True
            self._break_promise(carrier)
            self._free_slot()
        self._blocked += 1
        return self._call()

    def _come_back(self, carrier: _Carrier | None) -> bool:
        """A job has waited; return whether it must now wait for a slot."""
        if carrier is not None:
            if carrier.is_abandoned:
                return False
            if self._running == self._max_workers:
                self._returning.append(carrier)
                return True
            carrier.is_blocked = False
            self._running += 1
        self._blocked -= 1
        return False

    def _break_promise(self, carrier: _Carrier) -> None:
        if carrier.promises:
            carrier.promises = False
            self._promised -= 1

    # -- carriers --------------------------------------------------------------------------------------------------

    @property
    def _carrier(self) -> _Carrier | None:
        """The carrier that the current thread is."""
        return getattr(self._local, "carrier", None)

    def _start(self, carriers: list[_Carrier]) -> None:
        """Start the threads of carriers that were called; without the lock, as this may take long."""
        problem: RuntimeError | None = None
        for carrier in carriers:
            try:
                if carrier.is_ours:
                    self._start_own(carrier)
                else:
                    self._borrow(carrier)
            except RuntimeError as error:
                problem = error
        if problem is not None:
            raise problem

    def _start_own(self, carrier: _Carrier) -> None:
        try:
            threading.Thread(target=_live, args=[carrier], name=f"liteflow-{next(self._names)}", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._ours -= 1
                self._ours_coming -= 1
            raise

    def _borrow(self, carrier: _Carrier) -> None:
        try:
            if self._pool is not None:
                self._pool.submit(self._lend, carrier).add_done_callback(partial(self._sent_away, carrier))
        except RuntimeError:  # it was shut down meanwhile
            self._replace(carrier)

    def _replace(self, carrier: _Carrier) -> None:
        """Have a thread of ours do what was accepted when the pool still took it."""
        with self._lock:
            self._lends = False
            self._theirs_coming -= 1
            self._ours += 1
            self._ours_coming += 1
            carrier.is_ours = True
        self._start_own(carrier)

    def _sent_away(self, carrier: _Carrier, _: Future[None]) -> None:
        if carrier.caller is not None:  # cancelled by the pool, or the pool is broken
            self._replace(carrier)

    def _lend(self, carrier: _Carrier) -> None:
        """Work on a thread of the user's pool."""
        try:
            self._work(carrier)
        finally:
            self._local.carrier = None  # the thread goes on to live elsewhere

    def _work(self, carrier: _Carrier) -> bool:
        """Run jobs on this thread until there is none for it; return whether it is to park then."""
        self._local.carrier, carrier.caller, lock = carrier, None, self._lock
        with lock:
            job = carrier.job = self._first(carrier)
        while job is not None:
            try:
                job()
            except BaseException:  # noqa: BLE001 - no job may take a slot with it
                logger.exception("a job of the executor raised, which it must not")
            job = carrier.job = None  # before the lock is taken, as what ends with a job may call us
            if self._lock is not lock:  # the job has forked, and this is the child
                return False
            with lock:
                job = carrier.job = self._next(carrier)
                called = self._call() if job is None and self._queue else []
            if called:
                self._start(called)
        return not carrier.is_at_work

    def _first(self, carrier: _Carrier) -> Callable[[], None] | None:
        """Let a carrier in; return the job it begins with, if there is still one; the lock is held."""
        carrier.is_at_work = True
        self._at_work.add(carrier)
        if carrier.is_ours:
            self._ours_coming -= 1
        else:
            self._theirs_coming -= 1
        if self._queue and self._running < self._max_workers:
            self._running += 1
            return self._queue.popleft()
        self._leave(carrier)
        return None

    def _next(self, carrier: _Carrier) -> Callable[[], None] | None:
        """A job has ended; return the next one for the same thread and slot, if it is to take one; the lock is held."""
        self._break_promise(carrier)
        is_spare = carrier.is_ours and self._lends and self._ours > self._blocked
        if carrier.is_abandoned:
            carrier.is_abandoned = carrier.is_blocked = False
            self._blocked -= 1
        elif self._queue and not self._returning and not is_spare:
            return self._queue.popleft()
        else:
            self._free_slot()
        self._leave(carrier)
        return None

    def _leave(self, carrier: _Carrier) -> None:
        """A carrier stops working: it parks, with as many others as there are slots, or ends; the lock is held."""
        self._at_work.remove(carrier)
        if carrier.is_ours:
            self._ours -= 1
            if not self._is_closed and len(self._parked) < self._max_workers:
                carrier.is_at_work = False
                self._parked.append(carrier)
        if self._is_closed:
            self._left.notify_all()


def _live(carrier: _Carrier) -> None:
    """Be a thread of ours: work, park, work again; end when let go without being called."""
    while (executor := carrier.caller) is not None and executor._work(carrier):  # noqa: SLF001 - its own module
        del executor
        carrier.gate.acquire()


_executors: WeakSet[PoolExecutor] = WeakSet()  # known for one purpose: to begin anew in a forked child


def _begin_all_in_child() -> None:
    for executor in list(_executors):
        executor._begin_in_child()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_begin_all_in_child)
