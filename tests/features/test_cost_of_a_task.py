"""What a task costs the database, counted, not timed: its statements, its commits, and the bytes that it leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from liteflow import Context, Flow, NextTask, PoolExecutor, RetryPolicy, TaskOutput
from liteflow.engine import driver, inbox
from liteflow.model import Limits
from liteflow.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LENGTH = 50
PARTS, TOGETHER, KEYS = 1_000, 50, 1_000
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
    with Flow(PoolExecutor(max_workers=1), store=store, limits=Limits(), clock=FakeClock()) as flow:  # by which no task is slow
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


# ---------------------------------------------------------------- what many tasks share


class Calls:
    """The connection that writes, and what it is asked: of each commit the statements, each with the number of its rows."""

    def __init__(self, flow: Flow) -> None:
        database = flow._opened().services.database
        self._connection = database._writing()
        self.commits: list[list[tuple[str, int]]] = []
        database._writer = self

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, text: str, values: Sequence[object] = ()) -> object:
        if text.startswith("BEGIN"):
            self.commits.append([])
        elif not text.startswith("PRAGMA"):
            self.commits[-1].append((text, 1))
        return self._connection.execute(text, values)

    def executemany(self, text: str, rows: Iterable[Sequence[object]]) -> object:
        listed = list(rows)
        self.commits[-1].append((text, len(listed)))
        return self._connection.executemany(text, listed)


def commits_of_a_fan_out(store: str, workers: int) -> list[list[tuple[str, int]]]:
    """Run a fan-out; return the calls of each transaction but that which starts it."""
    with Flow(PoolExecutor(max_workers=workers), store=store, clock=FakeClock()) as flow:  # as above
        flow.add_task("fan", lambda ctx: TaskOutput(None, [NextTask("part", spawn_another=True)] * PARTS))
        flow.add_task("part", lambda ctx: None)
        calls = Calls(flow)
        flow.run("fan")
        return calls.commits[1:]


def completions(commit: list[tuple[str, int]]) -> int:
    return sum(rows for text, rows in commit if word(text) == "INSERT writes")


@pytest.mark.parametrize("workers", [1, 4])
def test_tasks_that_run_side_by_side_share_commits_of_few_statements(store: str, workers: int):
    commits = commits_of_a_fan_out(store, workers)

    print(f"{PARTS} parts on {workers}: {len(commits)} commits")  # noqa: T201 - the figure itself
    assert len(commits) <= PARTS / 4  # how many depends on the clock on the wall: 20 to 50 are usual
    assert sum(completions(commit) for commit in commits) == PARTS + 1
    assert max(completions(commit) for commit in commits) <= TOGETHER
    for commit in commits:
        texts = [text for text, _ in commit]
        assert len(texts) == len(set(texts)), "a statement was run more than once"
        assert Counter(map(word, texts)) <= Counter([*OF_A_LINK, "UPDATE runs"])


def test_one_worker_that_is_not_hurried_commits_50_tasks_at_a_time(store: str, monkeypatch: pytest.MonkeyPatch):
    for module in (inbox, driver):
        monkeypatch.setattr(module, "SECONDS", 3600.0)

    assert [completions(commit) for commit in commits_of_a_fan_out(store, 1)] == [1] + [TOGETHER] * (PARTS // TOGETHER)


def test_what_a_task_writes_is_inserted_once_as_it_stays(store: str):
    with Flow(store=store, clock=FakeClock()) as flow:

        @flow.task("write")
        def write(ctx: Context):
            for n in range(KEYS):
                ctx.set(f"key-{n}", n)

        statements: list[str] = []
        connection = flow._opened().services.database._writing()
        connection.set_trace_callback(statements.append)
        run = flow.start("write")
        run.result()
        connection.set_trace_callback(None)
        rows = connection.execute("SELECT status, count(*) FROM writes WHERE run_id = ? GROUP BY status", [run.id]).fetchall()

    about_writes = Counter(word(statement) for statement in statements if "writes" in statement.split())
    del about_writes["SELECT writes"]
    assert about_writes == {"INSERT writes": KEYS + 1}
    assert rows == [("committed", KEYS + 1)]
