"""What a simulated run records: rows that know decisions alone, and load the state anew as the store does."""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from liteflow.engine.state import Decision, Entry, RunState
from liteflow.model import Dispatch, RunStatus, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

CANCELLED, COMPLETED, MERGED, PENDING = TaskStatus.CANCELLED, TaskStatus.COMPLETED, TaskStatus.MERGED, TaskStatus.PENDING
FINAL = (CANCELLED, COMPLETED, MERGED)
GONE = object()  # the value of a key that was deleted or never written


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
    not_before: datetime | None
    wait_for: tuple[str, ...]
    join: int | None
    attempts: int = 0
    failures: int = 0
    reads: dict[str, int] = field(default_factory=dict)
    output: object = None
    leaf: bool = False
    ended: int = 0  # the version of the context with which it completed


@dataclass
class Rows:
    rows: dict[int, Row] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0]))
    version: int = 0
    given: dict[str, int] = field(default_factory=dict)  # the first version at which a key got a value in this run
    steps: dict[tuple[int, str], object] = field(default_factory=dict)
    run: RunStatus = RunStatus.RUNNING
    failed: int | None = None

    # -- what is recorded ------------------------------------------------------------------------------------------

    def write(self, key: str, value: object):
        self.version += 1
        self.versions[key].append(self.version)
        self.values[key] = value
        if value is not GONE:
            self.given.setdefault(key, self.version)

    def complete(self, number: int, reads: dict[str, int], output: object, *, leaf: bool):
        row = self.rows[number]
        row.status, row.reads, row.output, row.leaf, row.ended = COMPLETED, reads, output, leaf, self.version

    def record(self, decision: Decision, live: dict[int, Entry]):
        for dispatch, status, into, not_before, wait_for, join in decision.dispatched:
            if into is None and status is PENDING and dispatch.instance > 1:
                keys = [row.dispatch.key for row in self.rows.values()]
                promise(dispatch.key not in keys, "no instance number is used twice", dispatch)
            promise(dispatch.number == len(self.rows) + 1, "dispatches are numbered in order", dispatch)
            self.rows[dispatch.number] = Row(dispatch, status, into, self.version, not_before, wait_for, join)
        for number, into in decision.merged:
            self.rows[number].status, self.rows[number].merged_into = MERGED, into
        for number, status in decision.moved:
            row, entry = self.rows[number], live[number]
            row.status, row.merged_into = status, None
            row.failures, row.not_before = entry.failures, entry.not_before
        self.run = decision.run or self.run
        if self.run is RunStatus.CANCELLED:
            for row in self.live():
                row.status = CANCELLED

    # -- what is loaded --------------------------------------------------------------------------------------------

    def live(self) -> list[Row]:
        return [row for row in self.rows.values() if row.status not in FINAL]

    def load(self, kind: type[RunState]) -> RunState:
        live = self.live()
        keys = {row.dispatch.key for row in live}
        done = [row.dispatch for row in self.rows.values() if row.status is COMPLETED]
        spawned: dict[str, int] = {}
        for row in self.rows.values():
            if row.dispatch.instance > 1:
                spawned[row.dispatch.task_id] = max(spawned.get(row.dispatch.task_id, 1), row.dispatch.instance)
        return kind.load(
            self._entries(live),
            spawned=spawned,
            produced=[d.key for d in done if d.instance == 1 or d.key in keys],
            next_number=len(self.rows) + 1,
            failed=self.failed,
        )

    def _entries(self, live: Iterable[Row]) -> list[Entry]:
        entries = {
            row.dispatch.number: Entry(
                row.dispatch, row.status, row.attempts, row.merged_into, failures=row.failures, not_before=row.not_before,
                wait_for=row.wait_for, missing=set(row.wait_for) - self.given.keys(), join=row.join,
            )
            for row in live
        }  # fmt: skip
        for number, entry in entries.items():
            if entry.join in entries:
                entries[entry.join].members.add(number)
            if entry.dispatch.joins:
                merged = [row for row in self.members(number) if row.status is MERGED]
                entry.members |= {self.host(row).dispatch.number for row in merged} & entries.keys()
        return list(entries.values())

    # -- what follows from it --------------------------------------------------------------------------------------

    def members(self, join: int) -> list[Row]:
        """Return the dispatches that *join* waits for, those that were merged among them; none if it is no join."""
        return [self.rows[number] for number in range(join - (self.rows[join].dispatch.joins or 0), join)]

    def host(self, row: Row) -> Row:
        """Return who does the work of *row*."""
        while row.status is MERGED:
            row = self.rows[row.merged_into]
        return row

    def newest(self, key: str, upto: int) -> int:
        """Return the version of *key* as of a version of the context."""
        return self.versions[key][bisect(self.versions[key], upto) - 1]
