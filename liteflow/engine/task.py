"""A registered task, and what its attempts come to."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from liteflow.codec import encode
from liteflow.context import PortContext
from liteflow.engine.decision import Request
from liteflow.engine.events import Broke, Done
from liteflow.errors import LiteFlowError, NotATaskError, SerializationError, TaskNotFoundError, TerminalError
from liteflow.executor.invoke import Raised, bind, describe
from liteflow.model import NextTask, check_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from typing import Any

    from liteflow.engine.attempt import Attempt
    from liteflow.model import RetryPolicy, TaskOutput


class Task:
    """A function registered under an id.

    Args:
        id: the id.
        action: called as ``fn(ctx)``, or ``fn(ctx, inputs=...)`` if its second parameter is named so.
        known: the flow's tasks, which what it returns may name.
        retry: how often it is tried.
    """

    def __init__(self, id: str, action: Callable[..., Any], known: Mapping[str, Task], retry: RetryPolicy) -> None:  # noqa: A002 - the field's name
        self.id, self.retry, self._call, self._known = id, retry, bind(action), known

    def perform(self, attempt: Attempt) -> Done | Broke:
        """Run the task's body as *attempt*; never raise."""
        context = PortContext(attempt.run_id, attempt)
        outcome = self._call(context, lambda: context.inputs)
        if isinstance(outcome, Raised):
            return Broke(attempt, outcome.failure, outcome.exception, self._again_in(outcome.exception, attempt.failures + 1))
        try:
            return Done(attempt, self._encode(attempt.dispatch.key, outcome.output), self._requests(outcome))
        except LiteFlowError as error:
            return Broke(attempt, describe(error), error)

    def _again_in(self, error: BaseException, failures: int) -> timedelta | None:
        retry = self.retry
        if isinstance(error, TerminalError) or not isinstance(error, retry.retry_on) or failures >= retry.max_attempts:
            return None
        return retry.wait_after(failures, random.random())  # noqa: S311 - spreads load, keeps no secret

    def _requests(self, output: TaskOutput) -> list[Request]:
        requests = []
        wanted: Iterable[object] = output.next_tasks or ()
        for request in wanted:
            if not isinstance(request, NextTask):
                raise NotATaskError(repr(request), f"task {self.id} returned it among its next tasks; write NextTask(...)")
            if request.id not in self._known:
                raise TaskNotFoundError(request.id, self._known)
            inputs = None if request.inputs is None else self._encode(f"inputs of {request.id}", request.inputs)
            delay = None if request.delay is None else check_span("delay", request.delay)
            requests.append(Request(request.id, inputs, request.spawn_another, delay))
        return requests

    @staticmethod
    def _encode(key: str, value: object) -> str:
        try:
            return encode(value)
        except SerializationError as error:
            raise error.at_key(key) from None
