"""Bad input: one clear error of ours that names the thing and the cure; nothing recorded is lost or half-written."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from liteflow import Context, Flow, InvalidKeyError, LiteFlowError, NextTask, SerializationError, TaskFailedError, TaskOutput
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import passes

if TYPE_CHECKING:
    from collections.abc import Callable

# ---------------------------------------------------------------- keys

BAD_KEYS = {
    "a number": 7,
    "none": None,
    "bytes": b"a",
    "empty": "",
    "NUL": "a\0b",
    "513 bytes": "x" * 513,
    "513 bytes in 257 letters": "é" * 256 + "x",
    "a lone surrogate": "\ud800",
}
CALLS: dict[str, Callable[[Context, Any], object]] = {
    "get": lambda context, key: context.get(key),
    "get with a default": lambda context, key: context.get(key, None),
    "set": lambda context, key: context.set(key, 1),
    "update": lambda context, key: context.update(key, lambda value: value, default=1),
    "in": lambda context, key: key in context,
    "from_dict": lambda context, key: context.from_dict({"good": 1, key: 2}),
    "history": lambda context, key: context.history(key),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused_with_its_name_and_the_cure_and_nothing_is_written(flow: Flow, key: object, call):
    for context in (Context(), flow.context):
        with pytest.raises(InvalidKeyError, match="^Context key ") as refused:
            call(context, key)
        assert refused.value.value == repr(key)[:80]
        assert isinstance(refused.value, ValueError)
        assert context.to_dict() == {}

    @flow.task("bad")
    def bad(ctx: Context):
        ctx.set("before", 1)
        call(ctx, key)

    with pytest.raises(TaskFailedError, match="InvalidKeyError: Context key "):
        flow.run("bad")
    assert flow.context.to_dict() == {}


@pytest.mark.parametrize("key", ["x" * 512, "é" * 256, "with space", "a#2", "'; DROP TABLE runs; --", "%s :name ?", "🙂"])
def test_any_other_key_is_good(flow: Flow, key: str):
    flow.add_task("write", lambda ctx: ctx.set(key, 1) or ctx.get(key))

    assert flow.run("write", {key: 0}) == {"write": 1}
    assert flow.context.get(key) == 1
    assert [version.value for version in flow.context.history(key)] == [0, 1]


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_inputs_with_a_bad_key_start_nothing(flow: Flow, store: str, key: object):
    flow.add_task("a", lambda ctx: 1)

    with pytest.raises(InvalidKeyError, match="^Context key "):
        flow.run("a", {"good": 1, key: 2})
    assert flow.context.to_dict() == {}
    assert flow.runs() == []


@pytest.mark.parametrize("name", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_name_of_a_flow_or_a_context_is_refused(name: object):
    with pytest.raises(InvalidKeyError, match="^Flow name "):
        Flow(name=name)
    if name is not None:
        with pytest.raises(InvalidKeyError, match="^Context id "):
            Context(name)


# ---------------------------------------------------------------- values


class Thing:
    """Something that cannot be stored."""


def test_an_unstorable_value_from_outside_is_refused_and_nothing_is_written(flow: Flow):
    flow.context.set("a", "before")

    for write in (lambda: flow.context.set("a", Thing()), lambda: flow.context.update("a", lambda _: Thing())):
        with pytest.raises(SerializationError) as refused:
            write()
        assert refused.value.key == "a"
        assert "Thing" in refused.value.type_name
        assert "liteflow.register" in str(refused.value)
    with pytest.raises(SerializationError):
        flow.context.from_dict({"b": 1, "c": [Thing()]})

    assert flow.context.to_dict() == {"a": "before"}


def test_unstorable_inputs_start_nothing(flow: Flow):
    flow.add_task("a", lambda ctx: 1)

    with pytest.raises(SerializationError) as refused:
        flow.run("a", {"good": 1, "bad": {"deep": [0, Thing()]}})

    assert (refused.value.key, refused.value.path) == ("bad", ".deep[1]")
    assert flow.runs() == []
    assert flow.context.to_dict() == {}


@pytest.mark.parametrize(
    "act",
    [
        lambda ctx: ctx.set("a", Thing()),
        lambda ctx: ctx.stream(Thing()),
        lambda ctx: Thing(),
        lambda ctx: TaskOutput(1, [NextTask("fine", Thing())]),
    ],
    ids=["set", "stream", "output", "inputs of a dispatch"],
)
def test_an_unstorable_value_of_a_task_fails_it_and_the_run_goes_on_once_that_is_mended(flow: Flow, act):
    flow.add_task("fine", lambda ctx: "fine")
    flow.add_task("bad", lambda ctx: ctx.set("before", 1) or act(ctx))

    with pytest.raises(TaskFailedError, match=r"SerializationError: .*Thing") as failed:
        flow.run("bad")
    assert flow.context.to_dict() == {}

    flow.add_task("bad", lambda ctx: "mended")
    assert flow.resume(failed.value.run_id).result(20) == {"bad": "mended"}


def test_a_value_that_contains_itself_is_refused(flow: Flow):
    circle: list[object] = []
    circle.append(circle)

    with pytest.raises(SerializationError):
        flow.context.set("a", circle)


# ---------------------------------------------------------------- what makes no sense


@pytest.mark.parametrize("inputs", [[1], "text", 7, {1, 2}], ids=repr)
def test_inputs_of_a_run_that_are_no_mapping_are_refused(flow: Flow, inputs: object):
    flow.add_task("a", lambda ctx: 1)

    with pytest.raises(LiteFlowError, match="inputs"):
        flow.run("a", inputs)
    assert flow.runs() == []


@pytest.mark.parametrize("context", ["user-42", {"a": 1}, 7], ids=repr)
def test_what_is_no_context_is_refused_with_the_way_to_make_one(flow: Flow, context: object):
    flow.add_task("a", lambda ctx: 1)

    with pytest.raises(LiteFlowError, match="Context\\("):
        flow.run("a", context=context)
    with pytest.raises(LiteFlowError, match="Context\\("):
        Flow(context=context)


@pytest.mark.parametrize("executor", ["threads", 4, threading.Thread], ids=repr)
def test_what_cannot_run_tasks_is_refused_as_executor(executor: object):
    with pytest.raises(LiteFlowError, match="cannot run tasks; give PoolExecutor"):
        Flow(executor)


def test_a_flow_without_tasks_says_so(flow: Flow):
    with pytest.raises(LiteFlowError, match="^Task a not found; this flow has no tasks"):
        flow.run("a")


def test_what_is_there_inside_a_task_only_says_so_outside(flow: Flow):
    for ask in (lambda: flow.context.run_id, lambda: flow.context.stream(1), lambda: flow.context.logger):
        with pytest.raises(LiteFlowError, match="inside a task only"):
            ask()


# ---------------------------------------------------------------- closed streams

CLOSED = """
import os, sys, threading
from liteflow import Flow, TaskFailedError

flow = Flow(store=sys.argv[1])
sys.{stream}.close()

@flow.task("print")
def task(ctx):
    ctx.set("a", 1)
    print("hello", file=sys.{stream})

try:
    flow.run("print", run_id="r")
except TaskFailedError as error:
    os._exit(7 if "I/O operation on closed file" in str(error) else 8)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_task_that_prints_to_a_closed_stream_fails_like_any_other(flow: Flow, store: str, stream: str):
    assert Child(CLOSED.format(stream=stream), store).end() == 7
    assert rows(store, "SELECT status, reason FROM runs") == [
        ("failed", "task print failed with ValueError: I/O operation on closed file.")
    ]

    flow.add_task("print", lambda ctx: ctx.get("a", "nothing half-written"))
    assert flow.resume("r").result(20) == {"print": "nothing half-written"}


def test_a_task_that_prints_into_a_pipe_that_nobody_reads_fails_like_any_other(store: str):
    reading, writing = os.pipe()
    os.close(reading)
    script = """
    import os, sys
    from liteflow import Flow, TaskFailedError

    flow = Flow(store=sys.argv[1])
    flow.add_task("print", lambda ctx: print("hello", file=open(int(sys.argv[2]), "w", buffering=1, closefd=False)))
    try:
        flow.run("print")
    except TaskFailedError as error:
        print(error.cause_type)
    """
    os.set_inheritable(writing, True)
    child = Child(script.replace("sys.argv[2]", str(writing)), store, fds=(writing,))
    os.close(writing)

    assert child.end() == 0, child.errors
    assert child.lines() == ["BrokenPipeError"]


INTERRUPTED = """
import sys, threading
from liteflow import Flow

flow = Flow(store=sys.argv[1])
flow.add_task("wait", lambda ctx: (print("began"), threading.Event().wait(60)))
{close}
try:
    flow.run("wait", run_id="r")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("close", ["sys.stderr.close()", "sys.stderr = None"])
def test_a_ctrl_c_that_cannot_be_reported_still_leaves_the_run_paused(store: str, close: str):
    child = Child(INTERRUPTED.format(close=close), store)
    assert child.line() == "began"

    child.send(signal.SIGINT)

    assert child.line() == "interrupted"
    child.end()
    assert one(store, "SELECT status FROM runs") == "paused"


# ---------------------------------------------------------------- a task that raises what is no failure elsewhere


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "sys.exit()"])
def test_a_task_that_exits_does_not_end_the_process(store: str, error: str):
    child = Child(
        f"""
        import sys
        from liteflow import Flow, TaskFailedError

        flow = Flow(store=sys.argv[1])

        @flow.task("exit")
        def task(ctx):
            raise {error}

        try:
            flow.run("exit")
        except TaskFailedError as failed:
            print(failed.cause_type)
        flow.add_task("other", lambda ctx: "works")
        print(flow.run("other"))
        """.replace("raise sys.exit()", "sys.exit()"),
        store,
    )

    assert child.end() == 0, child.errors
    assert child.lines() == ["KeyboardInterrupt" if "Key" in error else "SystemExit", "{'other': 'works'}"]


def test_a_body_that_interrupts_the_main_thread_pauses_the_run(store: str):
    """What Ctrl-C does, done by a task: it reaches the main thread, not the task."""
    child = Child(
        """
        import _thread, sys, threading
        from liteflow import Flow

        flow = Flow(store=sys.argv[1])
        flow.add_task("interrupt", lambda ctx: (_thread.interrupt_main(), threading.Event().wait(60)))
        try:
            flow.run("interrupt")
        except KeyboardInterrupt:
            print("interrupted")
        """,
        store,
    )

    assert child.line() == "interrupted"
    assert child.end() == 0, child.errors
    assert one(store, "SELECT status FROM runs") == "paused"


def test_a_run_that_waits_for_itself_ends_with_an_error(flow: Flow):
    began = threading.Event()
    runs = []

    @flow.task("wait")
    def wait(ctx: Context):
        passes(began)
        return runs[0].result(0.05)

    runs.append(flow.start("wait"))
    began.set()

    with pytest.raises(TaskFailedError, match="GetTimeoutError"):
        runs[0].result(20)
