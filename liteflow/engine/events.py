"""What happens in a run, as its driver is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from liteflow.executor.invoke import describe
from liteflow.model import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from liteflow.engine.attempt import Attempt
    from liteflow.engine.decision import Request
    from liteflow.model import Failure, RunStatus


class Done(NamedTuple):
    """An attempt returned."""

    attempt: Attempt
    output: str
    requests: list[Request]


class Broke(NamedTuple):
    """An attempt failed; *cause* is the exception itself, *again_in* how long to wait before the next try, if there is one."""

    attempt: Attempt
    failure: Failure
    cause: BaseException
    again_in: timedelta | None = None


class Halt(NamedTuple):
    """The run is to stand still in a status, for a reason; what runs is given up if *at_once*, else let finish."""

    status: RunStatus
    reason: str
    at_once: bool


Event = Done | Broke | Halt | None  # None: look at what others have written, and record what is open


def updated(late: Iterable[Done], committed: Callable[[str], Value]) -> Iterator[Event]:
    """Apply the updates of attempts that came too late to what is *committed* now, each to what the one before makes of that."""
    fresh: dict[str, Value] = {}

    def newest(key: str) -> Value:
        return fresh.get(key) or committed(key)

    for event in late:
        attempt = event.attempt
        try:
            attempt.reapply(newest)
        except Exception as error:  # noqa: BLE001 - the user's function: it fails this attempt only
            yield Broke(attempt, describe(error), error)
            continue
        fresh |= {key: Value(base.version, attempt.own[key]) for key, base in attempt.bases.items()}
        yield event
