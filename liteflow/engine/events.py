"""What happens in a run, as its driver is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from liteflow.executor.invoke import describe
from liteflow.model import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from liteflow.bell import Bell
    from liteflow.engine.attempt import Attempt
    from liteflow.engine.decision import Request
    from liteflow.model import Failure, RunStatus


class Done(NamedTuple):
    """An attempt returned."""

    attempt: Attempt
    output: str
    requests: list[Request]
    join: Request | None = None


class Broke(NamedTuple):
    """An attempt failed; *cause* is the exception itself, *again_in* how long to wait before the next try, if there is one.

    One that *timed_out* may still be at work, and is given up.
    """

    attempt: Attempt
    failure: Failure
    cause: BaseException
    again_in: timedelta | None = None
    timed_out: bool = False


class Checkpoint(NamedTuple):
    """An attempt wants what it wrote so far to be committed, and goes on when *done* rings."""

    attempt: Attempt
    done: Bell


class Step(NamedTuple):
    """An attempt has the result of a step, which is recorded whatever becomes of the attempt; it goes on when *done* rings."""

    attempt: Attempt
    name: str
    text: str
    done: Bell


class Halt(NamedTuple):
    """The run is to stand still in a status, for a reason; what runs is given up if *at_once*, else let finish."""

    status: RunStatus
    reason: str
    at_once: bool


Event = Done | Broke | Checkpoint | Step | Halt | None  # None: look at what others have written, and record what is open


def updated(late: Iterable[Done | Checkpoint], committed: Callable[[str], Value]) -> Iterator[Event]:
    """Apply the updates of attempts that came too late to what is *committed* now, each to what the one before makes of that."""
    fresh: dict[str, Value] = {}

    def newest(key: str) -> Value:
        return fresh.get(key) or committed(key)

    for event in late:
        attempt = event.attempt
        try:
            attempt.reapply(newest)
        except Exception as error:  # noqa: BLE001 - the user's function: it fails this attempt only
            if isinstance(event, Checkpoint):
                attempt.update_error = error
                event.done.ring()
            else:
                yield Broke(attempt, describe(error), error)
            continue
        fresh |= {key: Value(base.version, attempt.own[key]) for key, base in attempt.bases.items()}
        yield event
