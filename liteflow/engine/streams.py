"""The stream of a run: numbering its chunks, and following them, history first, then live."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING

from liteflow.codec import decode
from liteflow.model import StreamChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_BLOCK = 1_000
LARGEST_BLOCK = 64_000
KEPT_IN_MEMORY = 1_000
HEADROOM = 50  # numbers kept back for the outputs of one commit
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as the driver holds it: encoded, and with the dispatch that wrote it."""

    seq: int
    task_id: str
    key: str
    number: int
    attempt: int
    text: str

    def shown(self) -> StreamChunk:
        """Return it as its reader gets it."""
        return StreamChunk(self.task_id, decode(self.text), seq=self.seq, key=self.key, attempt=self.attempt)


class Feed:
    """The stream of a run in the process that drives it.

    Numbers are given from blocks that are reserved on the disk before one of them is shown, so none is ever used twice.

    Args:
        last: the last number that may have been shown before.
        reserved: the highest number that may be shown now.
    """

    def __init__(self, last: int, reserved: int) -> None:
        self._changed = threading.Condition()
        self.last, self.reserved = last, reserved
        self.floor = last  # chunks up to this number are in the store only
        self._recent: deque[Chunk] = deque()
        self._unrecorded: list[Chunk] = []
        self._recorded_to = last
        self._hidden_from: int | None = None
        self._commits = 0
        self.closed = False

    # -- the driver's side -----------------------------------------------------------------------------------------

    def put(self, number: int, key: str, attempt: int, task_id: str, text: str) -> bool:
        """Add a chunk; return ``False``, adding nothing, if a block of numbers must be reserved first."""
        with self._changed:
            if not self._has_room:
                return False
            self.last += 1
            chunk = Chunk(self.last, task_id, key, number, attempt, text)
            self._recent.append(chunk)
            self._unrecorded.append(chunk)
            self._changed.notify_all()
            return True

    def next_block(self, outputs: int) -> int | None:
        """Return up to which number to reserve with the next commit, of so many outputs; ``None`` if there are enough.

        Blocks double, up to a limit.
        """
        enough = self.last + outputs < self.reserved - HEADROOM
        return None if enough else self.last + max(FIRST_BLOCK, min(LARGEST_BLOCK, self.last))

    @property
    def has_unrecorded(self) -> bool:
        """Whether chunks wait to be recorded."""
        return bool(self._unrecorded)

    def wait_for_block(self) -> None:
        """Wait until a number can be given, or the run is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room or self.closed)

    @property
    def _has_room(self) -> bool:
        return self.last < self.reserved - HEADROOM

    def output(self, number: int, key: str, attempt: int, task_id: str, text: str) -> int:
        """Number an output that is about to be committed; it and what follows is shown once `publish` is called."""
        with self._changed:
            self.last += 1
            if self._hidden_from is None:
                self._hidden_from = self.last
            self._recent.append(Chunk(self.last, task_id, key, number, attempt, text))
            return self.last

    def take_unrecorded(self) -> list[Chunk]:
        """Return the chunks to be recorded with the commit under way, in order."""
        with self._changed:
            taken, self._unrecorded = self._unrecorded, []
            self._recorded_to = self.last
            return taken

    def publish(self, *, reserved: int | None = None) -> None:
        """The commit under way has succeeded: show the outputs it holds."""
        with self._changed:
            self._hidden_from = None
            self._commits += 1
            if reserved is not None:
                self.reserved = max(self.reserved, reserved)
            while len(self._recent) > KEPT_IN_MEMORY and self._recent[0].seq <= self._recorded_to:
                self.floor = self._recent.popleft().seq
            self._changed.notify_all()

    def withdraw(self, number: int, attempt: int) -> None:
        """This attempt came to nothing: show its chunks to nobody who has not seen them."""
        with self._changed:
            if any(chunk.number == number and chunk.attempt == attempt for chunk in self._recent):
                self._recent = deque(c for c in self._recent if (c.number, c.attempt) != (number, attempt))

    def close(self) -> None:
        """Nothing more comes: let the followers end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    # -- the followers' side ---------------------------------------------------------------------------------------

    def since(self, after: int) -> list[Chunk] | None:
        """Return the chunks after a number, waiting for one; empty when the stream is over, ``None`` if they are in the store."""
        with self._changed:
            while after >= self.floor:
                end = self._hidden_from
                found = [c for c in self._newest(after) if end is None or c.seq < end]
                if found or self.closed:
                    return found
                self._changed.wait()
            return None

    def _newest(self, after: int) -> list[Chunk]:
        """Return what is kept after a number; reads from the end, as followers are mostly close to it."""
        found = []
        for chunk in reversed(self._recent):
            if chunk.seq <= after:
                break
            found.append(chunk)
        found.reverse()
        return found

    def wait_for_commit(self, seen: int) -> int:
        """Wait until more was committed than *seen* commits, or the stream is over; return how many were."""
        with self._changed:
            self._changed.wait_for(lambda: self._commits > seen or self.closed)
            return self._commits


def follow(
    after: int, view: str, *, read: Callable[[int], list[tuple[Chunk, bool]]], feed: Feed | None, is_live: Callable[[], bool]
) -> Iterator[StreamChunk]:
    """Yield the chunks of a run after a number, in order, until it stands still.

    Args:
        after: the number of the last chunk that was seen; 0 for all.
        view: ``"live"``: chunks as they are written; ``"final"``: only committed ones.
        read: reads recorded chunks after a number, and whether each is committed.
        feed: the stream in this process, if the run is driven here.
        is_live: whether somebody drives the run.
    """
    commits, pause = -1, threading.Event()
    while True:
        chunks = feed.since(after) if feed is not None and view == "live" else None
        live, floor = False, 0
        if chunks is None:
            live = is_live() if feed is None else not feed.closed  # asked before reading: what comes between is not missed
            floor = 0 if feed is None else feed.floor
            recorded = read(after)
            chunks = [chunk for chunk, _ in (recorded if view == "live" else takewhile(itemgetter(1), recorded))]
        for chunk in chunks:
            yield chunk.shown()
            after = chunk.seq
        if chunks:
            continue
        if view == "live" and floor > after:
            after = floor  # what was recorded is read, the rest is kept here
        elif not live:
            return
        elif feed is not None:
            commits = feed.wait_for_commit(commits)
        else:
            pause.wait(POLL_SECONDS)
