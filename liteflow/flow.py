"""`Flow`: registering tasks, starting and resuming runs. Wires the parts."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from liteflow.clock import SystemClock
from liteflow.codec import PLAIN, Codec, check_key, signing_key
from liteflow.context import Context
from liteflow.engine.observer import Observer
from liteflow.engine.task import Task
from liteflow.errors import InvalidKeyError, InvalidOptionError, LiteFlowError, RunConflictError
from liteflow.executor.base import Executor
from liteflow.executor.loop import Loop
from liteflow.executor.pool import PoolExecutor
from liteflow.lazily import asyncio
from liteflow.model import Limits, RetryPolicy, RunStatus, check_span
from liteflow.run import Run
from liteflow.signals import sigterm_exits, undisturbed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from liteflow.clock import Clock
    from liteflow.codec import Transform
    from liteflow.engine.engine import Engine
    from liteflow.model import Seconds, StreamChunk
    from liteflow.store.database import Database

Action = TypeVar("Action", bound="Callable[..., Any]")
PROCESS_POOLS = {"concurrent.futures.process.ProcessPoolExecutor", "multiprocessing.pool.Pool"}
DEFAULT_STORE = "sqlite:///liteflow.db"


class Flow:
    """A named set of tasks, and the way to run them.

    Args:
        executor: where tasks run: an `Executor` or a ``ThreadPoolExecutor``; by default 4 threads that the flow owns.
        context: the context in which its runs happen, one after another; by default a new one.
        name: what runs are recorded under; resuming finds them by it.
        store: a SQLAlchemy URL or engine; by default the environment variable ``LITEFLOW_STORE``, else ``sqlite:///liteflow.db``.
            It is opened by the first run or the first write.
        durability: ``"ack"`` syncs what a caller is told is done; ``"full"`` syncs every commit.
        pickle: store values that JSON cannot hold as signed pickles. The key is the environment variable
            ``LITEFLOW_SECRET_KEY``, else a file beside a SQLite database that only its owner can read.
        codec: applied to the text of every value, to encrypt it say: an object with ``encode(text)`` and ``decode(text)``.
        limits: how far a run may go before something is taken to be wrong with it.
        clock: where time comes from; for tests.
    """

    def __init__(  # noqa: PLR0913 - the public signature
        self, executor: Executor | ThreadPoolExecutor | None = None, context: Context | None = None, *, name: str = "flow",
        store: Any = None, durability: Literal["ack", "full"] = "ack", pickle: bool = False,  # noqa: ANN401 - a URL or a SQLAlchemy Engine
        codec: Transform | None = None, limits: Limits | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        if durability not in ("ack", "full"):
            msg = f'durability is {durability!r}; write "ack" or "full"'
            raise LiteFlowError(msg)
        self.name = check_key(name, "Flow name")
        self.context = Context() if context is None else _checked(context)
        self._given_executor = executor
        self._executor, self._owns_executor = _executor(executor)
        self._store = store if store is not None else self.context.store
        self._durability, self._clock, self._limits = durability, clock or SystemClock(), limits or Limits()
        self._pickle, self._transform = pickle, codec
        self._tasks: dict[str, Task] = {}
        self._engine: Engine | None = None
        self._lock = threading.RLock()
        self.context.move_later(lambda: self._adopt(self.context))

    # -- registration ----------------------------------------------------------------------------------------------

    def task(
        self, id: str | None = None, *, retry: RetryPolicy | int | None = None, timeout: Seconds | None = None,  # noqa: A002 - the public name
    ) -> Callable[[Action], Action]:  # fmt: skip
        """Register the decorated function, plain or ``async``, as a task.

        Args:
            id: by default the function's name.
            retry: how often it is tried: a policy, or the number of tries in all; by default once.
            timeout: how long one try may take, seconds or a ``timedelta``; one that takes longer is given up, which counts as
                a failure. Its body is left to itself: it can change nothing more, and sees that by ``ctx.cancelled``.
        """

        def register(action: Action) -> Action:
            self.add_task(getattr(action, "__name__", "") if id is None else id, action, retry=retry, timeout=timeout)
            return action

        return register

    def add_task(
        self, id: str, action: Callable[..., Any], *, retry: RetryPolicy | int | None = None, timeout: Seconds | None = None,  # noqa: A002 - the public name
    ) -> None:  # fmt: skip
        """Register *action* under *id*, as `task` does; one that is registered already is replaced."""
        if "#" in check_key(id, "Task id"):
            raise InvalidKeyError("Task id", id, "holds '#', which numbers the instances of a task; choose an id without it")
        policy = retry if isinstance(retry, RetryPolicy) else RetryPolicy(max_attempts=1 if retry is None else retry)
        span = None if timeout is None else check_span("timeout", timeout)
        if span is not None and not span:
            raise InvalidOptionError("timeout", timeout, "leaves no time to run; give more than 0 seconds, or None for no end")
        self._tasks[id] = Task(id, action, self._tasks, policy, span, self._limits)

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self, start_task_id: str, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None,
        context: Context | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run to the end.

        Args:
            start_task_id: the first task.
            inputs: set as keys of the context, and handed to the first task.
            run_id: makes the call idempotent: a run of this id that completed gives its recorded result, one that was interrupted
                or failed is resumed, one that is live is waited for.
            context: where it happens; by default in the flow's context.

        Returns:
            The output of every instance that dispatched nothing, by instance key.

        Raises:
            TaskNotFoundError: the flow has no such task.
            TaskFailedError: a task failed.
            ContextBusyError: the context has a live or interrupted run.
            RunConflictError: *run_id* was used for another start.
        """
        with self._interruptible(lambda: self._begin(start_task_id, inputs, run_id, context or self.context)) as run:
            return run.result()

    def stream(
        self, start_task_id: str, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None,
        context: Context | None = None,
    ) -> Iterator[StreamChunk]:  # fmt: skip
        """Start a run as `run` does, and yield its chunks as they are written; raises what the run raised, after the last one."""
        chunks = self._follow(lambda: self._begin(start_task_id, inputs, run_id, context or self.context))
        next(chunks)  # begins the run now, and raises now what keeps it from beginning
        return cast("Iterator[StreamChunk]", chunks)

    async def arun(
        self, start_task_id: str, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None,
        context: Context | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run to the end as `run` does, waiting on the running event loop; ``async`` tasks run on that, too.

        Cancelled, it leaves the run paused, to be resumed.
        """
        async with self._awaited(start_task_id, inputs, run_id, context or self.context) as run:
            return await run.aresult()

    async def astream(
        self, start_task_id: str, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None,
        context: Context | None = None,
    ) -> AsyncIterator[StreamChunk]:  # fmt: skip
        """Start a run as `arun` does when the first chunk is asked for, and yield its chunks as `stream` does."""
        async with self._awaited(start_task_id, inputs, run_id, context or self.context) as run:
            async for chunk in run.astream():
                yield chunk
            await run.aresult()

    @asynccontextmanager
    async def _awaited(
        self, task_id: str, inputs: Mapping[str, Any] | None, run_id: str | None, context: Context
    ) -> AsyncIterator[Run]:
        """Begin a run beside the event loop; leave it paused if the caller is cancelled."""
        begin: Future[Run] = Future()  # not of the loop: it comes to its end when that runs no more
        loop, variables = asyncio.get_running_loop(), copy_context()

        def start() -> None:
            try:
                begin.set_result(variables.run(self._begin, task_id, inputs, run_id, context, Loop(loop)))
            except BaseException as error:  # noqa: BLE001 - handed over
                begin.set_exception(error)

        loop.run_in_executor(None, start)
        try:
            yield await asyncio.shield(asyncio.wrap_future(begin))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            begin.add_done_callback(_interrupt)
            raise

    def _follow(self, begin: Callable[[], Run]) -> Iterator[StreamChunk | None]:
        with self._interruptible(begin) as run:
            yield None
            yield from run.stream()
            run.result()

    def start(
        self, start_task_id: str, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None,
        context: Context | None = None,
    ) -> Run:  # fmt: skip
        """Start a run in a new context, unless one is given, and return without waiting for it."""
        return self._begin(start_task_id, inputs, run_id, context or Context())

    def _begin(
        self, task_id: str, inputs: Mapping[str, Any] | None, run_id: str | None, context: Context, loop: Loop | None = None
    ) -> Run:
        from liteflow.engine.engine import Start  # noqa: PLC0415 - the engine brings SQLAlchemy, which takes long to import

        if not isinstance(inputs, Mapping | None):
            raise InvalidOptionError("inputs", inputs, "is no mapping; give keys and values: {...}")
        engine = self._opened()
        if context is not self.context:
            self._adopt(_checked(context))
        start = Start(task_id, inputs, loop)
        begun = engine.start(start, context.id, run_id)
        if not isinstance(begun, dict):
            return Run(engine, begun.run_id, begun)
        if not engine.is_of(start, begun):
            raise RunConflictError(
                begun["id"], "was started with another task, other inputs or by another flow; choose another run_id"
            )
        return self._again(engine, begun["id"], RunStatus(begun["status"]), loop)

    @staticmethod
    def _again(engine: Engine, run_id: str, status: RunStatus, loop: Loop | None) -> Run:
        """Return the run of an id that was used before: resumed if it stands still."""
        if status.is_final or run_id in engine.drivers:
            return Run(engine, run_id, engine.drivers.get(run_id))
        try:
            return Run(engine, run_id, engine.take(run_id, loop=loop, by_itself=True))
        except RunConflictError:  # live elsewhere, or final by now
            return Run(engine, run_id)

    def resume(self, run_id: str) -> Run:
        """Continue a run that was interrupted, paused or failed: only what did not complete runs again.

        Raises:
            RunNotFoundError: no run has this id.
            RunConflictError: the run is live, completed or cancelled, or of another flow.
        """
        engine = self._opened()
        return Run(engine, run_id, engine.take(run_id))

    def recover(self) -> list[Run]:
        """Resume every run of this flow whose process is gone; the log says which were left alone, and why."""
        engine = self._opened()
        return [Run(engine, driver.run_id, driver) for driver in engine.recover()]

    def get_run(self, run_id: str) -> Run:
        """Return a run of this store by its id.

        Raises:
            RunNotFoundError: there is none.
        """
        engine = self._opened()
        return Run(engine, engine.run(run_id)["id"], engine.drivers.get(run_id))

    def runs(self, *, status: RunStatus | str | None = None, limit: int | None = None) -> list[Run]:
        """Return the runs of this flow, newest first.

        Args:
            status: only those that stand so.
            limit: at most so many.
        """
        engine = self._opened()
        wanted = None if status is None else RunStatus(status).value
        return [
            Run(engine, row["id"], engine.drivers.get(row["id"]))
            for row in engine.services.queries.runs(self.name, status=wanted, limit=limit)
        ]

    def get_context(self) -> Context:
        """Return the flow's context."""
        return self.context

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
                self._adopt(self.context)
            return self._engine

    def _open(self) -> Engine:
        from liteflow.engine.engine import Engine  # noqa: PLC0415 - the engine brings SQLAlchemy, which takes long to import

        database = _database(self._store, self._durability)
        key_file = database.file and database.file.with_name(f"{database.file.name}.key")
        key = partial(signing_key, os.environ.get("LITEFLOW_SECRET_KEY"), key_file) if self._pickle else None
        codec = Codec(key, self._transform, self._limits.value_bytes)
        return Engine(self.name, self._tasks, self._executor, database, self._clock, codec, self._limits)

    def _adopt(self, context: Context) -> None:
        """Keep a context in the flow's store from now on."""
        context.move_to(Observer(self._opened(), context.id))

    def close(self) -> None:
        """Let live runs stand still, resumable, and free threads and connections; the flow may be used again.

        A run that waits for a key or a time stays `waiting`, for `recover` to take up; any other is `paused`.
        """
        with self._lock:
            engine, self._engine = self._engine, None
            self.context.move_later(lambda: self._adopt(self.context))
        if engine is not None:
            engine.close()
        if self._owns_executor:
            self._executor.shutdown()
            self._executor, _ = _executor(self._given_executor)

    def __enter__(self) -> Self:
        """Return the flow itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the flow."""
        self.close()

    @contextmanager
    def _interruptible(self, begin: Callable[[], Run]) -> Iterator[Run]:
        """Begin a run, whole; let Ctrl-C and SIGTERM end the block at once, and leave the run paused."""
        run = None
        with sigterm_exits():
            try:
                with undisturbed():
                    run = begin()
                yield run
            except (KeyboardInterrupt, SystemExit):
                if run is not None and run.interrupt():
                    _tell(f"liteflow: run {run.id} is paused; go on with: flow.resume({run.id!r})")
                raise


def _checked(context: Context) -> Context:
    if not isinstance(context, Context):
        raise InvalidOptionError("context", context, "is no context; make one: Context() or Context(name)")
    return context


def _tell(line: str) -> None:
    """Print a line for who has interrupted a script, if it can be."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # it is closed, or nobody reads it
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the contract: a script says how to go on


def _interrupt(begin: Future[Run]) -> None:
    """Leave a run paused whose caller was cancelled; it may have been cancelled before the run began."""
    if not begin.cancelled() and begin.exception() is None:
        run = begin.result()
        threading.Thread(target=run.interrupt, name="liteflow-interrupt", daemon=True).start()


def _executor(executor: object) -> tuple[Executor, bool]:
    """Return the executor to use, and whether the flow owns it."""
    if executor is None:
        return PoolExecutor(), True
    if isinstance(executor, ThreadPoolExecutor):
        return PoolExecutor(executor), True
    if not isinstance(executor, Executor):
        what = type(executor).__qualname__
        kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(executor).__mro__}
        if kinds & PROCESS_POOLS and "multiprocessing.pool.ThreadPool" not in kinds:
            cure = (
                "its processes cannot reach the run; for tasks on other processes give RayExecutor(), "
                "for CPU work beside threads call the process pool from within a task"
            )
        else:
            cure = "give PoolExecutor(), a ThreadPoolExecutor, or nothing for 4 threads"
        raise InvalidOptionError("executor", executor, f"is a {what}, which cannot run tasks; {cure}")
    return executor, False


def _database(store: Any, durability: str) -> Database:  # noqa: ANN401 - a URL or a SQLAlchemy Engine
    from liteflow.store.database import Database  # noqa: PLC0415 - it brings SQLAlchemy, which takes long to import

    database = Database(store or os.environ.get("LITEFLOW_STORE") or DEFAULT_STORE, durability=durability)
    database.open()
    return database


def _connect(context: Context, store: Any) -> None:  # noqa: ANN401 - a URL or a SQLAlchemy Engine
    """Connect a context to a store outside any flow."""
    from liteflow.engine.engine import Engine  # noqa: PLC0415 - as above

    engine = Engine("", {}, PoolExecutor(), _database(store, "ack"), SystemClock(), PLAIN, Limits())
    context.move_to(Observer(engine, context.id))


Context.connect = staticmethod(_connect)  # the one hook by which a context finds its store
