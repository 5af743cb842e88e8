"""What has happened in a run and is not recorded yet, and when that is to be committed."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from liteflow.engine.events import Done
from liteflow.engine.streams import HEADROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from liteflow.engine.events import Event

SECONDS = 0.005  # that a completion may wait, by the clock on the wall, whatever the clock of the flow is
MOST = HEADROOM  # events in one commit; so many completions may wait


class Inbox:
    """The events of one run, in order; used under its lock.

    A worker that has other work takes that while its completion waits for a common commit, but not without end.

    Args:
        commit_later: has `overdue` called in so many `SECONDS`.

    Attributes:
        taken: what the commit under way takes.
        completions: how many of that are completions.
        leaves: how many of those ask for no next task.
        is_waited_for: whether somebody waits for that commit.
        is_queued: whether the run takes part in a commit to come.
        has_more: whether there is more than the commit under way takes.
    """

    def __init__(self, commit_later: Callable[[], object]) -> None:
        self._commit_later, self._is_called = commit_later, False
        self._events: deque[Event] = deque()
        self._uncommitted, self._since = 0, 0.0  # when the first of them came
        self.taken: list[Event] = []
        self.completions = self.leaves = 0
        self.is_queued = self.has_more = self.is_waited_for = False

    def __bool__(self) -> bool:
        """Whether there is anything that no commit has taken."""
        return bool(self._events)

    def put(self, events: Sequence[Event], *, may_wait: bool) -> bool:
        """Add events; return whether a commit is to be queued for, which completions that *may_wait* need not have at once."""
        self._events.extend(events)
        for event in events:
            if isinstance(event, Done):
                self._uncommitted += 1
                if self._uncommitted == 1:
                    self._since = time.monotonic()
            else:
                may_wait = False
        if self.is_queued:
            return False
        self.is_queued = not may_wait or self.is_full
        if not self.is_queued and not self._is_called:
            self._is_called = True
            self._commit_later()
        return self.is_queued

    def overdue(self) -> bool:
        """Return whether anything waits that was to be committed by now."""
        self._is_called = False
        return bool(self._events)

    @property
    def is_full(self) -> bool:
        """Whether workers are far ahead of what is committed."""
        return self._uncommitted >= MOST or (self._uncommitted > 0 and time.monotonic() - self._since >= SECONDS)

    def take(self) -> None:
        """A commit begins, which takes what it can."""
        events = self._events
        self.taken = [events.popleft() for _ in range(min(len(events), MOST))]
        self.is_queued = self.has_more = bool(events)
        self.completions, self.leaves, self.is_waited_for = 0, 0, False
        for event in self.taken:
            if isinstance(event, Done):
                self.completions += 1
                self.leaves += not event.requests
            elif event is not None:
                self.is_waited_for = True

    def committed(self) -> list[Event]:
        """The commit under way has succeeded; return what it took."""
        self._uncommitted, self._since = len(self._events), time.monotonic()
        taken, self.taken = self.taken, []
        return taken

    def close(self) -> list[Event]:
        """Return all that nothing will come of any more."""
        return [*self.taken, *self._events]
