"""What `make demo` shows: a real job, killed with `kill -9` half-way, goes on where it was when it is started again.

The job is `library_names.py`. The demo starts it, reads its progress, kills it, starts it again with the same run id, and then
asks the job's own log of executions and the database what was done, how often, and when.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

FOLDER = Path(".demo")
JOB = Path(__file__).with_name("library_names.py")
HISTORY = {
    "What each run is doing": "SELECT run_id, status, tasks, completed, crashes FROM run_overview",
    "Files counted in each second; the kill is where it dips": """
        SELECT substr(finished_at, 12, 8) AS second, count(*) AS files FROM tasks WHERE task_id = 'count' GROUP BY second""",
    "What took longest": """
        SELECT key, seconds_run, attempts, finished_at FROM task_times WHERE key LIKE 'count%'
        ORDER BY seconds_run DESC LIMIT 4""",
}

console = Console(highlight=False, width=min(Console().width, 110))


def run_job(*, kill_after: int | None, done_before: int) -> tuple[int, list[str]]:
    """Run the job, show its progress, and kill it after so many files; return how many were done, and what it printed at last."""
    env = os.environ | {"LITEFLOW_STORE": f"sqlite:///{FOLDER / 'liteflow.db'}", "DEMO_LOG": str(FOLDER / "executed.log")}
    job = subprocess.Popen([sys.executable, str(JOB), "demo"], env=env, stdout=subprocess.PIPE, text=True)
    columns = (TextColumn("  {task.description:<28.28}"), BarColumn(40), MofNCompleteColumn())
    seen, last = done_before, []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("starting", total=None)
        for line in job.stdout:
            count, slash, rest = line.partition("/")
            if not (slash and count.isdigit()):
                last.append(line.rstrip())
                continue
            total, file = rest.split(maxsplit=1)
            seen = int(count)
            progress.update(bar, completed=seen, total=int(total), description=file.strip())
            if kill_after is not None and seen >= kill_after:
                job.send_signal(signal.SIGKILL)
                break
        progress.update(bar, description="killed" if kill_after is not None else "done")
    job.stdout.close()
    job.wait()
    return seen, last


def executed() -> Counter[str]:
    return Counter((FOLDER / "executed.log").read_text(encoding="utf-8").splitlines())


def show(title: str, query: str) -> None:
    with sqlite3.connect(FOLDER / "liteflow.db") as database:
        answer = database.execute(query)
        table = Table(box=None, pad_edge=False)
        for column in answer.description:
            table.add_column(column[0], style="cyan" if column[0] in ("run_id", "key") else "")
        for row in answer:
            table.add_row(*map(str, row))
    console.print(f"[bold]{title}[/]\n[dim]{' '.join(query.split())}[/]")
    console.print(table)
    console.print()


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    began = time.monotonic()
    console.print("[bold]1.[/] Counting the names in the Python standard library, one task a file, 4 at a time.")
    before, _ = run_job(kill_after=250, done_before=0)
    first = executed()
    console.print(f"   [bold red]kill -9[/] after {before} files. [dim]Nothing was told, nothing could be tidied up.[/]\n")

    console.print("[bold]2.[/] The same command again: the run goes on.")
    _, result = run_job(kill_after=None, done_before=before)
    both = executed()
    twice = [file for file, times in both.items() if times > 1]
    console.print(
        f"   {len(first)} files were begun before the kill, {both.total() - first.total()} tasks ran after it. "
        f"[bold]{len(twice)} of {len(both)}[/] ran twice:\n"
        f"   those whose end was not recorded when the process died. The other {len(both) - len(twice)} were not done again.\n"
    )

    console.print("[bold]3.[/] The result.")
    for line in result:
        console.print(f"   {line}")
    console.print("\n[bold]4.[/] The history, from SQL.\n")
    for title, query in HISTORY.items():
        show(title, query)
    console.print(f"[dim]{time.monotonic() - began:.0f} s. Look around: sqlite3 {FOLDER / 'liteflow.db'}[/]")


if __name__ == "__main__":
    main()
