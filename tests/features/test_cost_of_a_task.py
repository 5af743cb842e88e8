"""What a task costs the database, counted, not timed: its statements, its commits, and the bytes that it leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, RetryPolicy, TaskOutput
from liteflow.model import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = 50
OF_A_LINK = ["BEGIN", "SELECT writes", "INSERT writes", "UPDATE tasks", "INSERT tasks", "COMMIT"]
BYTES = 600  # of rows and index entries


def word(statement: str) -> str:
    """Return the verb of a statement, and the table it is about."""
    words = statement.replace(",", " ").split()
    verb = words[0].upper()
    after = {"INSERT": "INTO", "UPDATE": "UPDATE", "SELECT": "FROM"}.get(verb)
    return verb if after is None else f"{verb} {words[words.index(after) + 1]}"


def plain(flow: Flow) -> dict[str, object]:
    return {}


def with_retry(flow: Flow) -> dict[str, object]:
    return {"retry": RetryPolicy(5)}


def with_timeout(flow: Flow) -> dict[str, object]:
    return {"timeout": 3600}


def with_all_else(flow: Flow) -> dict[str, object]:
    """The flow has tasks of every kind, which do not take part."""

    @flow.task("other")
    async def other(ctx: Context):
        await ctx.acheckpoint()

    flow.task("joined", retry=3, timeout=1)(lambda ctx: ctx.joined)
    return {}


def commits_of_a_chain(flow: Flow, options: dict[str, object]) -> list[list[str]]:
    """Run a chain; return the statements of each of its transactions."""

    def link(ctx: Context, inputs: int):
        return TaskOutput(inputs, [NextTask("link", inputs + 1)] if inputs < LENGTH else [])

    flow.add_task("link", link, **options)
    flow.task("start")(lambda ctx: TaskOutput(None, [NextTask("link", 1)]))
    flow.run("start")
    statements: list[str] = []
    connection = flow._opened().services.database._writer
    connection.set_trace_callback(statements.append)
    flow.run("start")
    connection.set_trace_callback(None)
    found: list[list[str]] = []
    for statement in statements:
        if statement.startswith("BEGIN"):
            found.append([])
        if not statement.startswith("PRAGMA"):
            found[-1].append(word(statement))
    return found


@pytest.mark.parametrize("options", [plain, with_retry, with_timeout, with_all_else])
def test_what_a_chain_does_not_use_costs_it_no_statement(store: str, options: Callable[[Flow], dict[str, object]]):
    with Flow(PoolExecutor(max_workers=1), store=store, limits=Limits()) as flow:
        commits = commits_of_a_chain(flow, options(flow))

    assert len(commits) == LENGTH + 2  # the start of the run, its first task, and a commit a link
    assert commits[1:-1] == [OF_A_LINK] * LENGTH
    assert Counter(commits[-1]) == Counter([*OF_A_LINK, "UPDATE runs"]) - Counter(["INSERT tasks"])


def test_a_task_leaves_few_bytes(store: str):
    with Flow(store=store) as flow:
        commits_of_a_chain(flow, {})
        file = Path(store.removeprefix("sqlite:///"))
        database = flow._opened().services.database
        database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = file.stat().st_size
        for _ in range(10):
            flow.run("start")
        database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert (file.stat().st_size - before) / (10 * LENGTH) <= BYTES
