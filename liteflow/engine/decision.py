"""What is asked of a run's state, what it holds, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from liteflow.model import TaskStatus

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from liteflow.model import Dispatch, RunStatus


class Request(NamedTuple):
    """A `NextTask` with its inputs encoded.

    When it is dispatched, its *delay* becomes *not_before*, and *missing* holds the keys of *wait_for* that are not written yet.
    """

    task_id: str
    inputs: str | None = None
    spawn_another: bool = False
    delay: timedelta | None = None
    wait_for: tuple[str, ...] = ()
    not_before: datetime | None = None
    missing: frozenset[str] = frozenset()


@dataclass(slots=True)
class Entry:
    """A dispatch that is not final.

    Attributes:
        dispatch: the recorded request.
        status: pending, running, behind or failed.
        attempts: how many attempts have begun.
        failures: how many of them failed.
        not_before: when it may start at the earliest.
        wait_for: the keys to be written before it may start.
        missing: those of them that are not written yet.
        members: of a join: the dispatches whose completion it still waits for.
        join: the number of the join that waits for this dispatch.
        merges_into: of one that is behind: the running dispatch that makes it needless, unless what that one read changes.
        waits_for: the key its attempt is blocked on; not recorded.
        is_due: whether its time has come; not recorded.
    """

    dispatch: Dispatch
    status: TaskStatus = TaskStatus.PENDING
    attempts: int = 0
    merges_into: int | None = None
    waits_for: str | None = None
    is_due: bool = False
    failures: int = 0
    not_before: datetime | None = None
    wait_for: tuple[str, ...] = ()
    missing: set[str] = field(default_factory=set)
    members: set[int] = field(default_factory=set)
    join: int | None = None

    @property
    def waits_until(self) -> tuple[object, ...]:
        """All that is recorded of what it waits for before it may start."""
        return self.not_before, self.wait_for, self.missing, self.members, self.join

    @property
    def is_free(self) -> bool:
        """Whether it waits for no time, no key and no dispatch before it may start."""
        return (self.not_before is None or self.is_due) and not self.missing and not self.members


class Recorded(NamedTuple):
    """A new dispatch as it is to be recorded."""

    dispatch: Dispatch
    status: TaskStatus
    merged_into: int | None
    not_before: datetime | None = None
    wait_for: tuple[str, ...] = ()
    join: int | None = None


@dataclass(slots=True)
class Decision:
    """What follows from what happened, to be recorded in one transaction.

    Attributes:
        conflicted: the attempt takes no effect and its dispatch runs again, because what it read and wrote was changed meanwhile.
        leaf: the dispatch completed, asked for nothing more, and no join waits for it: its output is in the run's result.
        dispatched: new dispatches, in order.
        merged: pairs of a recorded dispatch and the one that does its work.
        moved: recorded dispatches whose status changed otherwise.
        run: the status the run ends up in now, if it does.
    """

    conflicted: bool = False
    leaf: bool = False
    dispatched: list[Recorded] = field(default_factory=list)
    merged: list[tuple[int, int]] = field(default_factory=list)
    moved: list[tuple[int, TaskStatus]] = field(default_factory=list)
    run: RunStatus | None = None
