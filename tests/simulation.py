"""`RunState` without clock, thread or database: a simulated executor goes step by step, a store knows decisions alone."""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from liteflow.engine.state import Decision, Entry, Request, RunState
from liteflow.model import Dispatch, RunStatus, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

BEHIND, COMPLETED, MERGED, RUNNING = TaskStatus.BEHIND, TaskStatus.COMPLETED, TaskStatus.MERGED, TaskStatus.RUNNING
TROUBLE = 240  # a byte of a schedule from here on is no step but a crash, a pause, a failure, a lost worker or a timeout
WAIT = object()
TRIES = object()  # a step of a body that gives how many tries of the dispatch have begun
CHECKPOINT = object()  # a step of a body that commits what it wrote so far


class Get(NamedTuple):
    key: str
    default: object = WAIT


class Set(NamedTuple):
    key: str
    value: object


class Program(NamedTuple):
    """Task bodies, each a generator of its reads and writes, and what these keys hold in the end; it begins with `start`.

    *signals* come from outside, at any moment; one that *may_be_cancelled* is, in place of a timeout now and then.
    """

    bodies: dict[str, Any]
    ends: dict[str, object]
    signals: tuple[str, ...] = ()
    may_be_cancelled: bool = False


class AgainError(Exception):
    """Raised by a body: the attempt has failed, and is to be tried again in a while."""


class BrokenPromiseError(AssertionError):
    pass


def promise(kept: object, what: str, *facts: object):
    if not kept:
        raise BrokenPromiseError(what, *facts)


@dataclass
class Row:
    dispatch: Dispatch
    status: TaskStatus
    merged_into: int | None
    version: int  # of the context, with the commit that dispatched it
    join: int | None = None
    wait_for: tuple[str, ...] = ()
    not_before: int | None = None
    attempts: int = 0
    failures: int = 0
    reads: dict[str, int] = field(default_factory=dict)


@dataclass
class Rows:
    rows: dict[int, Row] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0]))
    version: int = 0
    run: RunStatus = RunStatus.RUNNING
    failed: int | None = None

    def record(self, decision: Decision, live: dict[int, Entry]):
        for dispatch, status, into, not_before, wait_for, join in decision.dispatched:
            keys = [row.dispatch.key for row in self.rows.values()]
            new = into is None and status is TaskStatus.PENDING
            promise(not (new and dispatch.instance > 1 and dispatch.key in keys), "no instance number is used twice", dispatch)
            promise(dispatch.number == len(self.rows) + 1, "dispatches are numbered in order", dispatch)
            self.rows[dispatch.number] = Row(dispatch, status, into, self.version, join, wait_for, not_before)
        for number, into in decision.merged:
            self.rows[number].status, self.rows[number].merged_into = MERGED, into
        for number, status in decision.moved:
            row, entry = self.rows[number], live[number]
            row.status, row.merged_into, row.failures, row.not_before = status, None, entry.failures, entry.not_before
        self.run = decision.run or self.run

    def load(self, kind: type[RunState]) -> RunState:
        final = (COMPLETED, MERGED)
        live = [row for row in self.rows.values() if row.status not in final]
        keys = {row.dispatch.key for row in live}
        done = [row.dispatch for row in self.rows.values() if row.status is COMPLETED]
        spawned: dict[str, int] = {}
        for row in self.rows.values():
            spawned[row.dispatch.task_id] = max(spawned.get(row.dispatch.task_id, 1), row.dispatch.instance)
        return kind.load(
            [self.entry(row, {row.dispatch.number for row in live}) for row in live],
            spawned={task: n for task, n in spawned.items() if n > 1},
            produced=[d.key for d in done if d.instance == 1 or d.key in keys],
            next_number=len(self.rows) + 1,
            failed=self.failed,
        )

    def entry(self, row: Row, live: set[int]) -> Entry:
        """Return a live dispatch as it is loaded."""
        number, joins = row.dispatch.number, row.dispatch.joins or 0
        return Entry(
            row.dispatch, row.status, row.attempts, row.merged_into, failures=row.failures, not_before=row.not_before,
            wait_for=row.wait_for, missing={key for key in row.wait_for if key not in self.values}, join=row.join,
            members={self.host(n) for n in range(number - joins, number)} & live,
        )  # fmt: skip

    def host(self, number: int) -> int:
        """Return the dispatch that does the work of one."""
        while self.rows[number].status is MERGED:
            number = self.rows[number].merged_into
        return number

    def commit(self, wrote: dict[str, object]):
        self.values |= wrote
        for key in wrote:
            self.version += 1
            self.versions[key].append(self.version)

    def newest(self, key: str, upto: int) -> int:
        """Return the version of *key* as of a version of the context."""
        return self.versions[key][bisect(self.versions[key], upto) - 1]


class Attempt:
    def __init__(self, dispatch: Dispatch, task: Any):
        self.dispatch, self.own, self.reads, self.waits = dispatch, {}, {}, False
        self.body = task(dispatch.inputs)
        self.send(None)

    def send(self, answer: object):
        """Let the body go on to its next step, or to its end."""
        try:
            self.step, self.result = self.body.send(answer), None
        except StopIteration as end:
            self.step, self.result = None, end.value
        except AgainError:
            self.step, self.result = None, AgainError


class Simulation:
    """One run of a program, its steps chosen by the bytes of *schedule*, then always the first that is possible."""

    def __init__(self, program: Program, workers: int, schedule: bytes = b"", kind: type[RunState] = RunState):
        self.program, self.workers, self.kind = program, workers, kind
        self.store, self.state = Rows(), kind()
        self.queue: deque[int] = deque()
        self.running: dict[int, Attempt] = {}
        self.attempts, self.troubles = 0, 6
        self.now, self.timers, self.signals = 0, [], list(program.signals)
        self.effects: Counter[str] = Counter()
        self.record(self.state.start(Request("start")))
        choices, steps = iter(schedule), 0
        while not self.store.run.is_final:
            self.go_on(next(choices, 0))
            promise((steps := steps + 1) < 5_000, "the run ends")
        if self.store.run is RunStatus.COMPLETED:
            self.check_end()

    def go_on(self, choice: int):
        going = [attempt for attempt in self.running.values() if not attempt.waits]
        if self.store.run is not RunStatus.RUNNING:
            promise(not self.running, "a run stands still once nothing runs")
            self.take_up()
        elif choice >= TROUBLE and self.troubles:
            self.troubles -= 1
            self.trouble(choice - TROUBLE)
        elif self.signals and (choice % 7 == 6 or not (going or self.queue or self.timers)):
            self.signal()
        elif self.timers and (choice % 7 == 5 or not (going or self.queue)):
            self.let_time_pass()
        elif self.queue and len(going) < self.workers and choice % (len(going) + 1) == len(going):
            self.begin(self.queue.popleft())
        elif going:
            self.advance(going[choice % len(going)])
        else:
            hopeless = self.state.stuck()
            promise(self.state.stopping and hopeless, "something can go on", self.state.waits())
            for number in hopeless:
                self.lose(number, self.state.given_up)

    def trouble(self, choice: int):
        what, which = divmod(min(choice, 14), 3)
        if choice > 12 and self.program.may_be_cancelled:
            self.cancel()
            return
        self.effects[("crash", "pause", "failure", "lost worker", "timeout")[what]] += 1
        if what == 0:
            self.take_up()
        elif what == 1:
            self.record(self.state.stop(RunStatus.PAUSED))
        elif self.running:
            number = list(self.running)[which % len(self.running)]
            if what == 2:
                self.store.failed = self.store.failed or number
            self.lose(number, (self.state.failed, self.state.given_up, self.try_again)[what - 2])

    def cancel(self):
        """Cancel the run, and give up what runs; what fails meanwhile changes nothing."""
        self.effects["cancel"] += 1
        self.store.failed = None  # nobody takes it up again
        self.record(self.state.stop(RunStatus.CANCELLED))
        for number in list(self.running):
            self.lose(number, self.state.failed if number % 2 else self.state.given_up)

    def try_again(self, number: int) -> Decision:
        return self.state.retried(number, self.now + 3)

    def signal(self):
        """Somebody outside writes a key."""
        key = self.signals.pop()
        self.store.commit({key: "signal"})
        self.state.written([key])
        self.effects["signal"] += 1
        self.record(Decision())

    def let_time_pass(self):
        self.timers.sort()
        self.now, number = self.timers.pop(0)
        self.state.due(number)
        self.hand_out()

    def take_up(self):
        """Another process goes on with the rows alone."""
        self.running.clear()
        self.queue.clear()
        self.timers.clear()
        self.state = self.store.load(self.kind)
        self.store.failed = None
        self.record(self.state.resume())

    def begin(self, number: int):
        attempt = self.state.begin(number)
        if attempt is None:
            return
        promise(not self.state.stopping, "nothing starts in a run that is to stand still", number)
        self.attempts += 1
        row = self.store.rows[number]
        promise(attempt == row.attempts + 1, "attempts are counted", number)
        promise(row.not_before is None or row.not_before <= self.now, "nothing starts before its time", number)
        promise(all(key in self.store.values for key in row.wait_for), "nothing starts before its keys are written", number)
        members = range(number - (row.dispatch.joins or 0), number)
        hosts = [self.store.rows[self.store.host(n)] for n in members]
        promise(all(host.status is COMPLETED for host in hosts), "a join starts when all its members have completed", number)
        if number % 2:  # only some attempts are recorded when they begin
            row.status = RUNNING
        row.attempts = attempt
        promise(number not in self.running, "a dispatch is not started twice at a time", number)
        self.running[number] = Attempt(row.dispatch, self.program.bodies[row.dispatch.task_id])
        self.check_running()

    def advance(self, attempt: Attempt):
        """Take the next step of an attempt: read, write or return."""
        if attempt.step is None:
            self.end(attempt)
        elif isinstance(attempt.step, Set):
            attempt.own[attempt.step.key] = attempt.step.value
            attempt.send(None)
        elif attempt.step is TRIES:
            attempt.send(self.store.rows[attempt.dispatch.number].attempts)
        elif attempt.step is CHECKPOINT:
            self.checkpoint(attempt)
        elif self.must_wait(attempt):
            attempt.waits = True
            promise(not self.state.blocks(attempt.dispatch.number, attempt.step.key), "no circle of waits is seen")
            self.hand_out()
        else:
            key, default = attempt.step
            if key not in attempt.own:
                attempt.reads.setdefault(key, self.store.versions[key][-1])
            attempt.send(attempt.own[key] if key in attempt.own else self.store.values.get(key, default))

    def must_wait(self, attempt: Attempt) -> bool:
        key, default = attempt.step
        waits = self.state.must_wait(key, attempt.dispatch.number) or (key not in self.store.values and default is WAIT)
        return waits and key not in attempt.own

    def end(self, attempt: Attempt):
        """The attempt returned: commit it, unless it lost a conflict."""
        store, number = self.store, attempt.dispatch.number
        if attempt.result is AgainError:
            self.effects["retry"] += 1
            self.lose(number, self.try_again)
            return
        del self.running[number]
        output, requests, *join = attempt.result
        wrote = {**attempt.own, attempt.dispatch.key: output}
        requests = [self.held(request, wrote) for request in requests]
        join = self.held(join[0], wrote) if join else None
        decision = self.state.completed(number, requests, join, wrote=wrote, outdated=self.outdated(attempt))
        if not decision.conflicted:
            store.rows[number].status, store.rows[number].reads = COMPLETED, attempt.reads
            store.commit(wrote)
            self.state.written(wrote)
        self.record(decision)

    def held(self, request: Request, wrote: dict[str, object]) -> Request:
        """Return a request with what it waits for from now on; a delay is a number of steps here."""
        missing = frozenset(key for key in request.wait_for if key not in wrote and key not in self.store.values)
        return request._replace(missing=missing, not_before=request.delay and self.now + request.delay)

    def outdated(self, attempt: Attempt) -> list[str]:
        return [key for key, version in attempt.reads.items() if self.store.versions[key][-1] != version]

    def checkpoint(self, attempt: Attempt):
        """Commit what the attempt wrote so far, unless it lost a conflict."""
        number = attempt.dispatch.number
        decision = self.state.checkpointed(number, wrote=attempt.own, outdated=self.outdated(attempt))
        if decision.conflicted:
            del self.running[number]
        else:
            self.effects["checkpoint"] += 1
            self.store.commit(attempt.own)
            self.state.written(attempt.own)
            attempt.own, attempt.reads = {}, {}
        self.record(decision)
        if not decision.conflicted:
            attempt.send(None)

    def lose(self, number: int, how: Callable[[int], Decision]):
        del self.running[number]
        self.record(how(number))

    def record(self, decision: Decision):
        self.store.record(decision, self.state.live)
        self.check_running()
        loaded, state = self.store.load(self.kind).recorded(), self.state.recorded()
        if self.state.stopping and self.state.stopping[0] is not RunStatus.FAILED:
            state["stopping"] = None  # a pause is a status of the run, not part of its state
        promise(loaded == state, "what was decided is what was recorded", loaded, state)
        self.hand_out()
        for attempt in self.running.values():
            if attempt.waits and not self.must_wait(attempt):
                attempt.waits = False
                self.state.unblocks(attempt.dispatch.number)
        promise(self.state.stopping or not self.state.stuck(), "nobody is given up who can go on", self.state.waits())

    def hand_out(self):
        for number in self.state.take_ready():
            promise(number not in self.queue and number not in self.running, "a dispatch is handed out once", number)
            self.queue.append(number)
        self.timers += [(moment, number) for number, moment in self.state.take_delayed()]
        at_work = self.queue or self.running or self.state.stopping or not self.state.live
        promise(self.state.is_idle is not bool(at_work), "a run is idle if nothing of it runs, or may", self.queue, self.running)

    def check_running(self):
        live, lines = self.state.live, self.state.lines
        running = {number for number, entry in live.items() if entry.status is RUNNING}
        promise(running == self.running.keys(), "what runs is what was started")
        promise(running <= {line[0] for line in lines.values()}, "an instance runs one dispatch at a time")
        for entry in live.values():
            into = entry.merges_into
            promise(into is None or (entry.status is BEHIND and into in running), "only what runs has followers", entry)

    def check_end(self):
        for row in self.store.rows.values():
            host = row
            while host.status is MERGED:
                host = self.store.rows[host.merged_into]
            promise(host.status is COMPLETED, "no dispatch is lost", row)
            for key, version in host.reads.items():
                promise(version >= self.store.newest(key, row.version), "a merged dispatch sees what its dispatcher wrote", row)
        values = {key: self.store.values.get(key) for key in self.program.ends}
        promise(values == self.program.ends, "the run ends as one that was not disturbed", values)
