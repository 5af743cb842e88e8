"""The process in which an example is killed: ``python -m tests.crash.scripts EXAMPLE WHEN AGAIN FOLDER``.

It has imported all that an example needs, has no threads, and forks, for n = 1, 2, 3, ..., a child that runs the example as a
script and is killed before or after its n-th commit, until one ends by itself; after each, a second child that starts the script
again in the same folder, and may be killed after its own AGAIN-th commit, so that a third one follows. What the script begins
then goes on where it was (see `go_on`), so that what it prints, and what the store holds, must be as if nobody had been killed.
One line of JSON says how each of them has ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import sqlite3
import sys
import sysconfig
import threading
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.default import DefaultDialect

from liteflow import Context, Flow, Run
from liteflow.codec import PLAIN
from liteflow.engine.task import Task
from liteflow.model import RunStatus
from liteflow.places import of_inputs
from liteflow.ports import Memory
from tests.crash.harness import QUESTIONS
from tests.crash.mutants import MUTANTS
from tests.crash.victim import outcome, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from liteflow.executor.loop import Loop

INPUT = {"chat.py": "hello\nagain\n\n"}
ARGUMENTS = {"survive_a_crash.py": ["bicycle"]}  # it is the worker: without an argument it kills one itself
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STORE = "liteflow.db"  # in the folder of the script: what a flow takes that is told nothing
SECONDS = 20.0  # a child that takes longer hangs
LONGEST_SLEEP = 0.02  # seconds; in examples, sleeping stands for work
MOST_POINTS = 16  # of an example that has more, so many are taken, by chance
SEED = 20261123
ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


End = dict[str, Any]


@dataclass
class Tally:
    """How the processes of an example have ended.

    Attributes:
        commits: how many commits it has when nobody is killed.
        calm: how it ends then, each time that was tried.
        ends: how it ends after a kill, by the place of that; empty where nothing can be compared, as something went wrong.
        killed_again: how many of those that went on were killed, too.
        steps_given: how often the result of a step came from the store.
        wrong: what was wrong, whatever the example is.
    """

    commits: int = 0
    calm: list[End] = field(default_factory=list)
    ends: dict[str, End] = field(default_factory=dict)
    killed_again: int = 0
    steps_given: int = 0
    wrong: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------------- in the children

_in_task: ContextVar[bool] = ContextVar("in_task", default=False)


class Printed(io.TextIOBase):
    """A standard output that keeps what tasks print, which may be printed again, apart from what the script prints."""

    def __init__(self) -> None:
        modes = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._files = {is_task: os.open(name, modes, 0o600) for is_task, name in ((False, "printed"), (True, "said"))}
        self._begun = threading.local()

    def write(self, text: str) -> int:
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            os.write(self._files[_in_task.get()], f"{line}\n".encode())
        return len(text)


def tell_tasks_apart() -> None:
    """Have `Printed` know what is printed by tasks."""
    perform, aperform = Task.perform, Task.aperform

    def performed(task: Task, attempt: Any) -> Any:
        token = _in_task.set(True)
        try:
            return perform(task, attempt)
        finally:
            _in_task.reset(token)

    async def aperformed(task: Task, attempt: Any) -> Any:
        _in_task.set(True)  # of this coroutine's own copy of the variables
        return await aperform(task, attempt)

    Task.perform, Task.aperform = performed, aperformed


def strike(when: str, count: int) -> None:
    """Count the commits of this process, and kill it before or after one of them."""
    commit, lock, seen = DefaultDialect.do_commit, threading.Lock(), 0

    def do_commit(dialect: DefaultDialect, connection: Any) -> None:
        nonlocal seen
        with lock:
            seen += 1
            here = seen == count
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit(dialect, connection)
        if here and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        Path("commits").write_text(str(seen), encoding="utf-8")

    DefaultDialect.do_commit = do_commit


def watch_steps() -> None:
    """Note when the function of a step is called although its result is recorded, and when it is not called as it is."""
    step, astep = Context.step, Context.astep

    def note(what: str, ctx: Context, name: str) -> None:
        with Path("steps").open("a", encoding="utf-8") as notes:
            notes.write(f"{what} step {name} of {ctx.key}\n")

    def watched(ctx: Context, name: str, fn: Callable[..., Any], called: list[str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            of = (ctx.run_id, ctx._task.dispatch.number, name)
            if ask("SELECT 1 FROM steps WHERE run_id = ? AND number = ? AND name = ?", *of):
                note("again", ctx, name)
            return fn(*args, **kwargs)

        return call

    def noted(ctx: Context, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called: list[str] = []
        result = step(ctx, name, watched(ctx, name, fn, called), *args, **kwargs)
        if not called:
            note("given", ctx, name)
        return result

    async def anoted(ctx: Context, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called: list[str] = []
        result = await astep(ctx, name, watched(ctx, name, fn, called), *args, **kwargs)
        if not called:
            note("given", ctx, name)
        return result

    Context.step, Context.astep = noted, anoted


def go_on() -> None:
    """Let what the script begins be what it had begun: its first run the first one recorded, in that one's context, and so on.

    A run that has ended is handed out as it is, one that has not is taken up. A start with a ``run_id`` finds its run by itself.
    """
    recorded = ask("SELECT id, flow, start_task, inputs, context_id FROM runs ORDER BY created_at, id") if is_there() else []
    begin, resume = Flow._begin, Flow.resume

    def same(row: tuple[Any, ...], flow: Flow, task_id: str, inputs: Mapping[str, Any] | None) -> bool:
        run_id, of_flow, start_task, text, _ = row
        encoded = None if inputs is None else PLAIN.encode(dict(inputs), of_inputs(run_id))
        return (of_flow, start_task, text) == (flow.name, task_id, encoded)

    def begun(  # noqa: PLR0913, PLR0917 - the signature of what it stands for
        flow: Flow, task_id: str, inputs: Mapping[str, Any] | None, run_id: str | None, context: Context,
        loop: Loop | None = None,
    ) -> Run:  # fmt: skip
        row = None if run_id is not None else next((row for row in recorded if same(row, flow, task_id, inputs)), None)
        if row is None:
            return begin(flow, task_id, inputs, run_id, context, loop)
        recorded.remove(row)
        context.id, context._port = row[-1], Memory()  # what the script has put into it is recorded there
        engine = flow._opened()
        flow._adopt(context)
        if RunStatus(engine.run(row[0])["status"]) in ENDED:
            return Run(engine, row[0])
        return Run(engine, row[0], engine.take(row[0], loop=loop))

    def resumed(flow: Flow, run_id: str) -> Run:
        run = flow.get_run(run_id)
        return run if run.status is RunStatus.COMPLETED else resume(flow, run_id)

    Flow._begin, Flow.resume = begun, resumed


def play(example: str, folder: Path, arm: Callable[[], None], *, mutant: str) -> None:
    """Run an example as a script, in a child just forked."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.chdir(folder)
        Path("input").write_text(INPUT.get(example, ""), encoding="utf-8")
        os.dup2(os.open("input", os.O_RDONLY), 0)
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        sys.argv, sys.stdout = [str(EXAMPLES / example), *ARGUMENTS.get(example, [])], Printed()
        sys.path.insert(0, str(EXAMPLES))
        pause = threading.Event()
        time.sleep = lambda seconds: pause.wait(min(seconds, LONGEST_SLEEP))
        library = {**sysconfig.get_paths(), "stdlib": str(Path(json.__file__).parent)}  # a small one
        sysconfig.get_paths = lambda: library
        tell_tasks_apart()
        watch_steps()
        arm()
        if mutant:
            MUTANTS[mutant]()
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


# -------------------------------------------------------------------------------------------------------------- in the parent


def ask(question: str, *values: object, folder: Path = Path()) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / STORE, timeout=10)) as db:
        return db.execute(question, values).fetchall()


def is_there(folder: Path = Path()) -> bool:
    """Whether the store has its tables yet."""
    return (folder / STORE).exists() and bool(ask("SELECT 1 FROM sqlite_master WHERE name = 'stream'", folder=folder))


def send(example: str, folder: Path, arm: Callable[[], None], *, mutant: str = "") -> dict[str, Any]:
    """Have a child run the example; return how it ended."""
    pid = os.fork()
    if pid == 0:
        play(example, folder, arm, mutant=mutant)
    return outcome(pid, SECONDS)


def end_of(folder: Path) -> End:
    """Return all that can be seen once a script has ended; ids that were generated are replaced."""
    printed, said = ((folder / name).read_text(encoding="utf-8").splitlines() for name in ("printed", "said"))
    runs = ask("SELECT id, flow, start_task, status, context_id FROM runs ORDER BY created_at, id", folder=folder)
    end = {"printed": printed, "said": sorted(set(said)), "runs": [run_of(folder, *run) for run in runs]}
    text = json.dumps(end)
    for number, run in enumerate(runs, 1):
        text = text.replace(run[0], f"run {number}").replace(run[4], f"context {number}")
    return dict(json.loads(text))


def run_of(folder: Path, run_id: str, *facts: str) -> dict[str, Any]:
    """Return what the store holds of a run."""
    leaves = ask(
        """SELECT tasks.key, value FROM tasks JOIN runs ON runs.id = tasks.run_id
           JOIN writes ON writes.context_id = runs.context_id AND version = output_version
           WHERE tasks.run_id = ? AND leaf ORDER BY tasks.number""",
        run_id, folder=folder,
    )  # fmt: skip
    values = ask("SELECT key, value FROM current_values WHERE context_id = ?", facts[-1], folder=folder)
    stream: dict[str, list[Any]] = {}
    chunks = "SELECT key, task_id, value FROM stream WHERE run_id = ? AND status = 'committed' ORDER BY seq"
    for key, task_id, value in ask(chunks, run_id, folder=folder):
        stream.setdefault(key, []).append([task_id, json.loads(value)])
    statuses = ask("SELECT DISTINCT key, status FROM tasks WHERE run_id = ? AND status <> 'merged'", run_id, folder=folder)
    return {
        "facts": facts[:-1],
        "result": {key: json.loads(value) for key, value in leaves},
        "context": {key: json.loads(value) for key, value in values},
        "stream": stream,
        "statuses": sorted(statuses),
    }


def faults(folder: Path) -> list[str]:
    """Return what is wrong in the database, whatever the example was."""
    answers = {question: ask(question, folder=folder) for question in QUESTIONS}
    return [f"{question}: {answers[question][:3]}" for question, right in QUESTIONS.items() if answers[question] != right]


class Script:
    """An example that is killed, and started again.

    Args:
        example: the name of its file.
        folder: empty, for all that its processes leave.
        again: after which commit who goes on is killed, too; 0 for none.
        mutant: the bug to plant into all who may be killed, and into those that go on; empty for none.
    """

    def __init__(self, example: str, folder: Path, again: int = 0, mutant: str = "") -> None:
        self.example, self.folder, self.again, self.mutant, self.tally = example, folder, again, mutant, Tally()

    def leave_alone(self) -> None:
        """Run the script as it is, twice: what differs then is no matter of crashes."""
        for number in (1, 2):
            folder = self._folder(f"calm {number}")
            ended = send(self.example, folder, lambda: strike("never", 0), mutant=self.mutant)
            errors = (folder / "errors").read_text(encoding="utf-8")
            assert ended == {**ended, "code": 0, "late": False}, errors
            assert errors == ""
            self.tally.commits = int((folder / "commits").read_text(encoding="utf-8"))
            self.tally.calm.append(end_of(folder))
            self.tally.wrong += [f"not killed: {what}" for what in [*faults(folder), *of_steps(folder, "again")]]

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    def kill_everywhere(self, when: str) -> None:
        """Kill the script at each commit, up to one that is not reached; of very many, at some that chance takes."""
        commits, counts = self.tally.commits, iter(range(1, 2 * self.tally.commits + 10))
        if commits > MOST_POINTS:
            chance = random.Random(f"{SEED} {self.example}")  # noqa: S311 - places, no secret
            counts = iter(sorted(chance.sample(range(1, commits + 1), MOST_POINTS)))
        for count in counts:
            where = f"{when} commit {count}"
            folder = self._folder(where)
            first = send(self.example, folder, lambda count=count: strike(when, count), mutant=self.mutant)
            if first["code"] == 0:  # it has ended with fewer commits: tasks that end together are committed together
                shutil.rmtree(folder)
                if count > commits:
                    break
                continue
            self.tally.ends[where] = {}
            wrong = self._start_again(folder, where) if is_killed(first) else ill(folder, first)
            self.tally.wrong += [f"{where}: {what}" for what in wrong]
            shutil.rmtree(folder)

    def _start_again(self, folder: Path, where: str) -> list[str]:
        """Start a script again that was killed; return what is wrong."""

        def go_on_and_die() -> None:
            go_on()
            strike("after", self.again)

        for arm in (go_on_and_die, go_on) if self.again else (go_on,):
            (folder / "printed").unlink(missing_ok=True)  # it prints all again
            ended = send(self.example, folder, arm, mutant=self.mutant)
            if not ended["code"]:
                break
            if arm is go_on or not is_killed(ended):
                return ill(folder, ended)
            self.tally.killed_again += 1
        self.tally.steps_given += len(of_steps(folder, "given"))
        self.tally.ends[where] = end_of(folder)
        return [*of_steps(folder, "again"), *faults(folder)]


def is_killed(ended: dict[str, Any]) -> bool:
    """Whether a child was killed where it was to be, rather than as it took too long."""
    return bool(ended["code"] == -signal.SIGKILL and not ended["late"])


def ill(folder: Path, ended: dict[str, Any]) -> list[str]:
    """Say how a child has ended that was to end otherwise."""
    errors = (folder / "errors").read_text(encoding="utf-8").splitlines()
    return [f"it {'hangs' if ended['late'] else 'fails'}: {' / '.join(errors[-3:])}", *of_steps(folder, "again")]


def of_steps(folder: Path, what: str) -> list[str]:
    """Return the steps that were given from the store, or that ran again though they are in it."""
    notes = (folder / "steps").read_text(encoding="utf-8").splitlines() if (folder / "steps").exists() else []
    return [note for note in notes if note.startswith(what)]


def main(example: str, when: str, again: str, folder: str, mutant: str = "") -> None:
    """Kill an example everywhere, and say how that went."""
    warm_up()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    script = Script(example, Path(folder), int(again), mutant)
    script.leave_alone()
    script.kill_everywhere(when)
    print(json.dumps(asdict(script.tally)))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
