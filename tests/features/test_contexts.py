"""A context is a durable, versioned map: named or not, in memory or stored; and values are values (R2, R3)."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, ContextBusyError, Flow, NextTask, TaskOutput
from tests.features.children import Child, output_of
from tests.features.waiting import passes, until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_context_without_a_store_keeps_what_is_set_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    context = Context()

    context.from_dict({"a": 1, "b": [2]})
    context.set("a", 3)

    assert context.to_dict() == {"a": 3, "b": [2]}
    assert context.keys() == ["a", "b"]
    assert "a" in context
    assert "c" not in context
    assert context.update("a", lambda value: value + 1) == 4
    assert list(tmp_path.iterdir()) == []


def test_what_was_set_in_memory_is_kept_in_the_store_of_the_flow_that_takes_the_context(store: str):
    context = Context("kept")
    context.set("a", (1, 2))

    with Flow(context=context, store=store) as flow:
        flow.add_task("read", lambda ctx: ctx.get("a"))
        assert flow.run("read") == {"read": (1, 2)}

    with Flow(context=Context("kept"), store=store) as again:
        assert again.context.get("a") == (1, 2)


def test_a_context_in_memory_that_is_given_to_one_run_is_kept_with_it(flow: Flow):
    flow.add_task("read", lambda ctx: ctx.get("name"))
    context = Context()
    context.set("name", "Ada")

    assert flow.run("read", context=context) == {"read": "Ada"}
    assert context.get("read") == "Ada"
    assert "name" not in flow.context


def test_making_a_flow_and_reading_its_new_context_touch_no_file(tmp_path: Path, store: str):
    flow = Flow(store=store)
    flow.add_task("a", lambda ctx: 1)

    assert flow.context.to_dict() == {}
    assert flow.context.get("a", None) is None
    assert list(tmp_path.iterdir()) == []


def test_the_store_opens_with_the_first_write(tmp_path: Path, flow: Flow):
    flow.context.set("a", 1)

    assert (tmp_path / "liteflow.db").exists()


def test_the_store_is_that_of_the_environment_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LITEFLOW_STORE", f"sqlite:///{tmp_path / 'named.db'}")

    with Flow() as flow:
        flow.context.set("a", 1)

    assert (tmp_path / "named.db").exists()


def test_a_store_in_memory_runs_flows_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    with Flow(store="sqlite://") as flow:
        flow.add_task("a", lambda ctx: TaskOutput(1, [NextTask("b", spawn_another=True) for _ in range(3)]))
        flow.add_task("b", lambda ctx: ctx.update("count", lambda count: count + 1, default=0))
        result = flow.run("a")
        assert flow.context.get("count") == 3

    assert sorted(result) == ["b", "b#2", "b#3"]
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- named and unnamed


def test_a_named_context_opens_what_the_store_holds_under_that_name_after_a_restart(store: str):
    output_of(
        """
        import sys
        from liteflow import Context, Flow

        with Flow(context=Context("user-42"), store=sys.argv[1]) as flow:
            flow.add_task("greet", lambda ctx: ctx.update("visits", lambda n: n + 1, default=0))
            flow.run("greet")
        """,
        store,
    )

    with Flow(context=Context("user-42"), store=store) as flow:
        flow.add_task("greet", lambda ctx: ctx.update("visits", lambda n: n + 1, default=0))
        assert flow.context.get("visits") == 1
        assert flow.run("greet") == {"greet": 2}


def test_a_named_context_can_be_opened_without_a_flow(store: str, flow: Flow):
    Context("user-42", store=store).set("name", "Ada")

    assert Context("user-42", store=store).to_dict() == {"name": "Ada"}


def test_unnamed_contexts_have_nothing_in_common(store: str):
    with Flow(store=store) as one, Flow(store=store) as other:
        one.context.set("a", 1)

        assert one.context.id != other.context.id
        assert other.context.to_dict() == {}


def test_runs_of_a_flow_happen_in_its_context_one_after_another(flow: Flow):
    flow.add_task("load", lambda ctx: [1, 2, 3])
    flow.add_task("train", lambda ctx: sum(ctx.get("load")))

    flow.run("load")

    assert flow.run("train") == {"train": 6}


def test_start_gives_each_run_a_context_of_its_own(flow: Flow):
    flow.add_task("who", lambda ctx: ctx.get("name"))

    runs = [flow.start("who", {"name": name}) for name in ("Ada", "Bob")]

    assert [run.result(20) for run in runs] == [{"who": "Ada"}, {"who": "Bob"}]
    assert len({run.context.id for run in runs} | {flow.context.id}) == 3
    assert flow.context.to_dict() == {}


def test_the_context_survives_closing_the_flow_and_using_it_again(store: str):
    flow = Flow(store=store)
    flow.add_task("count", lambda ctx: ctx.update("n", lambda n: n + 1, default=0))
    flow.run("count")
    flow.close()

    assert flow.context.get("n") == 1
    assert flow.run("count") == {"count": 2}
    flow.close()


# ---------------------------------------------------------------- one live run at a time


def test_a_second_run_in_a_context_is_refused_and_told_who_is_there_and_what_to_do(flow: Flow):
    began, go_on = threading.Event(), threading.Event()
    flow.add_task("wait", lambda ctx: began.set() or passes(go_on))
    live = flow.start("wait", context=flow.context)
    passes(began)

    with pytest.raises(ContextBusyError) as busy:
        flow.run("wait")

    assert (busy.value.context_id, busy.value.run_id, busy.value.interrupted) == (flow.context.id, live.id, False)
    assert live.id in str(busy.value)
    assert "context=Context()" in str(busy.value)
    go_on.set()
    live.result(20)
    assert [run.id for run in flow.runs()] == [live.id]


def test_a_run_whose_process_was_killed_holds_its_context_until_it_is_resumed(store: str):
    child = Child(
        """
        import sys, threading
        from liteflow import Context, Flow

        flow = Flow(context=Context("shared"), store=sys.argv[1])
        flow.add_task("wait", lambda ctx: (print(ctx.run_id), threading.Event().wait()))
        flow.run("wait")
        """,
        store,
    )
    run_id = child.line()
    child.kill()

    with Flow(context=Context("shared"), store=store) as flow:
        flow.add_task("wait", lambda ctx: "done")
        with pytest.raises(ContextBusyError) as busy:
            flow.run("wait")
        assert busy.value.interrupted
        assert f"flow.resume({run_id!r})" in str(busy.value)

        assert flow.resume(run_id).result(20) == {"wait": "done"}
        assert flow.run("wait") == {"wait": "done"}


def test_the_database_itself_admits_one_live_run_in_a_context(store: str, tmp_path: Path):
    with Flow(store=store) as flow:
        flow.add_task("a", lambda ctx: 1)
        flow.run("a")
        flow.run("a")

    with sqlite3.connect(tmp_path / "liteflow.db") as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE runs SET status = 'running', finished_at = NULL")
    db.close()


# ---------------------------------------------------------------- who sees what (R2)


def test_tasks_see_what_is_committed_and_observers_what_is_written(flow: Flow):
    written, go_on = threading.Event(), threading.Event()

    @flow.task("both")
    def both(ctx: Context):
        return TaskOutput(None, [NextTask("write"), NextTask("look")])

    @flow.task("write")
    def write(ctx: Context):
        ctx.set("color", "red")
        written.set()
        passes(go_on)

    @flow.task("look")
    def look(ctx: Context):
        passes(written)
        return ctx.get("color", "none")

    run = flow.start("both", context=flow.context)
    passes(written)
    until(lambda: any(record.key == "look" and record.finished_at for record in run.tasks()))
    seen_outside = flow.context.get("color")
    go_on.set()

    assert run.result(20)["look"] == "none"
    assert seen_outside == "red"


def test_an_observer_sees_the_newest_write_of_a_running_task_in_every_way_of_reading(flow: Flow):
    written, go_on = threading.Event(), threading.Event()

    @flow.task("write")
    def write(ctx: Context):
        ctx.set("a", 1)
        ctx.set("a", 2)
        written.set()
        passes(go_on)

    run = flow.start("write", context=flow.context)
    passes(written)
    seen = (flow.context.get("a"), "a" in flow.context, flow.context.to_dict(), flow.context.keys())
    go_on.set()
    run.result(20)

    assert seen == (2, True, {"a": 2}, ["a"])


def test_another_process_sees_what_a_running_task_has_written(flow: Flow, store: str):
    written, go_on = threading.Event(), threading.Event()
    flow.add_task("write", lambda ctx: ctx.set("a", 1) or written.set() or passes(go_on))
    run = flow.start("write", context=Context("shared"))
    passes(written)
    until(lambda: len(run.context.history("a")) == 0 and open_writes(store))

    printed = output_of(
        """
        import sys
        from liteflow import Context

        print(Context("shared", store=sys.argv[1]).get("a"))
        """,
        store,
    )

    go_on.set()
    run.result(20)
    assert printed == ["1"]


def open_writes(store: str) -> int:
    with sqlite3.connect(store.removeprefix("sqlite:///")) as db:
        count = db.execute("SELECT count(*) FROM writes WHERE status = 'open'").fetchone()[0]
    db.close()
    return count


def test_a_write_of_another_process_is_seen_by_the_tasks_of_a_live_run(flow: Flow, store: str):
    began, go_on = threading.Event(), threading.Event()

    @flow.task("first")
    def first(ctx: Context):
        began.set()
        passes(go_on)
        return TaskOutput(None, [NextTask("second")])

    flow.add_task("second", lambda ctx: ctx.get("signal"))
    run = flow.start("first", context=Context("shared"))
    passes(began)

    output_of("import sys; from liteflow import Context; Context('shared', store=sys.argv[1]).set('signal', 'go')", store)
    go_on.set()

    assert run.result(20) == {"second": "go"}


def test_a_task_that_looks_after_a_write_from_outside_has_returned_sees_it_while_others_commit(flow: Flow):
    told, stale, over = [0], [], threading.Event()

    @flow.task("fan")
    def fan(ctx: Context):
        return TaskOutput(None, [*(NextTask("busy", n, spawn_another=True) for n in range(3)), NextTask("look")])

    @flow.task("busy")
    def busy(ctx: Context, inputs):
        ctx.set(f"busy {inputs}", ctx.key)
        return TaskOutput(None, None if over.is_set() else [NextTask("busy", inputs, spawn_another=True)])

    @flow.task("look")
    def look(ctx: Context):
        expected = told[0]
        if ctx.get("n", 0) < expected:
            stale.append(expected)
        return TaskOutput(None, None if over.is_set() else [NextTask("look")])

    run = flow.start("fan", context=flow.context)
    for n in range(1, 300):
        flow.context.set("n", n)
        told[0] = n
    over.set()
    run.result(20)

    assert stale == []


# ---------------------------------------------------------------- values are values (R3)


def test_changing_what_was_read_changes_nothing_until_it_is_set(flow: Flow):
    @flow.task("change")
    def change(ctx: Context):
        ctx.set("items", [1])
        ctx.get("items").append(2)
        return ctx.get("items")

    assert flow.run("change") == {"change": [1]}
    flow.context.get("items").append(3)
    assert flow.context.get("items") == [1]
    assert flow.context.to_dict()["items"] == [1]


def test_changing_what_was_set_changes_nothing(flow: Flow):
    items = [1]
    flow.context.set("items", items)
    items.append(2)

    @flow.task("change")
    def change(ctx: Context):
        own = [1]
        ctx.set("own", own)
        own.append(2)
        return ctx.get("own")

    assert flow.run("change") == {"change": [1]}
    assert flow.context.get("items") == [1]


def test_a_task_cannot_change_the_inputs_and_outputs_of_another(flow: Flow):
    given = {"list": [1]}

    @flow.task("first")
    def first(ctx: Context, inputs):
        inputs["list"].append(2)
        output = [1]
        return TaskOutput(output, [NextTask("second", inputs)])

    @flow.task("second")
    def second(ctx: Context, inputs):
        return [ctx.get("list"), inputs["list"], ctx.inputs["list"]]

    assert flow.run("first", given) == {"second": [[1], [1, 2], [1, 2]]}
    assert given == {"list": [1]}
