"""An exception in a task fails the attempt, then the run; what completed is kept, and resume runs only the rest (R8)."""

from __future__ import annotations

import sys
import threading
import traceback

import pytest

from liteflow import Context, Flow, NextTask, TaskFailedError, TaskNotFoundError, TaskOutput
from tests.features.children import output_of
from tests.features.records import rows
from tests.features.waiting import passes, until


class TwoArgumentsError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("mute")


def failure_of(flow: Flow, error: BaseException) -> TaskFailedError:
    """Let a task raise *error*; return what the run raises."""

    @flow.task("fail")
    def fail(ctx: Context):
        raise error

    with pytest.raises(TaskFailedError) as failed:
        flow.run("fail", run_id="r")
    return failed.value


def test_the_run_raises_from_the_tasks_own_exception(flow: Flow):
    cause = ValueError("no")

    error = failure_of(flow, cause)

    assert error.__cause__ is cause
    assert (error.task_id, error.key, error.run_id, error.cause_type) == ("fail", "fail", "r", "ValueError")


def test_the_message_names_the_task_the_run_the_cause_and_how_to_go_on(flow: Flow):
    message = str(failure_of(flow, ValueError("no")))

    assert message.startswith("Task fail of run r failed with ValueError: no;")
    assert "flow.resume('r')" in message


def test_the_traceback_as_text_begins_in_the_task_and_ends_with_the_exception(flow: Flow):
    error = ValueError("no")
    error.add_note("a note")

    text = failure_of(flow, error).traceback

    assert text.startswith("Traceback (most recent call last):\n")
    assert "in fail\n    raise error" in text
    assert text.endswith("ValueError: no\na note\n")
    assert "invoke.py" not in text


def test_an_exception_is_stored_as_text_and_known_to_another_process(flow: Flow, store: str):
    failure_of(flow, ValueError("no"))

    (row,) = rows(store, "SELECT status, error_type, error_message, traceback FROM attempts")
    printed = output_of(
        """
        import sys
        from liteflow import Flow, TaskFailedError

        run = Flow(store=sys.argv[1]).get_run("r")
        print(run.status, run.reason)
        try:
            run.result(5)
        except TaskFailedError as error:
            print(error, error.__cause__, error.traceback == run.error.traceback, sep="|")
        print(run.tasks()[0].error.message)
        """,
        store,
    )

    assert row[:3] == ("failed", "ValueError", "no")
    assert row[3].endswith("ValueError: no\n")
    assert printed[0] == "failed task fail failed with ValueError: no"
    assert printed[1].startswith("Task fail of run r failed with ValueError: no;")
    assert printed[1].endswith("|None|True")
    assert printed[2] == "no"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration(1), "StopIteration: 1"),
        (MuteError(), "MuteError: <no message: its __str__ raised RuntimeError>"),
        (TwoArgumentsError(7, "no"), "TwoArgumentsError: (7, 'no')"),
        (ExceptionGroup("many", [ValueError("no")]), "ExceptionGroup: many (1 sub-exception)"),
        (ValueError("a\0b \ud800"), r"ValueError: a\x00b \ud800"),
        (ValueError("x" * 1_000_000), "characters left out"),
    ],
    ids=["exit", "interrupt", "generator", "stop", "mute", "two arguments", "group", "bad text", "long text"],
)
def test_whatever_a_task_raises_is_a_failure_of_that_task_only(flow: Flow, error: BaseException, text: str):
    assert text in str(failure_of(flow, error))

    flow.add_task("fail", lambda ctx: "mended")
    assert flow.run("fail", run_id="r") == {"fail": "mended"}


def test_a_failed_stream_raises_after_its_last_chunk(flow: Flow):
    chunks = []
    flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("fail")]))
    flow.add_task("fail", lambda ctx: 1 / 0)

    with pytest.raises(TaskFailedError, match="ZeroDivisionError"):
        chunks.extend(flow.stream("first"))

    assert [chunk.value for chunk in chunks] == ["done"]


def test_those_that_were_running_are_let_finish_and_nothing_new_starts(flow: Flow):
    running, failed, ran = threading.Event(), threading.Event(), []
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("slow"), NextTask("fail")]))

    @flow.task("fail")
    def fail(ctx: Context):
        passes(running)
        raise ValueError("no")

    @flow.task("slow")
    def slow(ctx: Context):
        ran.append("slow")
        running.set()
        if ctx.attempt == 1:
            passes(failed)
        ctx.set("kept", 1)
        return TaskOutput("slow", [NextTask("next")])

    flow.add_task("next", lambda ctx: ran.append("next"))
    run = flow.start("fan")
    passes(running)
    until(lambda: any(record.status == "failed" for record in run.tasks()))
    assert run.status == "running"  # as long as one runs
    failed.set()

    with pytest.raises(TaskFailedError, match="Task fail "):
        run.result(20)
    assert run.context.get("kept") == 1
    assert {record.key: str(record.status) for record in run.tasks()} == {
        "fan": "completed", "slow": "completed", "fail": "failed", "next": "pending"
    }  # fmt: skip
    assert ran == ["slow"]


def test_resume_runs_only_what_did_not_complete(flow: Flow):
    ran, broken = [], [True]
    flow.add_task("first", lambda ctx: ran.append("first") or TaskOutput(1, [NextTask("second")]))

    @flow.task("second")
    def second(ctx: Context):
        ran.append("second")
        if broken:
            raise ValueError("no")
        return TaskOutput(2, [NextTask("third")])

    flow.add_task("third", lambda ctx: ran.append("third") or [ctx.get("first"), ctx.get("second")])
    with pytest.raises(TaskFailedError) as failed:
        flow.run("first")
    broken.clear()

    run = flow.resume(failed.value.run_id)

    assert run.result(20) == {"third": [1, 2]}
    assert ran == ["first", "second", "second", "third"]
    assert (run.status, run.reason, run.error) == ("completed", None, None)


def test_a_run_that_fails_again_says_so_and_can_be_resumed_again(flow: Flow):
    messages = iter(["one", "two"])

    @flow.task("fail")
    def fail(ctx: Context):
        for message in messages:
            raise ValueError(message)
        return "done"

    run = flow.start("fail")
    with pytest.raises(TaskFailedError, match="ValueError: one"):
        run.result(20)
    with pytest.raises(TaskFailedError, match="ValueError: two"):
        flow.resume(run.id).result(20)

    assert flow.resume(run.id).result(20) == {"fail": "done"}
    assert [record.attempts for record in run.tasks()] == [3]


def test_a_failed_run_does_not_hold_its_context(flow: Flow):
    failure_of(flow, ValueError("no"))
    flow.add_task("other", lambda ctx: 1)

    assert flow.run("other") == {"other": 1}


def test_an_unknown_task_at_start_is_named_with_the_nearest_one_and_starts_nothing(flow: Flow):
    flow.add_task("train", lambda ctx: 1)

    for start in (flow.run, flow.start, flow.stream):
        with pytest.raises(TaskNotFoundError, match="^Task trian not found; did you mean 'train'?") as unknown:
            start("trian", {"a": 1})
    assert unknown.value.known == ("train",)
    assert isinstance(unknown.value, LookupError)
    assert flow.runs() == []
    assert flow.context.to_dict() == {}


def test_a_dispatch_of_an_unknown_task_fails_the_attempt_that_made_it(flow: Flow):
    flow.add_task("fan", lambda ctx: TaskOutput(1, [NextTask("nxt")]))
    flow.add_task("next", lambda ctx: 1)

    with pytest.raises(TaskFailedError, match="Task nxt not found; did you mean 'next'?") as failed:
        flow.run("fan")

    assert isinstance(failed.value.__cause__, TaskNotFoundError)
    flow.add_task("nxt", lambda ctx: 2)
    assert flow.resume(failed.value.run_id).result(20) == {"nxt": 2}


def test_a_failure_of_one_run_does_not_touch_another(flow: Flow):
    began, failed = threading.Event(), threading.Event()
    flow.add_task("good", lambda ctx: began.set() or passes(failed) or "good")
    flow.add_task("bad", lambda ctx: 1 / 0)
    good = flow.start("good")
    passes(began)

    with pytest.raises(TaskFailedError):
        flow.start("bad").result(20)
    failed.set()

    assert good.result(20) == {"good": "good"}


def test_the_error_shows_the_line_of_the_task_when_printed(flow: Flow):
    error = failure_of(flow, ValueError("no"))

    shown = "".join(traceback.format_exception(error))

    assert "raise error" in shown
    assert "The above exception was the direct cause" in shown
    assert sys.exc_info() == (None, None, None)
