"""What an attempt writes, streams and dispatches takes effect all together when it returns, or not at all (R1)."""

from __future__ import annotations

import threading

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, RunCancelledError, SerializationError, TaskFailedError, TaskOutput
from liteflow.clock import Clock, SystemClock
from liteflow.engine import driver, inbox
from liteflow.testing import FakeClock
from tests.features.children import Child
from tests.features.records import one, rows
from tests.features.waiting import passes, until


def test_an_attempt_reads_its_own_writes(flow: Flow):
    flow.context.from_dict({"a": "old", "z": 0})

    @flow.task("write")
    def write(ctx: Context):
        ctx.set("a", "new")
        ctx.set("b", 2)
        ctx.update("z", lambda z: z + 1)
        return [ctx.get("a"), "b" in ctx, ctx.keys(), ctx.to_dict(), ctx.update("z", lambda z: z + 1)]

    assert flow.run("write") == {"write": ["new", True, ["a", "z", "b"], {"a": "new", "z": 1, "b": 2}, 2]}


def test_what_a_task_wrote_before_it_failed_takes_no_effect_and_stays_in_the_record_as_lost(flow: Flow, store: str):
    flow.context.set("a", "before")
    flow.add_task("next", lambda ctx: None)

    @flow.task("fail")
    def fail(ctx: Context):
        ctx.set("a", "after")
        ctx.set("b", 1)
        ctx.stream("chunk")
        raise ValueError("no")

    with pytest.raises(TaskFailedError):
        flow.run("fail", run_id="r")

    assert flow.context.to_dict() == {"a": "before"}
    assert [version.value for version in flow.context.history("a")] == ["before"]
    assert list(flow.get_run("r").stream()) == []
    assert rows(store, "SELECT key, value FROM writes WHERE status = 'lost' ORDER BY id") == [("a", '"after"'), ("b", "1")]
    assert rows(store, "SELECT value, status FROM chunks") == [('"chunk"', "lost")]


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (TaskOutput(1, [NextTask("next"), NextTask("unknown")]), "Task unknown not found"),
        (TaskOutput(1, [NextTask("next"), NextTask("next", object())]), "object"),
        (TaskOutput(1, [NextTask("next"), "next"]), "NextTask"),
        (TaskOutput(object(), [NextTask("next")]), "object"),
    ],
    ids=["unknown task", "unstorable inputs", "no NextTask", "unstorable output"],
)
def test_an_output_that_cannot_be_recorded_records_nothing_of_its_attempt(flow: Flow, store: str, output: TaskOutput, cause: str):
    flow.add_task("next", lambda ctx: None)
    flow.add_task("start", lambda ctx: ctx.set("a", 1) or output)

    with pytest.raises(TaskFailedError, match=cause):
        flow.run("start")

    assert flow.context.to_dict() == {}
    assert rows(store, "SELECT key, status FROM tasks") == [("start", "failed")]


def test_a_value_that_cannot_be_stored_is_refused_where_it_is_set_and_a_task_may_go_on(flow: Flow):
    @flow.task("write")
    def write(ctx: Context):
        try:
            ctx.set("a", {"items": [1, {"f": open}]})
        except SerializationError as error:
            ctx.set("a", "instead")
            return [error.key, error.path, error.type_name]

    key, path, type_name = flow.run("write")["write"]

    assert (key, path) == ("a", ".items[1].f")
    assert "builtin_function_or_method" in type_name
    assert flow.context.get("a") == "instead"


def commits_of(flow: Flow, start: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a flow; return how many commits its database saw."""
    dialect = flow._opened().services.database.engine.dialect
    commit, commits = dialect.do_commit, []
    monkeypatch.setattr(dialect, "do_commit", lambda connection: (commits.append(1), commit(connection)))
    flow.run(start)
    return len(commits)


@pytest.mark.parametrize("length", [1, 2, 10])
def test_a_task_that_ends_at_once_costs_one_transaction(flow: Flow, monkeypatch: pytest.MonkeyPatch, length: int):
    @flow.task("link")
    def link(ctx: Context):
        count = ctx.get("count", 1)
        ctx.set("count", count + 1)
        ctx.stream(count)
        return TaskOutput(count, [NextTask("link")] if count < length else None)

    assert commits_of(flow, "link", monkeypatch) == 1 + length  # one more for the start


def test_what_a_task_writes_is_recorded_while_it_runs_as_of_an_open_attempt(flow: Flow, store: str):
    written, go_on = threading.Event(), threading.Event()

    @flow.task("slow")
    def slow(ctx: Context):
        ctx.set("a", 1)
        ctx.stream("chunk")
        written.set()
        passes(go_on)

    run = flow.start("slow")
    passes(written)
    until(lambda: rows(store, "SELECT key FROM writes WHERE status = 'open'"))
    status = one(store, "SELECT status FROM tasks")
    chunks = rows(store, "SELECT value, status FROM chunks")
    go_on.set()
    run.result(20)

    assert status == "running"
    assert chunks == [('"chunk"', "open")]
    assert rows(store, "SELECT key, status, version FROM writes ORDER BY id") == [("a", "committed", 1), ("slow", "committed", 2)]
    assert rows(store, "SELECT status FROM chunks") == [("committed",)]


def test_an_attempt_of_many_writes_commits_them_all_in_order(flow: Flow):
    count = 2_500

    @flow.task("write")
    def write(ctx: Context):
        for n in range(count):
            ctx.set(f"key {n % 100}", n)

    flow.run("write")

    history = sorted((version for n in range(100) for version in flow.context.history(f"key {n}")), key=lambda v: v.version)
    assert [version.value for version in history] == list(range(count))
    assert [version.version for version in history] == list(range(1, count + 1))


def test_a_reader_of_the_database_sees_all_of_an_attempt_or_nothing(flow: Flow, store: str):
    seen = set()

    @flow.task("loop")
    def loop(ctx: Context):
        turn = ctx.get("a", 0)
        for key in ("a", "b", "c"):
            ctx.set(key, turn + 1)
        return TaskOutput(turn + 1, [NextTask("loop")] if turn < 50 else None)

    flow.start("loop")
    query = (
        "WITH done AS (SELECT count(*) AS n FROM tasks WHERE status = 'completed')"
        " SELECT (SELECT count(*) FROM writes WHERE version IS NOT NULL) - 4 * done.n,"
        " (SELECT count(*) FROM tasks) - done.n, (SELECT status FROM runs) FROM done"
    )
    until(lambda: (found := rows(store, query)[0]) and (seen.add(found) or found[2] == "completed"))

    assert seen <= {(0, 1, "running"), (0, 0, "completed")}


KILLED = """
import sys, threading
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(store=sys.argv[1])
flow.add_task("first", lambda ctx: TaskOutput("done", [NextTask("second")]))

@flow.task("second")
def second(ctx):
    ctx.set("a", "of the killed attempt")
    ctx.stream("chunk")
    threading.Event().wait(0.2)  # long enough to be recorded
    print("written")
    threading.Event().wait()

flow.run("first", run_id="r")
"""


def test_what_a_killed_attempt_wrote_takes_no_effect_and_its_body_starts_at_the_top(flow: Flow, store: str):
    child = Child(KILLED, store)
    assert child.line() == "written"
    until(lambda: rows(store, "SELECT 1 FROM writes WHERE status = 'open'"))
    child.kill()
    seen = []

    flow.add_task("first", lambda ctx: seen.append("first again"))
    flow.add_task("second", lambda ctx: seen.append(ctx.to_dict()) or ctx.attempt)
    result = flow.resume("r").result(20)

    assert seen == [{"first": "done"}]
    assert result == {"second": 2}
    assert rows(store, "SELECT key, status FROM writes WHERE status != 'committed'") == [("a", "lost")]
    assert rows(store, "SELECT status FROM chunks") == [("lost",)]
    assert rows(store, "SELECT number, attempt, status FROM attempts") == [(2, 1, "lost")]


def test_an_attempt_that_was_given_up_can_do_nothing_more(flow: Flow):
    began, go_on, refused = threading.Event(), threading.Event(), []

    @flow.task("slow")
    def slow(ctx: Context):
        if ctx.attempt > 1:
            return "resumed"
        began.set()
        passes(go_on)
        calls = [
            lambda: ctx.set("a", 1), lambda: ctx.get("a"), lambda: ctx.get("a", None), lambda: "a" in ctx, ctx.keys, ctx.to_dict,
            lambda: ctx.update("a", str), lambda: ctx.stream(1), lambda: ctx.from_dict({"a": 1}),
        ]  # fmt: skip
        for call in calls:
            try:
                call()
            except RunCancelledError:
                refused.append(call)
        return len(calls)

    run = flow.start("slow")
    passes(began)
    run.interrupt()
    go_on.set()
    until(lambda: len(refused) == 9)

    assert run.status == "paused"
    assert flow.resume(run.id).result(20) == {"slow": "resumed"}
    assert run.context.to_dict() == {"slow": "resumed"}


def test_the_context_of_a_task_that_has_returned_can_do_nothing_more(flow: Flow):
    kept = []
    flow.add_task("keep", kept.append)
    flow.run("keep")

    with pytest.raises(RunCancelledError, match="it has returned"):
        kept[0].set("a", 1)
    assert flow.context.to_dict() == {"keep": None}


# ---------------------------------------------------------------- completions that share a commit


@pytest.mark.parametrize("clock", [SystemClock, FakeClock])
def test_a_completion_that_waits_for_others_is_committed_soon_though_none_comes(store: str, clock: type[Clock]):
    """Its worker has gone on with a task that takes its time; the clock of the flow may stand still."""
    began, go_on = threading.Event(), threading.Event()
    with Flow(PoolExecutor(max_workers=1), store=store, clock=clock()) as flow:
        flow.add_task("both", lambda ctx: TaskOutput(None, [NextTask("quick"), NextTask("slow")]))
        flow.add_task("quick", lambda ctx: "done")
        flow.add_task("slow", lambda ctx: began.set() or passes(go_on))
        run = flow.start("both")
        passes(began)

        until(lambda: one(store, "SELECT status FROM tasks WHERE key = 'quick'") == "completed")
        go_on.set()
        run.result(20)


def test_a_get_that_waits_for_a_completion_has_it_committed_at_once(store: str, monkeypatch: pytest.MonkeyPatch):
    """It is not left to those that may come, nor to the pacer, nor to when what is open is recorded."""
    for module, name in ((driver, "SECONDS"), (inbox, "SECONDS"), (driver, "FLUSH_SECONDS")):
        monkeypatch.setattr(module, name, 3600.0)
    began, go_on = threading.Event(), threading.Event()
    with Flow(PoolExecutor(max_workers=2), store=store) as flow:
        flow.add_task("all", lambda ctx: TaskOutput(None, [NextTask("asks"), NextTask("quick"), NextTask("slow")]))
        flow.add_task("asks", lambda ctx: (passes(began), ctx.get("quick"), go_on.set())[1])
        flow.add_task("quick", lambda ctx: "done")
        flow.add_task("slow", lambda ctx: began.set() or passes(go_on))  # by the worker of the quick one, who left that waiting

        assert flow.start("all").result(20)["asks"] == "done"
