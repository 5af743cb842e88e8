"""What the bodies of simulated tasks are made of."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from liteflow.engine.state import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

WAIT = object()
MINUTE = timedelta(minutes=1)

# ---------------------------------------------------------------- what a body may do


class Get(NamedTuple):
    key: str
    default: object = WAIT


class Set(NamedTuple):
    key: str
    value: object


class Check(NamedTuple):
    """Have the writes so far committed."""


class Once(NamedTuple):
    """A step: its result tells it from every other time that it is run."""

    name: str


class Fail(NamedTuple):
    """Raise, in the first attempts, an error after which there is another."""

    times: int


class Joined(NamedTuple):
    """Get the outputs that the task was dispatched to join, ``None`` if it is no join."""


class Program(NamedTuple):
    """Task bodies, each a generator of what it does, and what these keys hold in the end; it begins with `start`.

    A body returns its output, what it asks to run next, and perhaps a join. *signals* are what is set from outside, *before* is
    what the context held when the run began, *shows* is what must be seen in many of its runs.
    """

    bodies: dict[str, Any]
    ends: dict[str, object]
    signals: dict[str, object] = {}  # noqa: RUF012 - a default of a named tuple, which nobody changes
    before: dict[str, object] = {}  # noqa: RUF012 - as above
    shows: tuple[str, ...] = ()


# ---------------------------------------------------------------- bodies


def body(*requests: Request, output: object = None, steps: Iterable[object] = (), join: Request | None = None):
    def run(_inputs: str | None):
        for step in steps:  # noqa: UP028 - a list takes no answers
            yield step
        return output, list(requests), join

    return run


def adding(key: str, *requests: Request, steps: Iterable[object] = ()):
    """A task that adds its inputs to a key."""

    def run(inputs: str | None):
        for step in steps:  # noqa: UP028 - a list takes no answers
            yield step
        yield Set(key, (yield Get(key, 0)) + int(inputs or 0))
        return inputs, list(requests)

    return run


def reading(*keys: str, default: object = WAIT, steps: Iterable[object] = ()):
    """A task whose output is what it reads."""

    def run(_inputs: str | None):
        for step in steps:  # noqa: UP028 - a list takes no answers
            yield step
        values = {}
        for key in keys:
            values[key] = yield Get(key, default)
        return list(values.values()), []

    return run


def summing(key: str):
    """A join that adds what it finds to a key."""

    def run(_inputs: str | None):
        total = sum((yield Joined()))
        yield Set(key, (yield Get(key, 0)) + total)
        return total, []

    return run


def number(inputs: str):
    yield Set("numbers", (yield Get("numbers", 0)) + 1)
    return int(inputs), []


def many(task: str, inputs: Iterable[object]) -> list[Request]:
    return [Request(task, str(value), spawn_another=True) for value in inputs]
