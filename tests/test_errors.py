"""The error tree: each member has a code, a page, facts that cross processes, and a message that helps."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import errors
from liteflow.errors import LiteFlowError
from liteflow.model import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
SECTION = re.compile(r"^## (LF\d{3}) `(\w+)`\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
FAILURE = Failure("builtins.ValueError", "bad row 7", "Traceback ...\nValueError: bad row 7\n")
RUN = "0193f0aa-run"
STORE = "sqlite:///jobs.db"

# Each error as the engine makes it, the thing its message must name, and the cure it must offer.
SAMPLES: list[tuple[LiteFlowError, str, str]] = [
    (LiteFlowError("the engine is closed; make a new Flow"), "engine", "make a new Flow"),
    (errors.TaskNotFoundError("lod", ["load", "train"]), "Task lod not found", "did you mean 'load'?"),
    (errors.ContextKeyError("rows"), "rows", "not found in context"),
    (errors.ContextBusyError("user-42", RUN), "user-42", f"flow.get_run({RUN!r}).wait()"),
    (errors.DeadlockError("total", {"reduce": "total"}), "reduce waits for total", "ctx.get(key, None)"),
    (errors.GetTimeoutError("Key rows", 2.5), "Key rows", "wait longer"),
    (errors.NotATaskError("lambda", "it is no function; give one that takes the context"), "lambda", "give one"),
    (errors.AwaitNeededError("ctx.get in an async task would stop all others", "`await ctx.aget(...)`"), "ctx.get", "aget"),
    (errors.LimitExceededError("task a asked for 5 next tasks", "dispatches", 4), "more than 4", "Limits(dispatches=...)"),
    (errors.ConflictError("a#2"), "Task a#2", "run again on fresh values"),
    (errors.InvalidOptionError("max_attempts", 0, "counts the first try; give at least 1"), "max_attempts=0", "at least 1"),
    (errors.InvalidKeyError("Context key", "", "is empty; use at least one character"), "Context key ''", "at least one"),
    (errors.TaskFailedError("load", "load#2", RUN, FAILURE), "Task load#2", f"flow.resume({RUN!r})"),
    (errors.TaskTimeoutError("load#2", 30), "load#2", "30 s"),
    (errors.WorkerLostError("load", "killed by signal 9"), "load", "killed by signal 9"),
    (errors.RunCancelledError(RUN, "cancelled by its caller"), RUN, "cancelled by its caller"),
    (errors.TerminalError("the card was refused"), "card", "refused"),
    (errors.RunNotFoundError(RUN, STORE), RUN, "flow.runs()"),
    (errors.RunConflictError(RUN, "began with other inputs; use another run_id"), RUN, "use another run_id"),
    (errors.LeaseLostError(RUN), RUN, f"flow.get_run({RUN!r}).wait()"),
    (errors.RunPausedError(RUN, "interrupted by Ctrl-C"), RUN, f"flow.resume({RUN!r})"),
    (
        errors.SerializationError("a socket cannot be stored", key="rows", path=".items[3]", type_name="socket.socket"),
        "rows at .items[3]",
        "cannot",
    ),
    *(
        (kind(STORE, "the disk is full", "free some space"), STORE, "free some space")
        for kind in (
            errors.StoreError,
            errors.SchemaTooNewError,
            errors.SchemaOutdatedError,
            errors.StoreUnavailableError,
            errors.StoreFullError,
            errors.StoreReadOnlyError,
            errors.StoreCorruptError,
        )
    ),
]


def _tree(root: type[LiteFlowError]) -> Iterator[type[LiteFlowError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)


KINDS = [kind for kind in _tree(LiteFlowError) if kind.__module__ == errors.__name__]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
each_sample = pytest.mark.parametrize(
    ("error", "thing", "cure"), [pytest.param(*sample, id=sample[0].code) for sample in SAMPLES]
)


def test_there_is_a_sample_of_each_error():
    assert {type(error) for error, _, _ in SAMPLES} == set(KINDS)


def test_no_two_errors_share_a_code():
    codes = [kind.__dict__.get("code") for kind in KINDS]

    assert None not in codes
    assert len(set(codes)) == len(codes)


@each_kind
def test_an_error_stands_in_the_drawn_tree_with_its_code(kind: type[LiteFlowError]):
    assert re.search(rf"{kind.__name__} +{kind.code}\b", errors.__doc__ or "")


@each_kind
def test_an_error_has_a_page_that_says_when_and_what_to_do(kind: type[LiteFlowError]):
    pages = {code: (name, text) for code, name, text in SECTION.findall(PAGE.read_text(encoding="utf-8"))}

    name, text = pages[kind.code]

    assert name == kind.__name__
    assert re.search(r"\*\*When\.\*\* \S+", text)
    assert re.search(r"\*\*What to do\.\*\* \S+", text)


def test_no_page_describes_an_error_that_is_gone():
    described = {code for code, _, _ in SECTION.findall(PAGE.read_text(encoding="utf-8"))}

    assert described == {kind.code for kind in KINDS}


@each_sample
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_processes_with_all_its_facts(error: LiteFlowError, thing: str, cure: str, protocol: int):
    crossed = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own pickle of a moment ago

    assert type(crossed) is type(error)
    assert str(crossed) == str(error)
    assert crossed.args == error.args
    assert vars(crossed) == vars(error)


@each_sample
def test_a_note_on_an_error_crosses_with_it(error: LiteFlowError, thing: str, cure: str):
    noted = copy.copy(error)
    noted.add_note("seen by the tests")

    assert pickle.loads(pickle.dumps(noted)).__notes__ == ["seen by the tests"]  # noqa: S301 - our own pickle


@each_sample
def test_a_message_names_the_thing_and_the_cure(error: LiteFlowError, thing: str, cure: str):
    assert thing in str(error)
    assert cure in str(error)


@each_sample
def test_a_message_is_one_sentence_on_one_line(error: LiteFlowError, thing: str, cure: str):
    assert "\n" not in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.TaskNotFoundError, LookupError),
        (errors.ContextKeyError, KeyError),
        (errors.GetTimeoutError, TimeoutError),
        (errors.InvalidKeyError, ValueError),
        (errors.RunNotFoundError, LookupError),
        (errors.SerializationError, TypeError),
        (errors.StoreError, LiteFlowError),
    ],
)
def test_an_error_is_caught_by_the_builtin_name_that_people_know(kind: type[Exception], builtin: type[Exception]):
    assert issubclass(kind, builtin)


def test_a_task_that_the_flow_lacks_is_met_with_the_ones_it_has_when_none_is_near():
    assert str(errors.TaskNotFoundError("zzz", ["train", "load"])).endswith("this flow has: load, train")
    assert str(errors.TaskNotFoundError("zzz")).endswith("this flow has no tasks")


def test_a_missing_key_is_told_without_the_quotes_of_a_key_error():
    assert str(errors.ContextKeyError("rows")) == "Key rows not found in context"


def test_an_interrupted_run_that_holds_a_context_is_to_be_resumed_not_waited_for():
    message = str(errors.ContextBusyError("user-42", RUN, interrupted=True))

    assert f"flow.resume({RUN!r})" in message
    assert ".wait()" not in message


def test_a_long_key_is_cut_in_the_message():
    assert len(str(errors.InvalidKeyError("Context key", "k" * 10_000, "is too long"))) < 200


def test_a_value_that_cannot_be_stored_can_be_told_under_its_key_later():
    error = errors.SerializationError("a socket cannot be stored", path="[0]", type_name="socket.socket")

    named = error.at_key("rows")

    assert (named.key, named.path, named.type_name) == ("rows", "[0]", "socket.socket")
    assert "key rows at [0]" in str(named)
