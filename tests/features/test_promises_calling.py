"""What a flow does when it is told little: its threads, its store, its context; and what it shows once its code has changed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from liteflow import Context, Flow, NextTask, TaskFailedError, TaskOutput
from tests.features.children import output_of
from tests.features.records import rows
from tests.features.waiting import passes

if TYPE_CHECKING:
    from pathlib import Path


def test_without_an_executor_four_tasks_run_side_by_side_and_no_fifth(flow: Flow):
    began, go_on = threading.Semaphore(0), threading.Event()
    flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True) for _ in range(8)]))
    flow.add_task("part", lambda ctx: began.release() or passes(go_on))
    run = flow.start("fan")

    four = [began.acquire(timeout=20) for _ in range(4)]
    fifth = began.acquire(timeout=0.2)
    go_on.set()

    assert (four, fifth) == ([True] * 4, False)
    assert len(run.result(20)) == 8


def test_the_store_may_be_an_engine_of_sqlalchemy(store: str):
    engine = create_engine(store)

    with Flow(store=engine) as flow:
        flow.add_task("a", lambda ctx: 1)
        flow.run("a", run_id="r")

    assert rows(store, "SELECT id, status FROM runs") == [("r", "completed")]
    engine.dispose()


def test_a_flow_that_is_told_of_no_store_keeps_its_runs_in_liteflow_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    with Flow() as flow:
        flow.add_task("a", lambda ctx: 1)
        flow.run("a", run_id="r")

    assert rows("sqlite:///liteflow.db", "SELECT id, status FROM runs") == [("r", "completed")]


def test_importing_a_module_that_makes_a_flow_touches_no_file_and_its_first_run_does(tmp_path: Path):
    code, work = tmp_path / "code", tmp_path / "work"
    code.mkdir()
    work.mkdir()
    (code / "shop.py").write_text(
        "from liteflow import Context, Flow\n\n"
        "flow = Flow(context=Context('shop'))\n\n\n"
        "@flow.task()\n"
        "def sell(ctx):\n"
        "    return 'sold'\n"
    )

    printed = output_of(
        """
        import os, sys

        sys.path.insert(0, sys.argv[1])
        os.chdir(sys.argv[2])
        import shop

        print(os.listdir())
        shop.flow.run("sell")
        print("liteflow.db" in os.listdir())
        """,
        code,
        work,
    )

    assert printed == ["[]", "True"]


def test_a_context_without_a_name_is_found_again_by_its_id(store: str):
    with Flow(store=store) as flow:
        flow.add_task("a", lambda ctx: "kept")
        flow.run("a")

    assert Context(flow.context.id, store=store).get("a") == "kept"


def test_a_run_of_tasks_that_the_code_has_no_more_is_still_listed_and_shown(flow: Flow, store: str):
    flow.add_task("load", lambda ctx: TaskOutput("loaded", [NextTask("train")]))
    flow.add_task("train", lambda ctx: 1 / 0)
    with pytest.raises(TaskFailedError):
        flow.run("load", run_id="r")

    with Flow(store=store) as changed:
        (run,) = changed.runs()

        assert (run.id, run.status, run.error.key) == ("r", "failed", "train")
        assert [(record.key, record.status) for record in run.tasks()] == [("load", "completed"), ("train", "failed")]
        assert run.context.to_dict() == {"load": "loaded"}
        assert [chunk.value for chunk in run.stream()] == ["loaded"]
