"""Calling the function of a task: how it is called, and that whatever comes of it is a value."""

from __future__ import annotations

import asyncio
from functools import partial, wraps
from typing import Any

import pytest

from liteflow.errors import AwaitNeededError, LiteFlowError
from liteflow.executor.invoke import MAX_TEXT, Body, Raised, describe
from liteflow.model import TaskOutput

CTX = object()


def outcome(fn: Any, inputs: Any = None) -> Any:
    return Body(fn)(CTX, lambda: inputs)


class Callable:
    def __call__(self, _ctx, inputs):
        return inputs

    def method(self, _ctx, inputs):
        return inputs


def passing_on(fn):
    @wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "fn",
    [
        lambda _, inputs: inputs,
        lambda _, inputs="unused", _more=0: inputs,
        lambda _, *, inputs: inputs,
        partial(lambda _model, _ctx, inputs: inputs, "a model"),
        passing_on(lambda _, inputs: inputs),
        Callable(),
        Callable().method,
    ],
    ids=["plain", "with a default", "by keyword", "partial", "wrapped", "object", "method"],
)
def test_inputs_are_given_to_a_function_whose_second_parameter_is_named_inputs(fn: Any):
    assert outcome(fn, 42).output == 42
    assert outcome(fn).output is None


@pytest.mark.parametrize("fn", [lambda ctx: ctx, lambda ctx, _more=1, inputs=2: (ctx, inputs)[0], lambda *args: args[0]])
def test_inputs_are_not_even_asked_for_otherwise(fn: Any):
    def inputs():
        raise AssertionError

    assert Body(fn)(CTX, inputs).output is CTX


def test_a_builtin_that_does_not_tell_its_parameters_is_called_with_the_context():
    assert outcome(type).output is object


def test_a_task_output_stays_as_it_is_and_any_other_value_stands_for_one():
    output = TaskOutput(1)

    assert outcome(lambda _: output) is output
    assert outcome(lambda _: (1, None)) == TaskOutput((1, None))
    assert outcome(lambda _: None) == TaskOutput(None)


async def later(ctx):
    return None


async def slowly(ctx):
    yield


class Later:
    async def __call__(self, _ctx):
        return None


@pytest.mark.parametrize("fn", [later, partial(later), Later()])
def test_an_async_function_is_known_as_one_and_awaited(fn: Any):
    body = Body(fn)

    assert body.is_async
    assert asyncio.run(body.awaited(CTX, lambda: None)) == TaskOutput(None)


def generated(_ctx):
    yield


@pytest.mark.parametrize("fn", [slowly, generated])
def test_a_generator_is_refused_with_the_cure(fn: Any):
    with pytest.raises(LiteFlowError, match=r"it yields; put chunks out with ctx.stream\(value\)") as refused:
        Body(fn)

    assert isinstance(refused.value, TypeError)


def test_a_coroutine_that_nobody_awaits_is_an_error_that_says_what_to_write():
    outcome = Body(later)(CTX, lambda: None)

    assert isinstance(outcome.exception, AwaitNeededError)
    assert "`async def`" in outcome.failure.message


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        ("load", "'load' cannot be a task: it is no function"),
        (lambda: None, r"called as fn\(ctx\), but too many positional arguments"),
        (lambda _, rows: rows, r"called as fn\(ctx\), but missing a required argument: 'rows'"),
        (lambda _, inputs, rows: (inputs, rows), r"called as fn\(ctx, inputs=\.\.\.\), but missing a required argument: 'rows'"),
    ],
)
def test_what_cannot_be_called_as_a_task_is_refused_when_it_is_registered(fn: Any, told: str):
    with pytest.raises(LiteFlowError, match=told):
        Body(fn)


# ---------------------------------------------------------------- what a task raises


def raising(error: BaseException) -> Raised:
    def task(ctx):
        raise error

    raised = outcome(task)
    assert isinstance(raised, Raised)
    assert raised.exception is error
    return raised


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError])
def test_whatever_a_task_raises_is_an_outcome(kind: type[BaseException]):
    failure = raising(kind("bad row 7")).failure

    assert (failure.type, failure.message) == (kind.__name__, "bad row 7")


def test_inputs_that_cannot_be_read_fail_the_task():
    def inputs():
        raise LookupError("gone")

    assert isinstance(Body(lambda _, inputs: inputs)(CTX, inputs).exception, LookupError)


class Custom(Exception):  # noqa: N818 - its name is told, whatever it ends with
    pass


class Mute(Exception):  # noqa: N818 - as above
    def __str__(self):
        raise SystemExit

    __repr__ = __str__


class Frozen(Exception):  # noqa: N818 - as above
    def __setattr__(self, name, value):
        raise AttributeError(name)


def test_the_type_is_told_with_its_module():
    assert raising(Custom()).failure.type == f"{__name__}.Custom"


def test_the_traceback_begins_in_the_task_and_shows_notes_and_causes():
    error = Custom("bad row 7")
    error.add_note("of file rows.csv")
    error.__cause__ = ZeroDivisionError("no rows")

    shown = raising(error).failure.traceback

    assert "in task\n" in shown
    assert "liteflow" not in shown.replace(__file__, "")
    assert "of file rows.csv" in shown
    assert "ZeroDivisionError: no rows" in shown


def test_an_exception_that_cannot_even_tell_what_it_is_still_fails_as_one():
    failure = raising(Mute()).failure

    assert failure.message == "<no message: its __str__ raised SystemExit>"
    assert "Mute" in failure.traceback


def test_an_exception_that_cannot_be_changed_is_an_outcome():
    assert raising(Frozen("cold")).failure.message == "cold"


def test_text_is_such_as_any_database_keeps():
    failure = describe(ValueError("a\0b \ud800 é"))

    assert failure.message == r"a\x00b \ud800 é"
    assert "\0" not in failure.traceback
    failure.traceback.encode()


def test_of_very_long_text_the_middle_is_left_out():
    message = describe(ValueError("begin" + "x" * 10 * MAX_TEXT + "end")).message

    assert len(message) < MAX_TEXT + 100
    assert message.startswith("begin")
    assert message.endswith("end")
    assert "characters left out" in message
