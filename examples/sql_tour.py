"""Ten questions to the store, in SQL, with their answers: what docs/sql.md shows.

Runs a small flow in which a task fails, is tried again, streams, loses a conflict and fails for good; then asks.
`python examples/sql_tour.py > docs/sql.md` writes the page anew.
"""

import sqlite3
import threading
from contextlib import suppress

from liteflow import Context, Flow, NextTask, RetryPolicy, TaskFailedError, TaskOutput
from liteflow.testing import temporary_store

HEAD = """# The store in SQL

The tables are meant to be read, with `sqlite3 liteflow.db` or any other tool. These are ten questions to them, each with the
answer of a real store: a till that sold two things on Monday, and an audit that failed on Tuesday. The page is written by
`examples/sql_tour.py`.

Values are JSON text, times are UTC text of fixed width. Open, committed and lost writes and chunks are told apart by their
`status`. The views are `run_overview`, `current_values`, `task_times`, `failed_attempts` and `stream`."""
QUESTIONS = {
    "What is each run doing?": """
        SELECT run_id, flow, status, tasks, completed, to_come, failed FROM run_overview ORDER BY created_at""",
    "What is each key's value now, and who wrote it?": """
        SELECT key, value, version, written_by, attempt FROM current_values WHERE context_id = 'till' ORDER BY version""",
    "What took how long?": """
        SELECT key, attempts, seconds_queued, seconds_run FROM task_times WHERE run_id = 'monday' ORDER BY number""",
    "What failed, and why?": """
        SELECT run_id, key, attempt, status, error_type, error_message FROM failed_attempts ORDER BY ended_at""",
    "What was streamed?": """
        SELECT seq, key, attempt, value, status FROM stream WHERE run_id = 'monday' ORDER BY seq""",
    "Who dispatched what?": """
        SELECT child.number, child.key, child.status, parent.key AS dispatched_by
        FROM tasks AS child
        LEFT JOIN tasks AS parent ON parent.run_id = child.run_id AND parent.number = child.dispatched_by
        WHERE child.run_id = 'monday' ORDER BY child.number""",
    "What was a key before?": """
        SELECT version, value, run_id, number, written_at FROM writes
        WHERE context_id = 'till' AND key = 'total' AND status = 'committed' ORDER BY version""",
    "What had a lost attempt done?": """
        SELECT run_id, number, attempt, key, value FROM writes WHERE status = 'lost' ORDER BY id""",
    "What had a task read before it returned?": """
        SELECT key, reads, output_version FROM tasks WHERE run_id = 'monday' AND reads IS NOT NULL ORDER BY number""",
    "Which runs does nobody work on?": """
        SELECT runs.id, runs.status, owners.pid, owners.leased_until, owners.ended_at FROM runs
        LEFT JOIN owners ON owners.id = runs.owner_id WHERE runs.status <> 'completed'""",
}


def make_history(store):
    flow = Flow(name="till", store=store, context=Context("till"))
    both_have_read = threading.Barrier(2)

    @flow.task("open")
    def open_till(ctx):
        ctx.set("total", 0)
        return TaskOutput("open", [NextTask("sell", inputs=price, spawn_another=True) for price in (3, 4)])

    @flow.task("sell")
    def sell(ctx, inputs):
        total = ctx.get("total")
        if ctx.attempt == 1:
            both_have_read.wait(10)  # so that one of them is overtaken, for the sake of the history
        ctx.set("total", total + inputs)
        return TaskOutput(inputs, [NextTask("print")])

    @flow.task("print", retry=RetryPolicy(max_attempts=2, initial_interval=0.05))
    def print_slip(ctx):
        ctx.stream(f"total {ctx.get('total')}")
        if ctx.attempt == 1:
            raise OSError("out of paper")
        return "printed"

    @flow.task("audit")
    def audit(ctx):
        ctx.set("audited", "in part")
        return 1 / 0

    flow.run("open", run_id="monday")
    with suppress(TaskFailedError):
        flow.run("audit", run_id="tuesday")
    flow.close()


def table(answer):
    rows = [[str("" if cell is None else cell) for cell in row] for row in answer]
    head = [column[0] for column in answer.description]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [head, *rows]]
    return "\n".join(lines)


def indented(query):
    return "\n".join(line.removeprefix("        ") for line in query.strip("\n").splitlines())


def main():
    with temporary_store() as url:
        make_history(url)
        print(HEAD)
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        for number, (question, query) in enumerate(QUESTIONS.items(), start=1):
            answer = table(database.execute(query))
            print(f"\n## {number}. {question}\n\n```sql\n{indented(query)};\n```\n\n```text\n{answer}\n```")
        database.close()


if __name__ == "__main__":
    main()
