"""The history of a context: each version of each key, who wrote it and when; and the context as it stood at a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from liteflow import ContextKeyError, LiteFlowError

if TYPE_CHECKING:
    from liteflow import Flow


def test_history_tells_each_value_who_wrote_it_and_when(flow: Flow):
    flow.context.set("n", 0)
    flow.add_task("count", lambda ctx: ctx.update("n", lambda n: n + 1))
    flow.run("count", run_id="one")
    flow.run("count", run_id="two")

    history = flow.context.history("n")

    assert [version.value for version in history] == [0, 1, 2]
    assert [version.run_id for version in history] == [None, "one", "two"]
    assert [version.task_key for version in history] == [None, "count", "count"]
    assert [version.attempt for version in history] == [None, 1, 1]
    assert all(version.written_at.tzinfo is not None for version in history)
    assert sorted(version.version for version in history) == [version.version for version in history]


def test_at_shows_the_context_as_it_stood_at_a_version_and_cannot_be_written(flow: Flow):
    flow.context.set("a", 1)
    flow.context.set("b", 2)
    flow.context.set("a", 3)

    before = flow.context.at(2)

    assert before.to_dict() == {"a": 1, "b": 2}
    assert flow.context.at(1).keys() == ["a"]
    assert flow.context.at(0).to_dict() == {}
    with pytest.raises(ContextKeyError, match="^Key c not found in context$"):
        before.get("c")
    for write in (lambda: before.set("a", 9), lambda: before.update("a", str), lambda: before.from_dict({"a": 9})):
        with pytest.raises(LiteFlowError, match="read-only"):
            write()
    assert flow.context.get("a") == 3


@pytest.mark.parametrize("version", [-1, 2])
def test_at_refuses_a_version_that_is_not_there(flow: Flow, version: int):
    flow.context.set("a", 1)

    with pytest.raises(LiteFlowError, match=f"has no version {version}; its newest is 1"):
        flow.context.at(version)


def test_versions_rise_by_one_with_each_write(flow: Flow):
    flow.add_task("write", lambda ctx: (ctx.set("a", 1), ctx.set("b", 2), ctx.set("a", 3)) and "out")
    flow.context.set("z", 0)
    flow.run("write")
    flow.context.from_dict({"a": 4, "y": 5})

    versions = {(v.version, v.key, v.value) for key in flow.context.keys() for v in flow.context.history(key)}  # noqa: SIM118 - the method is what is tested

    assert sorted(versions) == [
        (1, "z", 0), (2, "a", 1), (3, "b", 2), (4, "a", 3), (5, "write", "out"), (6, "a", 4), (7, "y", 5)
    ]  # fmt: skip
