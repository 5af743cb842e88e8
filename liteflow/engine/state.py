"""What happens next in a run: the rules, and nothing else.

`RunState` is told what happened and answers with a `Decision`: what to record and how the run stands now. It knows no clock,
thread, database or executor, so recovery is loading the rows into the same class and going on.
"""

from __future__ import annotations

import operator
from collections import deque
from typing import TYPE_CHECKING

from liteflow.engine.decision import Decision, Entry, Recorded, Request
from liteflow.engine.holds import Holds
from liteflow.engine.turns import Turns
from liteflow.model import Dispatch, RunStatus, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

BEHIND, FAILED, MERGED = TaskStatus.BEHIND, TaskStatus.FAILED, TaskStatus.MERGED
PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING


class RunState:
    """The live part of one run.

    Args:
        equal: whether two encoded inputs stand for equal values.
    """

    def __init__(self, equal: Callable[[str | None, str | None], bool] = operator.eq) -> None:
        self._equal = equal
        self.live: dict[int, Entry] = {}
        self.lines: dict[str, list[int]] = {}  # instance key -> its active dispatch, then the turns behind it
        self.instances: dict[str, dict[str, None]] = {}  # task id -> keys of its active instances, oldest first
        self.spawned: dict[str, int] = {}  # task id -> highest instance number used
        self.produced: set[str] = set()  # keys with an output in this run: plain ids, and active spawned ones
        self.next_number = 1
        self.stopping: tuple[RunStatus, int | None] | None = None  # how the run will stand once what runs has ended
        self._holds = Holds()
        self._ready: deque[int] = deque()
        self._handed: set[int] = set()  # given out to be run, and not come back
        self._turns = Turns()

    @classmethod
    def load(  # noqa: PLR0913 - the row sets a run consists of
        cls,
        entries: Iterable[Entry],
        *,
        spawned: dict[str, int],
        produced: Iterable[str],
        next_number: int,
        failed: int | None = None,
        equal: Callable[[str | None, str | None], bool] = operator.eq,
    ) -> RunState:
        """Return the state that these rows record; *entries* in dispatch order, with the members of joins that are live."""
        state = cls(equal)
        for entry in sorted(entries, key=lambda entry: entry.dispatch.instance):  # the oldest instance has the lowest number
            state._enter(entry)
        state.spawned, state.produced, state.next_number = dict(spawned), set(produced), next_number
        if failed is not None:
            state.stopping = (RunStatus.FAILED, failed)
        return state

    def recorded(self) -> dict[str, object]:
        """Return all that the store must know of this state, for comparison with a loaded one."""
        return {
            "live": {
                n: (e.dispatch, PENDING if e.status is RUNNING else e.status, e.merges_into, e.failures, *e.waits_until)
                for n, e in self.live.items()
            },
            "lines": self.lines,
            "instances": {task: list(keys) for task, keys in self.instances.items()},
            "spawned": {task: n for task, n in self.spawned.items() if n > 1},
            "produced": self.produced,
            "next_number": self.next_number,
            "stopping": self.stopping,
        }

    # -- what happened ---------------------------------------------------------------------------------------------

    def start(self, request: Request) -> Decision:
        """The run begins with *request*."""
        decision = Decision()
        self._dispatch(request, None, decision)
        return decision

    def begin(self, number: int) -> int | None:
        """An executor is about to run *number*; return which attempt it is, or ``None`` if it must not run now."""
        entry = self.live.get(number)
        if entry is None or entry.status is not PENDING or self.stopping:
            self._handed.discard(number)
            return None
        entry.status = RUNNING
        entry.attempts += 1
        return entry.attempts

    def completed(
        self, number: int, requests: Sequence[Request], join: Request | None = None, *,
        wrote: Collection[str] = (), outdated: Collection[str] = (),
    ) -> Decision:  # fmt: skip
        """The attempt of *number* returned.

        Args:
            number: the dispatch.
            requests: what it asks to run next.
            join: what it asks to run once all those have completed.
            wrote: the keys it wrote, its output's among them.
            outdated: the keys it had read that others have changed since (`""` stands for what its writes cannot clash with).
        """
        clash = [key for key in outdated if key in wrote]
        if clash:
            return self._conflict(number, clash)
        decision = Decision()
        entry = self.live.pop(number)
        self._handed.discard(number)
        self._ready.extend(self._turns.release(number, for_good=True))
        self.produced.add(entry.dispatch.key)
        self._next_turn(entry.dispatch, decision, outdated=bool(outdated))
        joins = self._holds.completed(number)
        decision.leaf = not requests and join is None and not joins
        self._become_ready(joins)
        of_join = None if join is None else self.next_number + len(requests)
        members = {self._dispatch(request, number, decision, of_join) for request in requests}
        if join is not None:
            self._dispatch(join, number, decision, members=members, size=len(requests))
        return self._settle(decision)

    def checkpointed(self, number: int, *, wrote: Collection[str], outdated: Collection[str]) -> Decision:
        """The attempt of *number* asks for its writes to be committed while it goes on."""
        clash = [key for key in outdated if key in wrote]
        return self._conflict(number, clash) if clash else Decision()

    def written(self, keys: Iterable[str]) -> None:
        """These keys have been written, by a task or from outside."""
        if self._holds.awaits_keys:
            self._become_ready(self._holds.written(keys))

    def failed(self, number: int) -> Decision:
        """The attempt of *number* failed for good: no further instance starts, and the run fails once what runs has ended."""
        self.live[number].failures += 1
        decision = self._back(number, FAILED)
        if self.stopping is None or self.stopping[0] is RunStatus.PAUSED:
            self.stopping = (RunStatus.FAILED, number)
        return self._settle(decision)

    def retried(self, number: int, not_before: datetime) -> Decision:
        """The attempt of *number* failed, and is to be tried again at a time."""
        entry = self.live[number]
        entry.failures, entry.not_before, entry.is_due = entry.failures + 1, not_before, False
        return self._settle(self._back(number, PENDING))

    def given_up(self, number: int) -> Decision:
        """The attempt of *number* was abandoned or lost; its dispatch is to run again."""
        return self._settle(self._back(number, PENDING))

    def stop(self, status: RunStatus) -> Decision:
        """Nothing more starts; the run stands in *status* once what runs has ended. A cancelled one stays so."""
        if self.stopping is None or status is RunStatus.CANCELLED:
            self.stopping = (status, None)
        return self._settle(Decision())

    def resume(self) -> Decision:
        """A process takes up a run that was interrupted, paused or failed: what did not complete runs again."""
        decision, self.stopping = Decision(run=RunStatus.RUNNING), None
        for line in sorted(self.lines.values()):
            head = self.live[line[0]]
            self._merge_followers(line[0], decision)
            if head.status is not PENDING:
                head.status = PENDING
                decision.moved.append((line[0], PENDING))
            self._be_ready(head)
        return decision

    def due(self, number: int) -> None:
        """The time has come at which *number* may start."""
        entry = self.live.get(number)
        if entry is not None and entry.not_before is not None and not entry.is_due:
            entry.is_due = True
            self._become_ready([entry])

    # -- what to start ---------------------------------------------------------------------------------------------

    def take_ready(self) -> list[int]:
        """Return the dispatches to hand to the executor now, in order, each once."""
        if self.stopping or not self._ready:
            return []
        ready, self._ready = self._ready, deque()
        numbers = [n for n in dict.fromkeys(ready) if n in self.live and n not in self._handed]
        self._handed.update(numbers)
        return numbers

    def take_delayed(self) -> list[tuple[int, datetime]]:
        """Return the dispatches of which `due` is to be told, and when, each once."""
        delayed, self._holds.delayed = self._holds.delayed, []
        return delayed

    @property
    def is_idle(self) -> bool:
        """Whether all that is left waits: for a time, for a key to be written, or for another dispatch that does."""
        return not self._ready and not self._handed and not self._turns and bool(self.live) and not self.stopping

    # -- who waits for what ----------------------------------------------------------------------------------------

    def must_wait(self, key: str, caller: int | None) -> bool:
        """Whether a ``get`` of *key* waits for an instance that is dispatched, not finished, and has given no output yet."""
        line = self.lines.get(key)
        return line is not None and key not in self.produced and (caller is None or self.live[caller].dispatch.key != key)

    def blocks(self, number: int, key: str) -> bool:
        """The attempt of *number* waits for *key*; return whether that closes a circle of waits, so that it can never end.

        Its turns over contended keys pass on, as what it waits for may need them: afterwards `take_ready` may have more.
        """
        self.live[number].waits_for = key
        self._ready.extend(self._turns.release(number, for_good=False))
        wanted: str | None = key
        for _ in range(len(self.live)):
            line = self.lines.get(wanted) if wanted is not None and wanted not in self.produced else None
            if line is None:
                return False
            if line[0] == number:
                return True
            wanted = self.live[line[0]].waits_for
        return False

    def unblocks(self, number: int) -> None:
        """The attempt of *number* waits no longer."""
        entry = self.live.get(number)
        if entry is not None:
            entry.waits_for = None

    def stuck(self) -> list[int]:
        """Return whose waits can never end: nothing runs or will start that could produce what they wait for.

        Those that wait for an instance which itself waits are not among them: it may yet go on. A join starts only when
        others end, so it is no reason to hope.
        """
        waiting: list[Entry] = []
        for entry in self.live.values():
            if entry.waits_for is not None:
                waiting.append(entry)
            elif entry.status is RUNNING or (entry.status is PENDING and not entry.members and not self.stopping):
                return []
        roots = [e for e in waiting if self.stopping or e.waits_for not in self.lines]
        return [entry.dispatch.number for entry in roots or waiting]

    def waits(self) -> dict[str, str]:
        """Return which instance waits for which key."""
        return {e.dispatch.key: e.waits_for for e in self.live.values() if e.waits_for is not None}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _enter(self, entry: Entry) -> None:
        """Put a dispatch that is not final where it belongs."""
        dispatch = entry.dispatch
        key = dispatch.key
        self.live[dispatch.number] = entry
        line = self.lines.setdefault(key, [])
        if not line:
            self.instances.setdefault(dispatch.task_id, {})[key] = None
        line.append(dispatch.number)
        if entry.missing or entry.members:
            self._holds.enter(entry)

    def _dispatch(  # noqa: PLR0913, PLR0917 - what a dispatch may be
        self, request: Request, by: int | None, decision: Decision, join: int | None = None, members: Collection[int] = (),
        size: int | None = None,
    ) -> int:  # fmt: skip
        """Rule R6: a new instance, one more turn of an active one, or nothing that is not already coming.

        *join* is to wait for it; it is itself the join of so many (*size*) dispatches, of which *members* are live. Return the
        dispatch whose completion completes this one.
        """
        number, self.next_number = self.next_number, self.next_number + 1
        task_id, inputs = request.task_id, request.inputs
        active = self.instances.get(task_id)
        status, merges_into, instance = PENDING, None, 1
        if active and request.spawn_another:
            instance = self.spawned[task_id] = self.spawned.get(task_id, 1) + 1
        elif active:
            twin = self._twin(active, request) if size is None else None
            host = self.live[self.lines[next(iter(active))][0] if twin is None else twin]
            instance, merges_into = host.dispatch.instance, twin
            status = MERGED if twin is not None and host.status is not RUNNING else BEHIND
        dispatch = Dispatch(number, task_id, instance, inputs, by, size)
        decision.dispatched.append(Recorded(dispatch, status, merges_into, request.not_before, request.wait_for, join))
        if status is MERGED and merges_into is not None:
            return merges_into
        entry = Entry(
            dispatch, status, merges_into=merges_into, not_before=request.not_before, wait_for=request.wait_for,
            missing=set(request.missing), members=set(members), join=join,
        )  # fmt: skip
        self._enter(entry)
        self._be_ready(entry)
        return number

    def _twin(self, keys: Iterable[str], request: Request) -> int | None:
        """Return the dispatch with equal inputs that a new one merges into: one that has not started, else one that runs.

        Delayed ones merge with none, those that wait for keys with those that wait for the same, joins never.
        """
        running = None
        for number in () if request.not_before else (n for key in keys for n in self.lines[key]):
            entry = self.live[number]
            begun = entry.attempts > 0
            waits_alike = entry.not_before is None and entry.wait_for == request.wait_for
            may = waits_alike and not begun if request.missing else waits_alike or begun
            if may and entry.dispatch.joins is None and self._equal(entry.dispatch.inputs, request.inputs):
                if entry.status is not RUNNING:
                    return number
                running = running or number
        return running

    def _conflict(self, number: int, keys: Collection[str]) -> Decision:
        """Rule R5: run again, and take turns with those that lost over the same keys."""
        decision = self._back(number, PENDING, ready=False)
        decision.conflicted = True
        self._ready.extend(self._turns.lost(number, keys))
        return self._settle(decision)

    def _back(self, number: int, status: TaskStatus, *, ready: bool = True) -> Decision:
        """An attempt came to nothing: its dispatch stands in *status*, and sees all when it runs again."""
        decision = Decision()
        entry = self.live[number]
        entry.status, entry.waits_for = status, None
        self._handed.discard(number)
        decision.moved.append((number, status))
        self._ready.extend(self._turns.release(number, for_good=False))
        self._merge_followers(number, decision)
        if ready and status is PENDING:
            self._be_ready(entry)
        return decision

    def _be_ready(self, entry: Entry) -> None:
        """Start it now, or have its time told. One that is behind asks again when its turn comes."""
        if entry.status is PENDING:
            if entry.not_before is not None:
                self._holds.delay(entry)
            self._become_ready((entry,))

    def _become_ready(self, entries: Iterable[Entry]) -> None:
        """These wait for something less: start those that wait for nothing more."""
        for entry in entries:
            if entry.status is PENDING and entry.is_free:
                self._ready.append(entry.dispatch.number)

    def _merge_followers(self, number: int, decision: Decision) -> None:
        """Merge for good what was to merge into *number*: its next attempt starts at the top."""
        for follower in self.lines[self.live[number].dispatch.key][1:]:
            if self.live[follower].merges_into == number:
                self._merge(follower, number, decision)

    def _merge(self, number: int, into: int, decision: Decision) -> None:
        line = self.lines[self.live.pop(number).dispatch.key]
        line.remove(number)
        decision.merged.append((number, into))
        self._holds.merged(number, into)

    def _next_turn(self, done: Dispatch, decision: Decision, *, outdated: bool) -> None:
        """*done* has completed: drop the turns it made needless and let the next one start."""
        key = done.key
        line = self.lines[key]
        line.remove(done.number)
        for number in list(line):
            entry = self.live[number]
            if entry.merges_into == done.number:
                if outdated:
                    entry.merges_into = None
                    decision.moved.append((number, BEHIND))
                else:
                    self._merge(number, done.number, decision)
        if line:
            head = self.live[line[0]]
            head.status, head.merges_into = PENDING, None
            decision.moved.append((line[0], PENDING))
            self._be_ready(head)
            return
        del self.lines[key]
        keys = self.instances[done.task_id]
        del keys[key]
        if not keys:
            del self.instances[done.task_id]
        if done.instance > 1:
            self.produced.discard(key)  # its number is never used again

    def _settle(self, decision: Decision) -> Decision:
        """Say how the run stands, if it ends with this decision."""
        if not self.live:
            decision.run = RunStatus.COMPLETED  # also when it was to be stopped: there is nothing left to resume
        elif self.stopping and not any(entry.status is RUNNING for entry in self.live.values()):
            decision.run = self.stopping[0]
        return decision
