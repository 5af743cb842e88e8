"""`Context`, as task bodies and observers see it.

It speaks to a small `Port`, so that it is the same in a thread, in another process, outside any run, and in a test.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from liteflow.clock import new_id
from liteflow.codec import check_key, decode, encode
from liteflow.errors import ContextKeyError, LiteFlowError, SerializationError
from liteflow.telemetry import TaskLogger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from liteflow.model import Dispatch, StreamChunk, Version

_NOT_GIVEN: Any = object()


class Port(Protocol):
    """Where a context keeps its values, as text."""

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return the text of *key*; ``None`` if it is absent, and, with *wait*, nothing is expected to write it."""
        ...

    def peek(self, key: str) -> str | None:
        """Return the text of *key* as it is now, ``None`` if it is absent; never wait."""
        ...

    def set(self, items: Sequence[tuple[str, str]]) -> None:
        """Write these keys, in order."""
        ...

    def keys(self) -> list[str]:
        """Return the keys that have a value, in the order they were first written."""
        ...

    def update(self, key: str, change: Callable[[str | None], str]) -> str:
        """Replace the text of *key* by what *change* makes of it, losing no other change; return it."""
        ...

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first."""
        ...

    def at(self, version: int) -> dict[str, str]:
        """Return the text of every key as of *version*."""
        ...


class TaskPort(Port, Protocol):
    """What an attempt of a task offers beside its values."""

    run_id: str
    dispatch: Dispatch
    attempt: int

    def emit(self, task_id: str, text: str) -> None:
        """Add a chunk to the run's stream."""
        ...


class Stream:
    """The stream of the run, as the running attempt writes to it."""

    def __init__(self, port: TaskPort) -> None:
        self._port = port

    def put(self, chunk: StreamChunk) -> None:
        """Add a chunk.

        Raises:
            SerializationError: its value cannot be stored.
        """
        self._port.emit(chunk.task_id, encode(chunk.value))


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
            port.set(list(old.texts.items()))

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
        text = self._values.get(check_key(key), wait=default is _NOT_GIVEN, timeout=timeout)
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
        items = [(check_key(key), self._encode(key, value)) for key, value in mapping.items()]
        if items:
            self._written.set(items)

    def history(self, key: str) -> list[Version]:
        """Return the committed writes of *key*, oldest first: value, who wrote it, when."""
        return self._values.history(check_key(key))

    def at(self, version: int) -> Context:
        """Return a read-only context as it stood at *version*."""
        return PortContext(self.id, Frozen(self._values.at(version)))

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
        text = self._task.dispatch.inputs
        return None if text is None else decode(text)

    @property
    def logger(self) -> TaskLogger:
        """A logger whose records carry the run's id, the task's key and the attempt."""
        return TaskLogger(self.run_id, self.key, self.attempt)

    def get_stream(self) -> Stream:
        """Return the stream of the run, to put chunks into."""
        return Stream(self._task)

    def stream(self, value: Any) -> None:  # noqa: ANN401 - any value
        """Add *value* to the run's stream, under this task's id."""
        self._task.emit(self._task.dispatch.task_id, encode(value))

    @staticmethod
    def _encode(key: str, value: object) -> str:
        try:
            return encode(value)
        except SerializationError as error:
            raise error.at_key(key) from None

    @staticmethod
    def _decode(key: str, text: str) -> Any:  # noqa: ANN401 - any value
        try:
            return decode(text)
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


class Memory:
    """Values of a context that no store holds yet."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:  # noqa: ARG002 - nothing to wait for
        """Return the text of *key*, or ``None``."""
        return self.texts.get(key)

    def peek(self, key: str) -> str | None:
        """Return the text of *key*, or ``None``."""
        return self.texts.get(key)

    def set(self, items: Iterable[tuple[str, str]]) -> None:
        """Write these keys."""
        self.texts.update(items)

    def keys(self) -> list[str]:
        """Return the keys, in the order they were first written."""
        return list(self.texts)

    def update(self, key: str, change: Callable[[str | None], str]) -> str:
        """Replace the text of *key* by what *change* makes of it."""
        text = self.texts[key] = change(self.texts.get(key))
        return text

    def history(self, key: str) -> list[Version]:  # noqa: ARG002 - nothing is committed
        """Return no versions: none are kept in memory."""
        return []

    def at(self, version: int) -> dict[str, str]:
        """Refuse: there are no versions in memory."""
        msg = f"version {version} is not there: this context is in memory only; give it a store, or a flow"
        raise LiteFlowError(msg)


class Frozen(Memory):
    """Values of a context as they once were."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def set(self, items: Iterable[tuple[str, str]]) -> None:  # noqa: ARG002 - refused
        """Refuse: the past cannot be written."""
        msg = "a context as it stood at a version is read-only; set the key in the context itself"
        raise LiteFlowError(msg)

    def update(self, key: str, change: Callable[[str | None], str]) -> str:  # noqa: ARG002 - refused
        """Refuse: the past cannot be written."""
        self.set([])
        raise AssertionError
