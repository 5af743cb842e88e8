"""Ctrl-C and SIGTERM end a script within a second, whatever its tasks do, and leave its run resumable (R8)."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.features.children import Child, output_of
from tests.features.records import one, rows
from tests.features.waiting import Helper, until

if TYPE_CHECKING:
    from liteflow import Flow

SCRIPT = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from liteflow import Flow, NextTask, TaskOutput

store, how, body, workers = sys.argv[1:]
flow = Flow(ThreadPoolExecutor(2) if workers == "users" else None, store=store)
flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("slow")]))

@flow.task("slow")
def slow(ctx):
    ctx.set("a", 1)
    print("began", flush=True)
    if body == "waits":
        threading.Event().wait(60)
    while body == "computes":
        sum(range(1000))
    if body == "swallows":
        while True:
            try:
                threading.Event().wait(60)
            except BaseException:
                pass
    ctx.get("never")

flow.add_task("never", lambda ctx: None)
if how == "stream":
    list(flow.stream("first", run_id="r"))
else:
    flow.run("first", run_id="r")
"""


def interrupted(store: str, number: signal.Signals, how: str = "run", body: str = "waits") -> Child:
    """Interrupt a script in its slow task; return it, ended within a second."""
    child = Child(SCRIPT, store, how, body, "own")
    assert child.line() == "began"
    sent = time.monotonic()
    child.send(number)
    child.end()
    assert time.monotonic() - sent < 1.0 + 0.2  # the rest is the interpreter's own end
    return child


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_a_script_within_a_second_and_prints_the_line_that_resumes(
    store: str, flow: Flow, number: signal.Signals, how: str
):
    child = interrupted(store, number, how)

    assert "flow.resume('r')" in child.errors
    assert child.process.returncode == (-signal.SIGINT if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert rows(store, "SELECT status, reason FROM runs") == [("paused", "interrupted")]
    assert one(store, "SELECT count(*) FROM writes WHERE status = 'open'") == 0

    flow.add_task("first", lambda ctx: "not again")
    flow.add_task("slow", lambda ctx: ctx.get("a", "nothing of it"))
    run = flow.resume("r")
    assert run.result(20) == {"slow": "nothing of it"}
    assert [record.attempts for record in run.tasks()] == [1, 2]


@pytest.mark.parametrize("body", ["waits", "computes", "swallows"])
def test_a_signal_ends_a_script_whatever_its_task_does(store: str, body: str):
    interrupted(store, signal.SIGINT, body=body)

    assert one(store, "SELECT status FROM runs") == "paused"


def test_a_signal_ends_run_within_a_second_on_the_users_own_pool_too(store: str):
    """The interpreter then still waits for the threads of that pool, as it does without us."""
    child = Child(SCRIPT, store, "run", "waits", "users")
    assert child.line() == "began"
    sent = time.monotonic()
    child.send(signal.SIGINT)
    until(lambda: "KeyboardInterrupt" in child.errors)
    took = time.monotonic() - sent
    child.kill()

    assert took < 1.2
    assert "flow.resume('r')" in child.errors
    assert one(store, "SELECT status FROM runs") == "paused"


def test_a_paused_run_does_not_hold_its_context_and_goes_on_by_its_id(store: str, flow: Flow):
    interrupted(store, signal.SIGINT)

    flow.add_task("first", lambda ctx: "not again")
    flow.add_task("slow", lambda ctx: "slow")

    assert flow.run("first", run_id="r") == {"slow": "slow"}


def test_a_script_that_handles_sigterm_itself_keeps_its_handler(store: str):
    child = Child(
        """
        import signal, sys, threading
        from liteflow import Flow

        over = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: (print("mine"), over.set()))
        flow = Flow(store=sys.argv[1])
        flow.add_task("wait", lambda ctx: (print("began"), over.wait(20)) and "done")
        print(flow.run("wait"))
        """,
        store,
    )
    assert child.line() == "began"
    child.send(signal.SIGTERM)

    assert child.end() == 0, child.errors
    assert child.lines() == ["mine", "{'wait': 'done'}"]


@pytest.mark.parametrize(("name", "said"), [("SIGTERM", "SystemExit(143)"), ("SIGINT", "KeyboardInterrupt()")])
def test_a_signal_that_another_thread_takes_is_handled_at_once(store: str, name: str, said: str):
    """As one is that comes in the instant before the main thread begins to wait: neither ends the wait for a lock."""
    child = Child(
        """
        import signal, sys, threading
        from liteflow import Flow

        flow = Flow(store=sys.argv[1])

        @flow.task()
        def wait(ctx):
            while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "wait":
                pass  # the main thread is on its way to where it waits
            print("sent")
            signal.pthread_kill(threading.get_ident(), signal.Signals[sys.argv[2]])
            threading.Event().wait(20)

        try:
            flow.run("wait")
        except BaseException as error:
            print(repr(error))
        """,
        store,
        name,
    )
    assert child.line() == "sent"
    sent = time.monotonic()
    assert child.line() == said
    assert time.monotonic() - sent < 1.2
    assert child.end() == 0, child.errors


def test_bytes_of_signals_go_on_to_who_had_asked_for_them(store: str):
    assert output_of(
        """
        import os, signal, sys, threading
        from liteflow import Flow

        reads, writes = os.pipe()
        os.set_blocking(writes, False)
        signal.signal(signal.SIGUSR1, lambda *_: over.set())
        signal.set_wakeup_fd(writes)
        over = threading.Event()
        flow = Flow(store=sys.argv[1])
        flow.add_task("wait", lambda ctx: (os.kill(os.getpid(), signal.SIGUSR1), over.wait(20))[1])
        print(flow.run("wait")["wait"], os.read(reads, 10)[0] == signal.SIGUSR1, signal.set_wakeup_fd(-1) == writes)
        """,
        store,
    ) == ["True True True"]


def test_a_script_that_ends_while_a_started_run_is_live_ends_at_once(store: str):
    child = Child(
        """
        import sys, threading
        from liteflow import Flow

        began = threading.Event()
        flow = Flow(store=sys.argv[1])
        flow.add_task("wait", lambda ctx: (began.set(), threading.Event().wait(60)))
        flow.start("wait", run_id="r")
        began.wait(20)
        print("end")
        """,
        store,
    )
    assert child.line() == "end"
    ended = time.monotonic()
    child.end()

    assert time.monotonic() - ended < 1.2
    assert one(store, "SELECT status FROM runs") in {"running", "paused"}  # either way it can be resumed


# ---------------------------------------------------------------- in the middle of a commit that the main thread leads


def interrupt_next_commit(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C come in the middle of the next commit."""
    dialect = flow._opened().services.database.engine.dialect
    commit = dialect.do_commit

    def interrupted(connection: object) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", interrupted)


def test_a_ctrl_c_in_the_middle_of_a_write_lets_that_be_done_whole_and_nobody_is_stuck(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
):
    interrupt_next_commit(flow, monkeypatch)

    with pytest.raises(KeyboardInterrupt):
        flow.context.set("a", 1)

    assert Helper(lambda: flow.context.update("a", lambda a: a + 1)).result() == 2


def test_a_ctrl_c_in_the_middle_of_the_start_of_a_run_pauses_it(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    over = threading.Event()
    flow.add_task("wait", lambda ctx: over.wait(20) and ctx.attempt)
    interrupt_next_commit(flow, monkeypatch)

    with pytest.raises(KeyboardInterrupt):
        flow.run("wait", run_id="r")
    over.set()

    assert "flow.resume('r')" in capsys.readouterr().err
    assert flow.get_run("r").status == "paused"
    assert flow.resume("r").wait(20) == "completed"
