"""The process that is killed: forked off a parent that has imported everything and has no open engine.

``python -m tests.crash.victim`` reads orders from its standard input, a line of JSON each, forks a child for each of them, and
answers how that ended. A child that is stopped is kept, until an order lets it go on.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import Pool
from sqlalchemy.sql import ClauseElement

from liteflow import Context, Flow, PoolExecutor, Run, TaskFailedError
from liteflow.engine.attempt import Attempt
from liteflow.engine.engine import Engine  # noqa: F401 - imported before the fork, like all that a child needs
from liteflow.engine.task import Task
from liteflow.store import queries, statements
from liteflow.store.database import Database
from tests.crash.flows import ALL_SHAPES, commits
from tests.crash.mutants import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")


@dataclass(frozen=True)
class Order:
    """What a child is to do, and where it is to be struck.

    Attributes:
        shapes: the flows to run, side by side.
        store: the URL of the store.
        answer: the file that it writes what happens to, a line of JSON each.
        at: what is counted: ``"commit"``, ``"task"`` for the bodies of tasks, ``"chunk"`` for what they stream.
        when: ``"before"`` or ``"after"`` the one that is counted; ``"never"``.
        count: which of them, from 1.
        blow: the signal that it sends to itself there.
        mutant: the bug to plant; empty for none.
        seconds: after which it is killed, wherever it is.
    """

    shapes: list[str]
    store: str
    answer: str
    at: str = "commit"
    when: str = "never"
    count: int = 0
    blow: int = signal.SIGKILL
    mutant: str = ""
    seconds: float = 20.0


class Points:
    """Counts the places at which a child may be struck, and strikes."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._in_transaction = threading.RLock()
        self.counts = {"commit": 0, "task": 0, "chunk": 0}
        self.commits_seen = 0  # by the database itself

    def around(self, at: str, action: Callable[[], Any]) -> Any:
        """Do *action*, struck before or after it if this is the place."""
        with self._lock:
            self.counts[at] += 1
            here = at == self._order.at and self.counts[at] == self._order.count
        if here and self._order.when == "before":
            self._strike()
        result = action()
        if here and self._order.when == "after":
            self._strike()
        return result

    def _strike(self) -> None:
        if self._order.blow == signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        with self._in_transaction:  # who stops while another thread commits holds SQLite's lock, and nobody can take over
            signal.pthread_kill(threading.get_ident(), self._order.blow)  # this thread first: it goes not one step on

    def arm(self) -> None:
        """Put itself around every commit and every task of this process."""
        commit, perform, emit = DefaultDialect.do_commit, Task.perform, Attempt.emit
        transact = Database._transact

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            self.around("commit", lambda: commit(dialect, connection))
            commits.happened()

        def locked(database: Database, members: list[Any], refused: dict[int, Exception]) -> None:
            with self._in_transaction:
                transact(database, members, refused)

        Database._transact = locked  # type: ignore[method-assign] # only in this child
        DefaultDialect.do_commit = do_commit
        Task.perform = lambda task, attempt: self.around("task", lambda: perform(task, attempt))
        Attempt.emit = lambda *args: self.around("chunk", lambda: emit(*args))
        event.listen(Pool, "connect", self._watch)

    def _watch(self, connection: Any, _record: object) -> None:
        def executed(statement: str) -> None:
            word = statement.lstrip().partition(" ")[0].rstrip(";").upper()
            if word in ("COMMIT", "END") or (word in CHANGES and not connection.in_transaction):
                with self._lock:
                    self.commits_seen += 1

        connection.set_trace_callback(executed)


class Teller:
    """Writes what happens to a file at once, so that it is known whatever happens next."""

    def __init__(self, file: str) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, **facts: Any) -> None:
        os.write(self._file, json.dumps(facts).encode() + b"\n")


def drive(order: Order, teller: Teller) -> None:
    """Run the flows of an order, from wherever they are, to their end."""
    workers = max(ALL_SHAPES[name].workers for name in order.shapes)
    with Flow(PoolExecutor(max_workers=workers), name="crash", store=order.store) as flow:
        for name in order.shapes:
            ALL_SHAPES[name].register(flow)
        ends: dict[str, dict[str, Any]] = {}
        followers = [
            threading.Thread(target=lambda name=name: ends.update({name: end_of(flow, name, teller)})) for name in order.shapes
        ]
        for follower in followers:
            follower.start()
        for follower in followers:
            follower.join()
        teller.tell(what="ends", ends=ends)


def end_of(flow: Flow, name: str, teller: Teller) -> dict[str, Any]:
    """Run one flow to its end, mending what fails; return all that can be seen of it then."""
    context, error, last = Context(f"context of {name}"), "it failed again and again", 0
    for _ in range(3):
        run = flow.start(ALL_SHAPES[name].start, {"given": name}, run_id=f"run of {name}", context=context)
        last = follow(run, name, teller, last)
        if run._driver is not None:
            teller.tell(what="stood", run=name, error=type(run._driver.error).__name__)
        try:
            return seen(run, context, run.result())
        except TaskFailedError:
            context.set("mended", True)
        except Exception as other:  # noqa: BLE001 - told to whoever ordered it
            error = f"{type(other).__name__}: {other}"
            break
    return {"error": error}


def follow(run: Run, name: str, teller: Teller, last: int) -> int:
    """Tell of each chunk after a number as it is shown; return the number of the last one."""
    for chunk in run.stream(after=last):
        last = chunk.seq
        teller.tell(what="chunk", run=name, seq=last, key=chunk.key, attempt=chunk.attempt, value=chunk.value)
    return last


def seen(run: Run, context: Context, result: dict[str, Any]) -> dict[str, Any]:
    chunks: dict[str, list[Any]] = {}
    numbers: list[int] = []
    for chunk in run.stream(view="final"):
        chunks.setdefault(chunk.key, []).append([chunk.task_id, chunk.value])
        numbers.append(chunk.seq)
    values = context.to_dict()
    return {
        "result": result,
        "context": values,
        "stream": chunks,
        "numbers": numbers,
        "status": run.status,
        "histories": {key: [version.value for version in context.history(key)] for key in values},
        "statuses": sorted({(task.task_id, task.status.value) for task in run.tasks() if task.status.value != "merged"}),
    }


# ---------------------------------------------------------------------------------------------------------------- the parent


def child(order: Order) -> None:
    """Carry an order out, in a child just forked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    errors = os.open(order.answer + ".errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 2)
    code = 1
    try:
        points, teller = Points(order), Teller(order.answer)
        points.arm()
        if order.mutant:
            MUTANTS[order.mutant]()
        drive(order, teller)
        teller.tell(what="counts", **points.counts, commits_seen=points.commits_seen)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def outcome(pid: int, seconds: float) -> dict[str, Any]:
    """Wait until a child ends or is stopped; kill it when its time is over."""
    deadline, late = time.monotonic() + seconds, False
    while True:
        ended, status = os.waitpid(pid, os.WUNTRACED | (0 if late else os.WNOHANG))
        if ended and os.WIFSTOPPED(status):
            return {"pid": pid, "stopped": True, "late": late}
        if ended:
            return {"pid": pid, "code": os.waitstatus_to_exitcode(status), "stopped": False, "late": late}
        left = deadline - time.monotonic()
        if left <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left) is None:
            late = True
            os.kill(pid, signal.SIGKILL)


def warm_up() -> None:
    """Import, and work out once, what each child would have to; no thread is started, and nothing is left open."""
    database = Database("sqlite://")
    database.open()
    for statement in [*vars(queries).values(), *vars(statements).values()]:
        if isinstance(statement, ClauseElement):
            database.compile(statement)
    database.dispose()
    gc.collect()
    gc.freeze()  # a child that collects garbage need not touch, and so copy, what it has from here


def serve() -> None:
    """Carry out orders until there are no more."""
    warm_up()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    names = {field.name for field in fields(Order)}
    for line in sys.stdin:
        wanted = json.loads(line)
        if "go_on" in wanted:
            pid, seconds = wanted["go_on"], wanted["seconds"]
            os.kill(pid, signal.SIGCONT)
        else:
            order = Order(**{name: value for name, value in wanted.items() if name in names})
            seconds = order.seconds
            pid = os.fork()
            if pid == 0:
                child(order)
        print(json.dumps(outcome(pid, seconds)), flush=True)  # noqa: T201 - the answer


def as_line(order: Order) -> str:
    return json.dumps(asdict(order))


if __name__ == "__main__":
    serve()
