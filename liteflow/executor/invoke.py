"""How the function of a task is called: decided once, and what comes of a call is a value, never an exception."""

from __future__ import annotations

import inspect
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from liteflow.errors import AwaitNeededError, NotATaskError
from liteflow.model import Failure, TaskOutput

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT = 64_000  # characters of a message or a traceback

# An annotation may name what is imported for type checkers only, and from Python 3.14 on asking for it would look it up.
_UNEVALUATED: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    _UNEVALUATED["annotation_format"] = Format.FORWARDREF


class Raised(NamedTuple):
    """A task's function raised.

    Attributes:
        exception: what it raised, of any class: ``SystemExit`` and ``KeyboardInterrupt`` too are failures of the task only.
        failure: the same as text.
    """

    exception: BaseException
    failure: Failure


Outcome = TaskOutput | Raised


class Body:
    """The function of a task, and how to call it, given its context and a way to get its inputs; a call never raises.

    It is called as ``fn(ctx)``, or as ``fn(ctx, inputs=...)`` if its second parameter is named ``inputs``; only then are the
    inputs asked for. What it returns is its ``TaskOutput``, or stands for the ``output`` of one.

    Attributes:
        is_async: whether the function is ``async``, and so to be `awaited`.

    Raises:
        NotATaskError: *fn* cannot be called like this.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn, self._takes_inputs, self.is_async = fn, _takes_inputs(fn), _is_async(fn)

    def __call__(self, context: Any, inputs: Callable[[], Any]) -> Outcome:  # noqa: ANN401 - a Context, but nothing here depends on it
        """Call a plain function."""
        try:
            output = self._fn(context, inputs=inputs()) if self._takes_inputs else self._fn(context)
            if hasattr(type(output), "__await__"):
                _refuse_awaitable(output)
        except BaseException as error:  # noqa: BLE001 - none may end a thread of an executor
            return _raised(error)
        return output if isinstance(output, TaskOutput) else TaskOutput(output)

    async def awaited(self, context: Any, inputs: Callable[[], Any]) -> Outcome:  # noqa: ANN401 - as above
        """Call an ``async`` function, and wait for its end."""
        try:
            output = await (self._fn(context, inputs=inputs()) if self._takes_inputs else self._fn(context))
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop that all async tasks share
            return _raised(error)
        return output if isinstance(output, TaskOutput) else TaskOutput(output)


def _raised(error: BaseException) -> Raised:
    frames = error.__traceback__
    BaseException.with_traceback(error, frames and frames.tb_next)  # begins in the task, not here
    return Raised(error, describe(error))


def _refuse_awaitable(output: Any) -> NoReturn:  # noqa: ANN401 - whatever can be awaited
    if inspect.iscoroutine(output):
        output.close()  # or Python would warn that it was never awaited
    raise AwaitNeededError(
        f"the task returned a {type(output).__name__} that nobody awaits", "`async def` for the task, and `return await ...`"
    )


def _is_async(fn: Callable[..., Any]) -> bool:
    return any(inspect.iscoroutinefunction(body) for body in (fn, type(fn).__call__))  # an object may have an async __call__


def _takes_inputs(fn: Callable[..., Any]) -> bool:
    """Return whether *fn* is to be called with its inputs; refuse what cannot be called as a task."""
    name = getattr(fn, "__qualname__", None) or repr(fn)
    if not callable(fn):
        raise NotATaskError(name, "it is no function; give one that takes the context")
    for body in (fn, type(fn).__call__):
        if inspect.isasyncgenfunction(body) or inspect.isgeneratorfunction(body):
            raise NotATaskError(name, "it yields; put chunks out with ctx.stream(value), and return the output")
    try:
        names = list(inspect.signature(fn, **_UNEVALUATED).parameters)
        called = inspect.signature(fn, follow_wrapped=False, **_UNEVALUATED)
    except (TypeError, ValueError):  # some builtins do not tell
        return False
    takes_inputs = names[1:2] == ["inputs"]
    try:
        called.bind(None, **({"inputs": None} if takes_inputs else {}))
    except TypeError as error:
        form = "fn(ctx, inputs=...)" if takes_inputs else "fn(ctx)"
        raise NotATaskError(name, f"it is to be called as {form}, but {error}") from None
    return takes_inputs


def describe(error: BaseException) -> Failure:
    """Return an exception as text that any database can keep, also when its ``__str__`` raises."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001 - it is the user's code
        message = f"<no message: its __str__ raised {type(broken).__name__}>"
    try:
        shown = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - as above, in its notes and causes
        shown = f"{name}: {message}\n"
    return Failure(name, _storable(message), _storable(shown))


def _storable(text: str) -> str:
    """Return *text* without what a database refuses, and without the middle if it is very long."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
