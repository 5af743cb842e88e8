"""What is recorded of an attempt: its writes in batches, the version that it read, a version of its own at its commit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from liteflow import Context, NextTask, TaskOutput
from tests.features.records import one, rows
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    import pytest

    from liteflow import Flow


def test_the_writes_of_a_running_attempt_are_recorded_in_batches(flow: Flow, store: str, monkeypatch: pytest.MonkeyPatch):
    count, go_on, commits = 3_000, threading.Event(), []
    dialect = flow._opened().services.database.engine.dialect
    commit = dialect.do_commit
    monkeypatch.setattr(dialect, "do_commit", lambda connection: (commits.append(1), commit(connection)))

    @flow.task("write")
    def write(ctx: Context):
        for n in range(count):
            ctx.set(f"key {n}", n)
        passes(go_on)

    run = flow.start("write")
    until(lambda: one(store, "SELECT count(*) FROM writes WHERE status = 'open'") == count)
    taken = len(commits)
    go_on.set()
    run.result(20)

    assert taken < count / 10


def test_what_was_read_is_recorded_though_it_was_changed_before_the_end(flow: Flow, store: str):
    read, changed = threading.Event(), threading.Event()
    flow.context.set("n", "first")

    @flow.task("read")
    def look(ctx: Context):
        seen = [ctx.get("n")]
        read.set()
        passes(changed)
        return [*seen, ctx.get("n")]

    run = flow.start("read", context=flow.context)
    passes(read)
    flow.context.set("n", "second")
    changed.set()

    assert run.result(20) == {"read": ["first", "second"]}
    assert rows(store, "SELECT attempts, reads FROM tasks") == [(1, '{"n":1}')]


def test_a_version_is_given_when_a_task_commits_and_not_when_it_writes(flow: Flow, store: str):
    recorded, go_on = threading.Event(), threading.Event()
    flow.add_task("both", lambda ctx: TaskOutput(None, [NextTask("slow"), NextTask("quick")]))

    @flow.task("slow")
    def slow(ctx: Context):
        ctx.set("a", "written first")
        passes(go_on)

    @flow.task("quick")
    def quick(ctx: Context):
        passes(recorded)
        ctx.set("a", "committed first")

    run = flow.start("both", context=flow.context)
    until(lambda: rows(store, "SELECT 1 FROM writes WHERE status = 'open'"))
    recorded.set()
    until(lambda: one(store, "SELECT count(*) FROM tasks WHERE status = 'completed'") == 2)
    go_on.set()
    run.result(20)

    assert [version.value for version in flow.context.history("a")] == ["committed first", "written first"]
    in_order = "SELECT key FROM writes ORDER BY version"
    assert rows(store, in_order) == [("both",), ("a",), ("quick",), ("a",), ("slow",)]
