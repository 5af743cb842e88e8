"""The stream of a run: numbering its chunks, and following them, history first, then live."""

from __future__ import annotations

import threading
from collections import deque
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from liteflow.bell import Bell
from liteflow.lazily import asyncio
from liteflow.model import StreamChunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

FIRST_BLOCK = 1_000
LARGEST_BLOCK = 64_000
KEPT_IN_MEMORY = 1_000
HEADROOM = 50  # numbers kept back for the outputs of one commit
POLL_SECONDS = 0.03


class Chunk(NamedTuple):
    """A chunk as the driver holds it: encoded, and with the dispatch that wrote it."""

    seq: int
    task_id: str
    key: str
    number: int
    attempt: int
    text: str

    def shown(self, value: object) -> StreamChunk:
        """Return it as its reader gets it."""
        return StreamChunk(self.task_id, value, seq=self.seq, key=self.key, attempt=self.attempt)


class Feed:
    """The stream of a run in the process that drives it.

    Numbers are given from blocks that are reserved on the disk before one of them is shown, so none is ever used twice.

    Args:
        last: the last number that may have been shown before.
        reserved: the highest number that may be shown now.
    """

    def __init__(self, last: int, reserved: int) -> None:
        self._lock = threading.Lock()
        self._news: Bell | None = None  # what those wait for who follow: anything to show
        self._commit: Bell | None = None  # what those wait for who follow what is committed, or who write: a commit
        self.last, self.reserved = last, reserved
        self.floor = last  # chunks up to this number are in the store only
        self._recent: deque[Chunk] = deque()
        self._unrecorded: list[Chunk] = []
        self._recorded_to = last
        self._hidden_from: int | None = None
        self.closed = False

    # -- the driver's side -----------------------------------------------------------------------------------------

    def put(self, number: int, key: str, attempt: int, task_id: str, text: str) -> bool:
        """Add a chunk; return ``False``, adding nothing, if a block of numbers must be reserved first."""
        with self._lock:
            if self.last >= self.reserved - HEADROOM:
                return False
            self.last += 1
            chunk = Chunk(self.last, task_id, key, number, attempt, text)
            self._recent.append(chunk)
            self._unrecorded.append(chunk)
            if self._news is not None:
                self._tell()
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
        while True:
            commit, is_live = self.next_commit()
            if self._has_room or not is_live:
                return
            commit.wait()

    @property
    def _has_room(self) -> bool:
        return self.last < self.reserved - HEADROOM

    def output(self, number: int, key: str, attempt: int, task_id: str, text: str) -> int:
        """Number an output that is about to be committed; it and what follows is shown once `publish` is called."""
        with self._lock:
            self.last += 1
            if self._hidden_from is None:
                self._hidden_from = self.last
            self._recent.append(Chunk(self.last, task_id, key, number, attempt, text))
            return self.last

    def take_unrecorded(self) -> list[Chunk]:
        """Return the chunks to be recorded with the commit under way, in order."""
        with self._lock:
            taken, self._unrecorded = self._unrecorded, []
            self._recorded_to = self.last
            return taken

    def publish(self, *, reserved: int | None = None) -> None:
        """The commit under way has succeeded: show the outputs it holds."""
        with self._lock:
            self._hidden_from = None
            if reserved is not None:
                self.reserved = max(self.reserved, reserved)
            while len(self._recent) > KEPT_IN_MEMORY and self._recent[0].seq <= self._recorded_to:
                self.floor = self._recent.popleft().seq
            if self._news is not None or self._commit is not None:
                self._tell_all()

    def withdraw(self, number: int, attempt: int, after: int = 0) -> None:
        """This attempt came to nothing: show its chunks *after* a number to nobody who has not seen them."""

        def is_lost(chunk: Chunk) -> bool:
            return chunk.number == number and chunk.attempt == attempt and chunk.seq > after

        with self._lock:
            if any(map(is_lost, self._recent)):
                self._recent = deque(chunk for chunk in self._recent if not is_lost(chunk))

    def close(self) -> None:
        """Nothing more comes: let the followers end."""
        with self._lock:
            self.closed = True
            self._tell_all()

    def _tell(self) -> None:
        """There is something to show; the lock is held."""
        if self._news is not None:
            self._news.ring()
            self._news = None

    def _tell_all(self) -> None:
        """There was a commit; the lock is held."""
        self._tell()
        if self._commit is not None:
            self._commit.ring()
            self._commit = None

    # -- the followers' side ---------------------------------------------------------------------------------------

    def since(self, after: int) -> list[Chunk] | Bell | None:
        """Return the chunks after a number, or what rings when there are more; ``None`` if they are in the store.

        An empty list means that the stream is over.
        """
        with self._lock:
            if after < self.floor:
                return None
            end = self._hidden_from
            found = [c for c in self._newest(after) if end is None or c.seq < end]
            if found or self.closed:
                return found
            self._news = self._news or Bell()
            return self._news

    def _newest(self, after: int) -> list[Chunk]:
        """Return what is kept after a number; reads from the end, as followers are mostly close to it."""
        found = []
        for chunk in reversed(self._recent):
            if chunk.seq <= after:
                break
            found.append(chunk)
        found.reverse()
        return found

    def next_commit(self) -> tuple[Bell, bool]:
        """Return what rings at the next commit, and whether there may be one."""
        with self._lock:
            self._commit = self._commit or Bell()
            return self._commit, not self.closed


class Follower:
    """Follows the chunks of a run after a number, in order, until it stands still.

    Args:
        after: the number of the last chunk that was seen; 0 for all.
        view: ``"live"``: chunks as they are written; ``"final"``: only committed ones.
        read: reads recorded chunks after a number, and whether each is committed.
        feed: the stream in this process, if the run is driven here.
        is_live: whether somebody drives the run.
    """

    def __init__(
        self, after: int, view: str, *, read: Callable[[int], list[tuple[Chunk, bool]]], feed: Feed | None,
        is_live: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._after, self._view, self._read, self._feed, self._is_live = after, view, read, feed, is_live

    def __iter__(self) -> Iterator[list[Chunk]]:
        """Yield what is there, as often as there is more."""
        while True:
            found, more = self._look()
            if found:
                yield found
            elif more is None:
                return
            else:
                more.wait(POLL_SECONDS if self._feed is None else None)

    async def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        """Yield what is there, waiting on the event loop for more."""
        while True:
            found, more = await asyncio.to_thread(self._look)  # it may read from the database
            if found:
                yield found
            elif more is None:
                return
            else:
                await more.heard(POLL_SECONDS if self._feed is None else None)

    def _look(self) -> tuple[list[Chunk], Bell | None]:
        """Return the next chunks; or none, and what to wait for before another look, unless the stream is over."""
        feed, is_live_view = self._feed, self._view == "live"
        found = feed.since(self._after) if feed is not None and is_live_view else None
        if isinstance(found, Bell):
            return [], found
        if found is not None:
            return self._seen(found), None
        commit, live = feed.next_commit() if feed is not None else (Bell(), self._is_live())  # asked before reading, so that
        floor = feed.floor if feed is not None else 0  # what comes between is not missed
        recorded = self._read(self._after)
        chunks = self._seen([chunk for chunk, _ in (recorded if is_live_view else takewhile(itemgetter(1), recorded))])
        if not chunks and is_live_view and floor > self._after:
            self._after = floor  # what was recorded is read, the rest is kept here
            return self._look()
        return chunks, commit if live else None

    def _seen(self, chunks: list[Chunk]) -> list[Chunk]:
        if chunks:
            self._after = chunks[-1].seq
        return chunks
