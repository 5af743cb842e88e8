"""A registered task, and what its attempts come to."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from liteflow.codec import check_key
from liteflow.context import PortContext
from liteflow.engine.decision import Request
from liteflow.engine.events import Broke, Done
from liteflow.errors import (
    InvalidOptionError,
    LimitExceededError,
    LiteFlowError,
    NotATaskError,
    SerializationError,
    TaskNotFoundError,
    TaskTimeoutError,
    TerminalError,
)
from liteflow.executor.invoke import Body, Raised, describe
from liteflow.model import NextTask, check_span
from liteflow.places import of_inputs, of_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Any

    from liteflow.engine.attempt import Attempt
    from liteflow.executor.invoke import Outcome
    from liteflow.model import Limits, RetryPolicy, TaskOutput


class Task:
    """A function registered under an id.

    Args:
        id: the id.
        action: called as ``fn(ctx)``, or ``fn(ctx, inputs=...)`` if its second parameter is named so; may be ``async``.
        known: the flow's tasks, which what it returns may name.
        retry: how often it is tried.
        timeout: how long one try may take.
        limits: how far a run may go.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a task is
        self, id: str, action: Callable[..., Any], known: Mapping[str, Task], retry: RetryPolicy,  # noqa: A002 - the field's name
        timeout: timedelta | None, limits: Limits,
    ) -> None:  # fmt: skip
        self.id, self.retry, self.timeout, self._known, self._limits = id, retry, timeout, known, limits
        self._call = Body(action)
        self.is_async = self._call.is_async

    def perform(self, attempt: Attempt) -> Done | Broke:
        """Run the task's body as *attempt*; never raise."""
        context = PortContext(attempt.context_id, attempt)
        return self._ended(attempt, self._call(context, lambda: context.inputs))

    async def aperform(self, attempt: Attempt) -> Done | Broke:
        """Run the body of an ``async`` task as *attempt*; never raise."""
        context = PortContext(attempt.context_id, attempt)
        return self._ended(attempt, await self._call.awaited(context, lambda: context.inputs))

    def timed_out(self, attempt: Attempt) -> Broke:
        """Return what has happened when the time of *attempt* is over."""
        error = TaskTimeoutError(attempt.dispatch.key, self.timeout.total_seconds() if self.timeout else 0.0)
        return Broke(attempt, describe(error), error, self._again_in(error, attempt.failures + 1), timed_out=True)

    def _ended(self, attempt: Attempt, outcome: Outcome) -> Done | Broke:
        if isinstance(outcome, Raised):
            return Broke(attempt, outcome.failure, outcome.exception, self._again_in(outcome.exception, attempt.failures + 1))
        try:
            output = self._encode(attempt, attempt.dispatch.key, outcome.output)
            return Done(attempt, output, self._requests(attempt, outcome), self._join(attempt, outcome))
        except LiteFlowError as error:
            return Broke(attempt, describe(error), error)

    def _again_in(self, error: BaseException, failures: int) -> timedelta | None:
        retry = self.retry
        if isinstance(error, TerminalError) or not isinstance(error, retry.retry_on) or failures >= retry.max_attempts:
            return None
        return retry.wait_after(failures, random.random())  # noqa: S311 - spreads load, keeps no secret

    def _requests(self, attempt: Attempt, output: TaskOutput) -> list[Request]:
        wanted: object = output.next_tasks or ()
        if not isinstance(wanted, list | tuple) and (not isinstance(wanted, Iterable) or isinstance(wanted, str)):
            raise NotATaskError(repr(wanted), f"task {self.id} returned it as its next tasks; write [NextTask(...), ...]")
        requests = [self._request(attempt, request) for request in wanted]
        if len(requests) > (most := self._limits.dispatches):
            raise LimitExceededError(f"task {attempt.dispatch.key} asked for {len(requests)} next tasks", "dispatches", most)
        return requests

    def _join(self, attempt: Attempt, output: TaskOutput) -> Request | None:
        return None if output.join is None else self._request(attempt, output.join)

    def _request(self, attempt: Attempt, request: object) -> Request:
        if not isinstance(request, NextTask):
            raise NotATaskError(repr(request), f"task {self.id} returned it among its next tasks; write NextTask(...)")
        if request.id not in self._known:
            raise TaskNotFoundError(request.id, self._known)
        inputs = None
        if request.inputs is not None:
            try:
                inputs = attempt.codec.encode(request.inputs, of_inputs(attempt.run_id))
            except SerializationError as error:
                raise error.at_key(f"inputs of {request.id}") from None
        delay = None if request.delay is None else check_span("delay", request.delay)
        if isinstance(request.wait_for, str):
            raise InvalidOptionError("wait_for", request.wait_for, "is one string; give a list of keys")
        wait_for = tuple(sorted({check_key(key, "Key to wait for") for key in request.wait_for or ()}))
        return Request(request.id, inputs, request.spawn_another, delay, wait_for)

    @staticmethod
    def _encode(attempt: Attempt, key: str, value: object) -> str:
        try:
            return attempt.codec.encode(value, of_key(attempt.context_id, key))
        except SerializationError as error:
            raise error.at_key(key) from None
