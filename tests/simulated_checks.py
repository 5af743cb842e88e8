"""What must hold in a simulated run: after each decision, when a dispatch begins, and in the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from liteflow.model import RunStatus, TaskStatus
from tests.simulated_store import promise

if TYPE_CHECKING:
    from datetime import datetime

    from liteflow.engine.state import Decision, RunState
    from tests.simulated_store import Row, Rows
    from tests.simulated_tasks import Program

BEHIND, COMPLETED, MERGED, RUNNING = TaskStatus.BEHIND, TaskStatus.COMPLETED, TaskStatus.MERGED, TaskStatus.RUNNING


class Checks:
    """The promises of a run, each in the plainest words, from the rows where they say it.

    Attributes:
        effects: how often each thing that makes a run differ from an undisturbed one has had effect.
        told: the dispatches that know that their time has come.
        unheard: the keys written from outside of which the run does not know yet.
        failures: how often each dispatch failed.
        finds: what each join found when it first began.
    """

    program: Program
    store: Rows
    state: RunState
    now: datetime
    queue: object
    running: dict[int, object]
    cancelled: bool

    def __init__(self):
        self.effects, self.failures = Counter(), Counter()
        self.told: set[int] = set()
        self.unheard: list[str] = []
        self.finds: dict[int, list[object]] = {}

    def count(self, decision: Decision):
        """Note what a decision shows of the program."""
        effects, rows = self.effects, self.store.rows
        effects["conflict"] += decision.conflicted
        effects["join of a merged member"] += sum(rows[number].join is not None for number, _ in decision.merged)
        for new in decision.dispatched:
            effects["join"] += new.dispatch.joins is not None
            effects["join behind"] += new.dispatch.joins is not None and new.status is BEHIND
            effects["follower"] += new.status is BEHIND and new.merged_into is not None
            effects["join of a merged member"] += new.status is MERGED and new.join is not None

    def check_recorded(self, loaded: RunState):
        """What the rows say is what the state is."""
        left, right = loaded.recorded(), self.state.recorded()
        if self.state.stopping and self.state.stopping[0] is not RunStatus.FAILED:
            left["stopping"] = right["stopping"] = None  # a status of the run, not part of its state
        promise(left == right, "what was decided is what was recorded", left, right)

    def check_running(self):
        live, lines = self.state.live, self.state.lines
        running = {number for number, entry in live.items() if entry.status is RUNNING}
        promise(running == self.running.keys(), "what runs is what was started")
        promise(running <= {line[0] for line in lines.values()}, "an instance runs one dispatch at a time")
        for entry in live.values():
            into = entry.merges_into
            promise(into is None or (entry.status is BEHIND and into in running), "only what runs has followers", entry)

    def check_idle(self):
        """A run waits if nothing of it runs or may start: each dispatch waits for a time, a key, a member or its turn."""
        runs = self.running or self.queue or self.state.stopping
        live = {} if runs else {row.dispatch.number: row for row in self.store.live()}
        heads: dict[str, int] = {}
        for number, row in live.items():
            heads.setdefault(row.dispatch.key, number)
        idle = bool(live) and all(
            heads[row.dispatch.key] != number
            or (row.not_before is not None and number not in self.told)
            or any(key not in self.store.given or key in self.unheard for key in row.wait_for)
            or any(self.store.host(member).dispatch.number in live for member in self.store.members(number))
            for number, row in live.items()
        )
        promise(self.state.is_idle == idle, "a run is idle if and only if all of it waits", idle)
        self.effects["idle"] += idle

    def check_begin(self, row: Row):
        number = row.dispatch.number
        promise(not self.cancelled, "nothing starts in a cancelled run", row)
        promise(not self.state.stopping, "nothing starts in a run that is to stand still", row)
        promise(number not in self.running, "a dispatch is not started twice at a time", row)
        promise(self.store.given.keys() >= {*row.wait_for}, "nothing starts before its keys are written", row)
        promise(row.not_before is None or row.not_before <= self.now, "nothing starts before its time", row)
        promise(self.state.live[number].failures == self.failures[number], "failures are counted", row)
        hosts = [self.store.host(member) for member in self.store.members(number)]
        promise(all(host.status is COMPLETED for host in hosts), "a join starts after all its members", row)
        found = [host.output for host in hosts]
        promise(self.finds.setdefault(number, found) == found, "a join finds the same each time", row)

    def check_end(self):
        rows = self.store.rows.values()
        if self.store.run is RunStatus.CANCELLED:
            promise(self.cancelled and not self.store.live() and not self.running, "a cancelled run is over")
            self.effects["cancelled with something left"] += 1
            return
        for row in rows:
            host = self.store.host(row)
            promise(host.status is COMPLETED, "no dispatch is lost", row)
            for key, version in host.reads.items():
                promise(version >= self.store.newest(key, row.version), "a merged dispatch sees what its dispatcher wrote", row)
            given = all(0 < self.store.given.get(key, 0) <= host.ended for key in row.wait_for)
            promise(given, "no dispatch is done before its keys are written", row, host)
            promise(row.join is None or not host.leaf, "what a join waits for is not in the result", row)
        promise(all(row.attempts or row.status is MERGED for row in rows), "what completed had begun")
        values = {key: self.store.values.get(key) for key in self.program.ends}
        promise(values == self.program.ends, "the run ends as one that was not disturbed", values)
