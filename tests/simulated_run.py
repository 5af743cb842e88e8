"""`RunState` without clock, thread or database: a simulated executor goes step by step, a store knows decisions alone."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import TYPE_CHECKING

from liteflow.engine.state import Decision, Request, RunState
from liteflow.model import RunStatus
from tests.simulated_checks import RUNNING, Checks
from tests.simulated_store import GONE, Rows, promise
from tests.simulated_tasks import MINUTE, WAIT, Check, Fail, Get, Joined, Once, Program, Set

if TYPE_CHECKING:
    from collections.abc import Callable

    from liteflow.model import Dispatch

TROUBLE = 224  # a byte of a schedule from here on is trouble, a signal from outside, or time that passes
MOST_TROUBLES = 6


class Attempt:
    """One try at a body; *given_up* is one that nobody waits for any more, though it may go on."""

    def __init__(self, dispatch: Dispatch, task: Callable[..., object]):
        self.dispatch, self.own, self.reads, self.earlier = dispatch, {}, {}, {}
        self.waits = self.given_up = self.is_outdated = self.has_checked = False
        self.given: set[str] = set()  # the keys to which it has given a value since its last checkpoint
        self.found: object = GONE  # the result of a step that is not recorded yet
        self.body = task(dispatch.inputs)
        self.send(None)

    def send(self, answer: object):
        """Let the body go on to its next step, or to its end."""
        try:
            self.step, self.result = self.body.send(answer), None
        except StopIteration as end:
            self.step, self.result = None, end.value

    def set(self, key: str, value: object):
        self.own[key] = value
        if value is not GONE:
            self.given.add(key)

    def kept(self, versions: dict[str, int], *, is_outdated: bool):
        """A checkpoint has committed its writes: what follows is a new transaction."""
        self.is_outdated |= is_outdated
        self.earlier = {**self.reads, **self.earlier}
        self.earlier |= {key: versions[key] for key in self.own if key in self.earlier}
        self.own, self.reads, self.given, self.has_checked = {}, {}, set(), True


class Simulation(Checks):
    """One run of a program, its steps chosen by the bytes of *schedule*, then always the first that is possible."""

    def __init__(
        self, program: Program, workers: int, schedule: bytes = b"", kind: type[RunState] = RunState,
        cancel_at: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.program, self.workers, self.kind = program, workers, kind
        self.store, self.state = Rows(), kind()
        self.queue: deque[int] = deque()
        self.running: dict[int, Attempt] = {}
        self.given_up: list[Attempt] = []  # bodies that still go on
        self.now, self.alarms = datetime(2026, 1, 1, tzinfo=UTC), {}
        self.signals, self.steps = dict(program.signals), {}  # to be given; how often each step was run
        self.attempts, self.troubles = 0, MOST_TROUBLES
        self.hands_out, self.cancelled = True, False
        for key, value in program.before.items():
            self.store.write(key, value)
        self.store.given.clear()
        self.commit(lambda: self.state.start(Request("start")))
        for step, choice in enumerate(chain(schedule, repeat(0))):
            if self.store.run in {RunStatus.COMPLETED, RunStatus.CANCELLED}:
                break
            promise(step < 5_000, "the run ends")
            if step == cancel_at:
                self.cancel(at_once=choice % 2 == 0)
            else:
                self.go_on(choice)
        self.check_end()

    # -- what comes next -------------------------------------------------------------------------------------------

    def go_on(self, choice: int):
        going = [attempt for attempt in self.running.values() if not attempt.waits]
        self.hands_out = choice % 7 != 5  # several commits may come before what they dispatched is handed out
        if self.store.run is not RunStatus.RUNNING:
            promise(not self.running, "a run stands still once nothing runs")
            promise(not self.cancelled, "a cancelled run ends cancelled", self.store.run)
            self.take_up()
        elif choice >= TROUBLE and self.has_effect(*divmod(choice - TROUBLE, 4)):
            pass
        elif self.queue and len(going) < self.workers and choice % (len(going) + 1) == len(going):
            self.begin(self.queue.popleft())
        elif going:
            able = [*going, *self.given_up]
            self.advance(able[choice % len(able)])
        else:
            self.wait()

    def wait(self):
        """No body can go on: only now must things happen that may otherwise happen at any time."""
        if self.hand_out():
            return
        hopeless = self.state.stuck()
        if self.state.stopping:
            promise(hopeless, "something can go on", self.state.waits())
            for number in hopeless:
                self.lose(number, self.state.given_up)
        elif self.unheard:
            self.commit(Decision)
        elif not self.pass_time():
            promise(self.signals, "something can go on", self.state.waits())
            self.signal(0)

    def has_effect(self, what: int, which: int) -> bool:
        """Have some trouble, unless it would change nothing."""
        if what == 6:
            return self.signal(which)
        if what == 7:
            return self.pass_time()
        if not self.troubles or (what > 1 and not self.running):
            return False
        self.troubles -= 1
        self.effects["trouble after a cancel"] += self.cancelled
        if what == 0:
            self.effects["crash"] += bool(self.running)
            self.now += MINUTE * which
            self.take_up()
        elif what == 1:
            self.effects["pause"] += not self.state.stopping
            self.commit(lambda: self.state.stop(RunStatus.PAUSED))
        else:
            number = list(self.running)[which % len(self.running)]
            self.effects[("lost worker", "failure", "retry", "timeout")[what - 2]] += 1
            if what == 2:
                self.lose(number, self.state.given_up)
            else:
                self.fail(number, for_good=what == 3 or which == 3, still_runs=what == 5)
        return True

    def signal(self, which: int) -> bool:
        """Somebody outside writes a key, of which the run hears with its next commit."""
        if not self.signals:
            return False
        key = list(self.signals)[which % len(self.signals)]
        self.store.write(key, self.signals.pop(key))
        self.effects["signal"] += any(key in row.wait_for for row in self.store.live())
        self.unheard.append(key)
        return True

    def pass_time(self) -> bool:
        """The next alarm goes off."""
        if not self.alarms:
            return False
        number = min(self.alarms, key=lambda number: (self.alarms[number], number))
        self.now = max(self.now, self.alarms.pop(number))
        self.told.add(number)
        self.effects["time"] += 1
        self.state.due(number)
        self.check_idle()
        self.may_hand_out()
        return True

    def take_up(self):
        """Another process goes on with the rows alone."""
        for number in list(self.running):
            self.let_go(number)
        for known in (self.given_up, self.queue, self.alarms, self.unheard, self.told):
            known.clear()
        self.state, self.cancelled = self.store.load(self.kind), False
        self.store.failed = None
        self.commit(self.state.resume)

    def cancel(self, *, at_once: bool):
        """Whoever cancels is told so once the run stands cancelled; *at_once*, nobody waits for what runs."""
        self.cancelled = True
        self.effects["cancel"] += 1
        self.effects["cancel of a run that stops"] += self.state.stopping is not None and bool(self.running)
        self.commit(lambda: self.state.stop(RunStatus.CANCELLED))
        for number in list(self.running) if at_once else ():
            self.given_up.append(self.running[number])
            self.lose(number, self.state.given_up)

    # -- attempts --------------------------------------------------------------------------------------------------

    def begin(self, number: int):
        attempt = self.state.begin(number)
        if attempt is None:
            promise(self.state.stopping, "what is handed out may start", number)
            return
        self.attempts += 1
        row = self.store.rows[number]
        self.check_begin(row)
        promise(attempt == row.attempts + 1, "attempts are counted", number)
        if number % 2:  # only some attempts are recorded when they begin
            row.status = RUNNING
        row.attempts = attempt
        self.running[number] = Attempt(row.dispatch, self.program.bodies[row.dispatch.task_id])
        self.check_running()

    def advance(self, attempt: Attempt):
        """Take the next step of an attempt: read, write or return."""
        step = attempt.step
        if attempt.given_up:
            self.given_up.remove(attempt)  # each further call raises, its return is not heard
            self.effects["late call" if step else "late return"] += 1
            self.effects["late end"] += 1
        elif step is None:
            self.end(attempt)
        elif isinstance(step, Get):
            self.get(attempt, *step)
        elif isinstance(step, Set):
            attempt.set(*step)
            attempt.send(None)
        elif isinstance(step, Joined):
            attempt.send(self.joined(attempt.dispatch))
        elif isinstance(step, Once):
            self.once(attempt, step.name)
        elif isinstance(step, Check):
            self.checkpoint(attempt)
        elif isinstance(step, Fail) and self.store.rows[attempt.dispatch.number].failures < step.times:
            self.fail(attempt.dispatch.number, for_good=False, still_runs=False)
        else:
            attempt.send(None)

    def get(self, attempt: Attempt, key: str, default: object):
        if self.must_wait(attempt):
            attempt.waits = True
            promise(not self.state.blocks(attempt.dispatch.number, key), "no circle of waits is seen")
            self.may_hand_out()
            return
        if key not in attempt.own:
            attempt.reads.setdefault(key, self.store.versions[key][-1])
        value = attempt.own.get(key, self.store.values.get(key, GONE))
        attempt.send(default if value is GONE else value)

    def must_wait(self, attempt: Attempt) -> bool:
        key, default = attempt.step
        absent = self.store.values.get(key, GONE) is GONE
        return key not in attempt.own and (self.state.must_wait(key, attempt.dispatch.number) or (absent and default is WAIT))

    def joined(self, dispatch: Dispatch) -> list[object] | None:
        """Return the outputs that a join finds, in dispatch order."""
        return None if dispatch.joins is None else [self.store.host(r).output for r in self.store.members(dispatch.number)]

    def once(self, attempt: Attempt, name: str):
        """Run a step, and then, if nothing happens in between, record its result; one that is recorded is not run."""
        place = (attempt.dispatch.number, name)
        if place in self.store.steps:
            self.effects["step kept"] += 1
            attempt.send(self.store.steps[place])
        elif attempt.found is GONE:
            promise(name not in {name for _, name in self.store.steps}, "a recorded step never runs again", name)
            self.steps[name] = attempt.found = self.steps.get(name, 0) + 1
        else:
            self.effects["step"] += 1
            self.store.steps[place], attempt.found = attempt.found, GONE
            attempt.send(self.store.steps[place])

    def checkpoint(self, attempt: Attempt):
        """Commit what an attempt has written so far, unless it lost a conflict."""
        number = attempt.dispatch.number

        def decide() -> Decision:
            outdated = self.outdated(attempt)
            decision = self.state.checkpointed(number, wrote=attempt.own.keys(), outdated=outdated)
            if decision.conflicted:
                self.effects["conflict at a checkpoint"] += 1
                self.let_go(number)
            else:
                self.write(attempt)
                attempt.kept({key: self.store.versions[key][-1] for key in attempt.own}, is_outdated=bool(outdated))
            return decision

        self.effects["checkpoint"] += 1
        self.commit(decide)
        if number in self.running and self.running[number] is attempt:
            attempt.send(None)

    def end(self, attempt: Attempt):
        """The attempt returned: commit it, unless it lost a conflict."""
        number = attempt.dispatch.number
        output, requests, join = (*attempt.result, None)[:3]

        def decide() -> Decision:
            asked = [self.held(request, attempt) for request in requests]
            joins = None if join is None else self.held(join, attempt)
            wrote = {*attempt.own, attempt.dispatch.key}
            decision = self.state.completed(number, asked, joins, wrote=wrote, outdated=self.outdated(attempt))
            self.let_go(number, lost=decision.conflicted)
            if not decision.conflicted:
                attempt.set(attempt.dispatch.key, output)
                self.write(attempt)
                self.store.complete(number, {**attempt.reads, **attempt.earlier}, output, leaf=decision.leaf)
            return decision

        self.commit(decide)

    def held(self, request: Request, attempt: Attempt) -> Request:
        """Return a request with what it must wait for from now on."""
        missing = frozenset(key for key in request.wait_for if key not in attempt.given and key not in self.store.given)
        return request._replace(not_before=self.now + request.delay if request.delay else None, missing=missing)

    def outdated(self, attempt: Attempt) -> list[str]:
        newest = self.store.versions
        is_outdated = attempt.is_outdated or any(newest[key][-1] != version for key, version in attempt.earlier.items())
        return [key for key, version in attempt.reads.items() if newest[key][-1] != version] + [""] * is_outdated

    def write(self, attempt: Attempt):
        for key, value in attempt.own.items():
            self.store.write(key, value)
        for key in attempt.given:
            self.store.given.setdefault(key, self.store.version)  # also one that it has deleted again
        self.state.written(attempt.given)

    def fail(self, number: int, *, for_good: bool, still_runs: bool):
        """The attempt of *number* failed, or its time was over: then its body may go on."""
        self.failures[number] += 1
        self.told.discard(number)
        if still_runs:
            self.given_up.append(self.running[number])
        if for_good:
            self.store.failed = self.store.failed or number
            self.lose(number, self.state.failed)
        else:
            self.lose(number, lambda number: self.state.retried(number, self.now + MINUTE))

    def lose(self, number: int, how: Callable[[int], Decision]):
        self.let_go(number)
        self.commit(lambda: how(number))

    def let_go(self, number: int, *, lost: bool = True):
        attempt = self.running.pop(number)
        attempt.given_up = True
        self.effects["checkpoint kept"] += lost and attempt.has_checked

    # -- commits ---------------------------------------------------------------------------------------------------

    def commit(self, decide: Callable[[], Decision]):
        """Hear what others have written, and record what is decided."""
        keys, self.unheard = self.unheard, []
        self.state.written(keys)
        decision = decide()
        self.store.record(decision, self.state.live)
        self.count(decision)
        if self.store.run is RunStatus.CANCELLED:
            return
        self.check_running()
        self.check_recorded(self.store.load(self.kind))
        self.check_idle()
        self.may_hand_out()
        for attempt in self.running.values():
            if attempt.waits and not self.must_wait(attempt):
                attempt.waits = False
                self.state.unblocks(attempt.dispatch.number)
        promise(self.state.stopping or not self.state.stuck(), "nobody is given up who can go on", self.state.waits())

    def may_hand_out(self):
        if self.hands_out:
            self.hand_out()

    def hand_out(self) -> bool:
        """Return whether anything more may start, now or at a time."""
        delayed, ready = self.state.take_delayed(), self.state.take_ready()
        for number, moment in delayed:
            promise(number not in self.alarms, "a time is told once", number)
            self.alarms[number] = moment
        for number in ready:
            promise(number not in self.queue and number not in self.running, "a dispatch is handed out once", number)
            self.queue.append(number)
        self.check_idle()
        return bool(delayed or ready)
