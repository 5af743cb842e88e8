"""What LiteFlow tells about itself: records of the standard ``logging``, quiet until somebody listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import MutableMapping

logger = logging.getLogger("liteflow")
logger.addHandler(logging.NullHandler())


class TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry ``run_id``, ``task`` and ``attempt``, and begin with them."""

    def __init__(self, run_id: str, task: str, attempt: int) -> None:
        super().__init__(logging.getLogger("liteflow.task"), {"run_id": run_id, "task": task, "attempt": attempt})
        self._prefix = f"[{run_id} {task} attempt {attempt}] "

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:  # noqa: ANN401 - logging's own
        """Put the facts before the message and on the record, beside what the caller adds."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return _Prefixed(self._prefix, str(msg)), kwargs


class _Prefixed(str):
    """A message behind a prefix in which ``%`` is plain text."""

    __slots__ = ("message", "prefix")
    prefix: str
    message: str

    def __new__(cls, prefix: str, message: str) -> Self:
        text = super().__new__(cls, prefix + message)
        text.prefix, text.message = prefix, message
        return text

    def __str__(self) -> str:
        """Stay what it is: `logging` asks for this, then formats it."""
        return self

    def __mod__(self, arguments: Any) -> str:  # noqa: ANN401 - logging's own
        """Put *arguments* into the message."""
        return f"{self.prefix}{self.message % arguments}"
