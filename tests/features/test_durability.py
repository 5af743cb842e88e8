"""What a caller was told is done is on the disk; a task's own commit is behind it, in the log (R12)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from liteflow import Context, Flow, LiteFlowError, NextTask, TaskFailedError, TaskOutput
from tests.features.children import ROOT
from tests.features.waiting import passes

if TYPE_CHECKING:
    import sqlite3

NORMAL, FULL = 1, 2


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How each commit of the flows that are watched is synced, in order."""
    return []


def watch(flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note how each commit of the flow's database is synced from now on."""
    dialect: Any = flow._opened().services.database.engine.dialect
    commit = dialect.do_commit

    def noting(connection: sqlite3.Connection) -> None:
        commits.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", noting)


def add_chain(flow: Flow, length: int) -> None:
    @flow.task("link")
    def link(ctx: Context):
        count = ctx.get("count", 0) + 1
        ctx.set("count", count)
        return TaskOutput(count, [NextTask("link")] if count < length else None)


def test_the_start_and_the_end_of_a_run_are_synced_and_a_tasks_own_commit_is_not(
    flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch
):
    add_chain(flow, 5)
    watch(flow, commits, monkeypatch)

    flow.run("link")

    assert commits == [FULL, NORMAL, NORMAL, NORMAL, NORMAL, FULL]


def test_the_start_of_a_run_whose_id_was_handed_out_is_synced(flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()
    flow.add_task("wait", lambda ctx: passes(go_on))
    watch(flow, commits, monkeypatch)

    run = flow.start("wait")

    assert commits[:1] == [FULL]
    go_on.set()
    run.result(20)
    assert commits[-1] == FULL


@pytest.mark.parametrize(
    "write",
    [lambda c: c.set("a", 1), lambda c: c.from_dict({"a": 1, "b": 2}), lambda c: c.update("a", lambda a: a, default=1)],
    ids=["set", "from_dict", "update"],
)
def test_a_write_from_outside_is_synced(flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch, write):
    watch(flow, commits, monkeypatch)

    write(flow.context)

    assert commits == [FULL]


def test_a_failure_and_a_resume_are_synced(flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch):
    broken = [True]
    flow.add_task("first", lambda ctx: TaskOutput(1, [NextTask("second")]))
    flow.add_task("second", lambda ctx: 1 / 0 if broken else 2)
    watch(flow, commits, monkeypatch)
    with pytest.raises(TaskFailedError) as failed:
        flow.run("first")
    assert commits == [FULL, NORMAL, FULL]
    broken.clear()
    commits.clear()

    flow.resume(failed.value.run_id).result(20)

    assert commits == [FULL, FULL]


def test_a_run_that_is_left_paused_is_synced(flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on))
    run = flow.start("wait")
    passes(began)
    watch(flow, commits, monkeypatch)

    run.interrupt()
    go_on.set()

    assert run.status == "paused"
    assert commits[-1] == FULL


def test_with_full_durability_every_commit_is_synced(store: str, commits: list[int], monkeypatch: pytest.MonkeyPatch):
    with Flow(store=store, durability="full") as flow:
        add_chain(flow, 5)
        watch(flow, commits, monkeypatch)
        flow.run("link")

    assert commits[:6] == [FULL] * 6


def test_a_block_of_stream_numbers_is_synced_before_one_of_them_is_shown(
    flow: Flow, commits: list[int], monkeypatch: pytest.MonkeyPatch, store: str
):
    go_on = threading.Event()
    watch(flow, commits, monkeypatch)

    @flow.task("talk")
    def talk(ctx: Context):
        for n in range(3_000):
            ctx.stream(n)
        passes(go_on)

    run = flow.start("talk")
    shown = 0
    for chunk in run.stream():
        if chunk.value is None:
            break
        if chunk.seq in {1, 1_500, 3_000}:
            shown += 1
            reserved = flow._opened().run(run.id)["seq_reserved"]
            assert reserved >= chunk.seq
        if chunk.seq == 3_000:
            go_on.set()
    run.result(20)

    assert shown == 3
    assert commits.count(FULL) >= 4  # the start, the end, and each block


def test_an_unknown_durability_is_refused(store: str):
    with pytest.raises(LiteFlowError, match=r'durability.*"ack" or "full"'):
        Flow(store=store, durability="none")


SYNCED = """
import sys
from liteflow import Flow

with Flow(store=sys.argv[1]) as flow:
    flow.add_task("a", lambda ctx: 1)
    flow.context.set("ready", 1)
    print("before", file=sys.stderr, flush=True)
    flow.context.set("a", 1)
    print("between", file=sys.stderr, flush=True)
    flow.run("a")
    print("after", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what the operating system is asked to sync")
def test_the_operating_system_is_asked_to_sync_before_a_write_or_a_run_is_acknowledged(store: str):
    traced = subprocess.run(
        ["strace", "-f", "-e", "trace=fsync,fdatasync,write", "-e", "write=none", sys.executable, "-c", SYNCED, store],  # noqa: S607 - the system's own
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "ptrace" in traced.stderr and "Operation not permitted" in traced.stderr:
        pytest.skip("strace may not trace here")
    assert traced.returncode == 0, traced.stderr[-2_000:]

    _, _, told = traced.stderr.partition('"before')
    write, _, run = told.partition('"between')
    assert "sync(" in write
    assert run.partition('"after')[0].count("sync(") >= 2  # its start and its end
