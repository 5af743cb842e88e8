"""`Context`, as task bodies and observers see it.

It speaks to a small `Port`, so that it is the same in a thread, in another process, outside any run, and in a test.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, cast, overload

from liteflow.clock import new_id
from liteflow.codec import check_key
from liteflow.errors import AwaitNeededError, ContextKeyError, LiteFlowError, SerializationError
from liteflow.lazily import asyncio
from liteflow.places import of_inputs, of_key, of_step
from liteflow.ports import Frozen, Memory
from liteflow.telemetry import TaskLogger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from liteflow.model import StreamChunk, Version
    from liteflow.ports import Port, TaskPort

P = ParamSpec("P")
R = TypeVar("R")
_NOT_GIVEN: Any = object()


class Stream:
    """The stream of the run, as the running attempt writes to it."""

    def __init__(self, emit: Callable[[str, Any], None]) -> None:
        self._emit = emit

    def put(self, chunk: StreamChunk) -> None:
        """Add a chunk.

        Raises:
            SerializationError: its value cannot be stored.
        """
        self._emit(chunk.task_id, chunk.value)


class Context:
    """A durable, versioned map of keys to values, in which runs happen.

    Args:
        id: opens what the store holds under this name; without one the context is new, and has a generated id.
        store: a SQLAlchemy URL or engine. Without one, what is set is kept in memory until a `Flow` takes the context.
    """

    #: Connects a context to a store; the flow module, which knows stores, puts it in.
    connect: ClassVar[Callable[[Context, Any], None]]

    def __init__(self, id: str | None = None, *, store: Any = None) -> None:  # noqa: A002, ANN401 - the public name; a URL or an Engine
        self.id = new_id() if id is None else check_key(id, "Context id")
        self.store = store
        self._port: Port = Memory()
        self._is_new = id is None
        self._open: Callable[[], None] | None = None if store is None else partial(Context.connect, self, store)

    def move_later(self, open_store: Callable[[], None]) -> None:
        """Have *open_store* called, which calls `move_to`, once the context is written, or read if it may be in the store."""
        self._open = open_store

    def move_to(self, port: Port) -> None:
        """Keep the values behind *port* from now on, those that were set in memory so far among them."""
        old, self._port, self._open = self._port, port, None
        if isinstance(old, Memory) and old.texts:
            port.set([(key, port.codec.seal(text)) for key, text in old.texts.items()])

    @property
    def _values(self) -> Port:
        """The port to read from: a new context cannot be in a store yet."""
        return self._port if self._is_new else self._written

    @property
    def _written(self) -> Port:
        """The port to write to."""
        if self._open is not None:
            self._open()
        return self._port

    def get(self, key: str, default: Any = _NOT_GIVEN, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - any value
        """Return the value of *key*, waiting for the instance that is to produce it.

        Args:
            key: the key, or the key of a task's instance.
            default: returned when the key has no value and no active instance is to give it one; ``None`` counts.
            timeout: seconds to wait at most.

        Raises:
            ContextKeyError: the key has no value, and nothing is expected to give it one.
            DeadlockError: the wait can never end.
            GetTimeoutError: the wait took longer than *timeout*.
        """
        self._refuse_in_coroutine("ctx.get", "await ctx.aget(...)")
        return self._found(key, self._values.get(check_key(key), wait=default is _NOT_GIVEN, timeout=timeout), default)

    async def aget(self, key: str, default: Any = _NOT_GIVEN, *, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 - the twin of `get`
        """Return the value of *key* as `get` does, waiting on the event loop."""
        port, wait = self._values, default is _NOT_GIVEN
        aget: Callable[..., Awaitable[str | None]] = getattr(port, "aget", None) or partial(asyncio.to_thread, port.get)  # type: ignore[call-arg] # given below
        return self._found(key, await aget(check_key(key), wait=wait, timeout=timeout), default)

    def _found(self, key: str, text: str | None, default: Any) -> Any:  # noqa: ANN401 - any value
        if text is not None:
            return self._decode(key, text)
        if default is _NOT_GIVEN:
            raise ContextKeyError(key)
        return default

    def set(self, key: str, value: Any) -> None:  # noqa: ANN401 - any value
        """Write *value* under *key*.

        Raises:
            SerializationError: the value cannot be stored; nothing is written.
        """
        self._written.set([(check_key(key), self._encode(key, value))])

    def delete(self, key: str) -> None:
        """Take away the value of *key*; its history stays.

        Raises:
            ContextKeyError: it has none.
        """
        if key not in self:
            raise ContextKeyError(key)
        self._written.set([(key, None)])

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = _NOT_GIVEN) -> Any:  # noqa: ANN401 - any value
        """Replace the value of *key* by ``fn(value)`` and return that; no concurrent change is lost.

        Args:
            key: the key.
            fn: pure and quick; it may be called again, on a fresher value.
            default: what *fn* gets when the key has no value.

        Raises:
            ContextKeyError: the key has no value, and no default is given.
        """

        def change(text: str | None) -> str:
            if text is None and default is _NOT_GIVEN:
                raise ContextKeyError(key)
            return self._encode(key, fn(default if text is None else self._decode(key, text)))

        return self._decode(key, self._written.update(check_key(key), change))

    def keys(self) -> list[str]:
        """Return the keys that have a value, in the order they were first written."""
        return self._values.keys()

    def __contains__(self, key: str) -> bool:
        """Whether *key* has a value now; never waits."""
        return self._values.peek(check_key(key)) is not None

    def to_dict(self) -> dict[str, Any]:
        """Return all keys and values."""
        texts = [(key, self._values.peek(key)) for key in self._values.keys()]  # noqa: SIM118 - a port is no mapping
        return {key: self._decode(key, text) for key, text in texts if text is not None}

    def from_dict(self, mapping: Mapping[str, Any]) -> None:
        """Set each key of *mapping*, all in one go; other keys stay."""
        if mapping:
            port = self._written
            port.set([(check_key(key), self._encode(key, value)) for key, value in mapping.items()])

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first: value, who wrote it, when."""
        return self._values.history(check_key(key))

    def at(self, version: int) -> Context:
        """Return a read-only context as it stood at *version*."""
        return PortContext(self.id, Frozen(self._values.at(version), self._values.codec))

    def __repr__(self) -> str:
        """Name the context."""
        return f"Context({self.id!r})"

    # -- inside a task ---------------------------------------------------------------------------------------------

    @property
    def _task(self) -> TaskPort:
        if not hasattr(self._port, "emit"):
            msg = "this is there inside a task only, on the context that the task was given"
            raise LiteFlowError(msg)
        return self._port  # type: ignore[return-value] # narrowed by the attribute

    @property
    def run_id(self) -> str:
        """The id of the run that this task belongs to."""
        return self._task.run_id

    @property
    def task_id(self) -> str:
        """The id of this task."""
        return self._task.dispatch.task_id

    @property
    def key(self) -> str:
        """The key of this instance: the task's id, or ``id#n`` for the n-th spawned one."""
        return self._task.dispatch.key

    @property
    def attempt(self) -> int:
        """Which attempt of this dispatch runs, from 1."""
        return self._task.attempt

    @property
    def inputs(self) -> Any:  # noqa: ANN401 - any value
        """The inputs of this dispatch; ``None`` when it has none."""
        port = self._task
        text = port.dispatch.inputs
        return None if text is None else port.codec.decode(text, of_inputs(port.run_id))

    @property
    def joined(self) -> list[Any] | None:
        """The outputs of those that this dispatch joins, in dispatch order; ``None`` if it was not dispatched as a ``join``."""
        texts = self._task.joined()
        return None if texts is None else self._outputs(texts)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt was given up, so that nothing it does takes effect any more: long bodies look now and then."""
        return self._task.given_up is not None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this dispatch, and for no other: hand it to the services that you call."""
        return self._task.idempotency_key

    @property
    def logger(self) -> TaskLogger:
        """A logger whose records carry the run's id, the task's key and the attempt."""
        return TaskLogger(self.run_id, self.key, self.attempt)

    def get_stream(self) -> Stream:
        """Return the stream of the run, to put chunks into."""
        _ = self._task
        return Stream(self._emit)

    def stream(self, value: Any) -> None:  # noqa: ANN401 - any value
        """Add *value* to the run's stream, under this task's id."""
        self._emit(None, value)

    def _emit(self, task_id: str | None, value: object) -> None:
        task = self._task
        dispatch = task.dispatch
        task.emit(dispatch.task_id if task_id is None else task_id, self._encode(dispatch.key, value))

    def gather(self, task_id: str) -> list[Any]:
        """Return the outputs of all instances of a task in this run, the caller's own aside, in dispatch order; wait for them."""
        self._refuse_in_coroutine("ctx.gather", "await ctx.agather(...)")
        return self._outputs(self._task.gather(check_key(task_id, "Task id")))

    async def agather(self, task_id: str) -> list[Any]:
        """Return what `gather` does, waiting on the event loop."""
        return self._outputs(await self._task.agather(check_key(task_id, "Task id")))

    def step(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``fn(*args, **kwargs)`` once for all attempts of this dispatch, and return its result.

        The result is on the disk before this returns; every later attempt gets that instead of a call. What *fn* writes to the
        context belongs to this attempt, not to the step.

        Args:
            name: tells the steps of a dispatch apart.
            fn: the function; what it raises is not recorded.
            args: handed to it.
            kwargs: handed to it.

        Raises:
            InvalidKeyError: the name was used before in this attempt.
            SerializationError: its result cannot be stored.
        """
        self._refuse_in_coroutine("ctx.step", "await ctx.astep(...)")
        port = self._task
        text = port.step(check_key(name, "Step name"))
        if text is None:
            text = self._encode_step(name, fn(*args, **kwargs))
            port.record_step(name, text)
        return cast("R", port.codec.decode(text, self._place_of_step(name)))

    @overload
    async def astep(self, name: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def astep(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def astep(self, name: str, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do what `step` does for a plain or an ``async`` function, waiting on the event loop."""
        port = self._task
        text = await asyncio.to_thread(port.step, check_key(name, "Step name"))
        if text is None:
            result = fn(*args, **kwargs)
            text = self._encode_step(name, await result if inspect.isawaitable(result) else result)
            await asyncio.to_thread(port.record_step, name, text)
        return port.codec.decode(text, self._place_of_step(name))

    def checkpoint(self) -> None:
        """Commit what this attempt has written and streamed so far: it is kept whatever follows, and others see it.

        After a crash or a failure the body starts at the top again, and sees what it checkpointed.

        Raises:
            ConflictError: what it had read was changed by others; it is run again on fresh values.
        """
        self._refuse_in_coroutine("ctx.checkpoint", "await ctx.acheckpoint()")
        self._task.checkpoint()

    async def acheckpoint(self) -> None:
        """Do what `checkpoint` does, waiting on the event loop."""
        await asyncio.to_thread(self._task.checkpoint)

    def _refuse_in_coroutine(self, what: str, write: str) -> None:
        """Raise if this call would stop the event loop, and all tasks on it."""
        if getattr(self._port, "is_async", False) and asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises
            raise AwaitNeededError(f"{what} in an async task would stop all others", f"`{write}`")

    def _place_of_step(self, name: str) -> str:
        return of_step(self.run_id, self._task.dispatch.number, name)

    def _encode_step(self, name: str, result: object) -> str:
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise AwaitNeededError(f"step {name} returned what nobody awaits", "`await ctx.astep(...)` in an `async def` task")
        try:
            return self._task.codec.encode(result, self._place_of_step(name))
        except SerializationError as error:
            raise error.at_key(f"step {name}") from None

    def _outputs(self, texts: list[tuple[str, str]]) -> list[Any]:
        return [self._decode(key, text) for key, text in texts]

    def _encode(self, key: str, value: object) -> str:
        try:
            return self._values.codec.encode(value, of_key(self.id, key))
        except SerializationError as error:
            raise error.at_key(key) from None

    def _decode(self, key: str, text: str) -> Any:  # noqa: ANN401 - any value
        try:
            return self._values.codec.decode(text, of_key(self.id, key))
        except SerializationError as error:
            raise error.at_key(key) from None


class PortContext(Context):
    """The context whose values lie behind a port.

    Args:
        context_id: its id.
        port: where its values are.
    """

    def __init__(self, context_id: str, port: Port) -> None:
        self.id, self.store = context_id, None
        self._port, self._open, self._is_new = port, None, False
