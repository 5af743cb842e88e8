"""What happens in a run, as its driver is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
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
