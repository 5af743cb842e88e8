"""Where a context keeps its values, as text: behind a small port, so that it is the same wherever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from liteflow.codec import PLAIN
from liteflow.errors import LiteFlowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from liteflow.codec import Codec
    from liteflow.model import Dispatch, Version


class Port(Protocol):
    """Where a context keeps its values; ``None`` stands for the text of a key that has no value.

    Attributes:
        codec: how values become text there.
    """

    codec: Codec

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:
        """Return the text of *key*; ``None`` if it is absent, and, with *wait*, nothing is expected to write it."""
        ...

    def peek(self, key: str) -> str | None:
        """Return the text of *key* as it is now; never wait."""
        ...

    def set(self, items: Sequence[tuple[str, str | None]]) -> None:
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
    is_async: bool
    given_up: LiteFlowError | None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this dispatch, and for nothing else."""
        ...

    async def aget(self, key: str, *, wait: bool, timeout: float | None) -> str | None:  # noqa: ASYNC109 - the twin of `get`
        """Return what `get` does, waiting on the event loop."""
        ...

    def emit(self, task_id: str, text: str) -> None:
        """Add a chunk to the run's stream."""
        ...

    def gather(self, task_id: str) -> list[tuple[str, str]]:
        """Return keys and outputs of all other instances of a task, waiting for them."""
        ...

    async def agather(self, task_id: str) -> list[tuple[str, str]]:
        """Return what `gather` does, waiting on the event loop."""
        ...

    def joined(self) -> list[tuple[str, str]] | None:
        """Return keys and outputs of those that it was dispatched to join; ``None`` if it is no join."""
        ...

    def step(self, name: str) -> str | None:
        """Return the recorded result of a step, ``None`` if there is none yet."""
        ...

    def record_step(self, name: str, text: str) -> None:
        """Have the result of a step on the disk."""
        ...

    def checkpoint(self) -> None:
        """Commit what was written so far."""
        ...


class Memory:
    """Values of a context that no store holds yet."""

    codec: Codec = PLAIN

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str, *, wait: bool, timeout: float | None) -> str | None:  # noqa: ARG002 - nothing to wait for
        """Return the text of *key*, or ``None``."""
        return self.texts.get(key)

    def peek(self, key: str) -> str | None:
        """Return the text of *key*, or ``None``."""
        return self.texts.get(key)

    def set(self, items: Iterable[tuple[str, str | None]]) -> None:
        """Write these keys."""
        for key, text in items:
            if text is None:
                self.texts.pop(key, None)
            else:
                self.texts[key] = text

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
    """Values of a context as they once were.

    Args:
        texts: the text of each key.
        codec: what reads it.
    """

    def __init__(self, texts: dict[str, str], codec: Codec) -> None:
        self.texts, self.codec = texts, codec

    def set(self, items: Iterable[tuple[str, str | None]]) -> None:  # noqa: ARG002 - refused
        """Refuse: the past cannot be written."""
        msg = "a context as it stood at a version is read-only; set the key in the context itself"
        raise LiteFlowError(msg)

    def update(self, key: str, change: Callable[[str | None], str]) -> str:  # noqa: ARG002 - refused
        """Refuse: the past cannot be written."""
        self.set([])
        raise AssertionError
