"""What keeps dispatches from starting: a time, keys that are to be written, the members of a join. As pure as `RunState`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from liteflow.engine.decision import Entry


class Holds:
    """The dispatches of one run that wait for something before they may start.

    Attributes:
        delayed: those of which `RunState.due` is to be told, and when, since somebody took note.
    """

    def __init__(self) -> None:
        self.delayed: list[tuple[int, datetime]] = []
        self._awaited: dict[str, list[Entry]] = {}  # key -> who waits for it to be written
        self._watched: dict[int, list[Entry]] = {}  # dispatch -> the joins that wait for it to complete

    @property
    def awaits_keys(self) -> bool:
        """Whether anybody waits for a key to be written."""
        return bool(self._awaited)

    def enter(self, entry: Entry) -> None:
        """Take note of what a new or loaded dispatch waits for, its time excepted."""
        for key in entry.missing:
            self._awaited.setdefault(key, []).append(entry)
        for number in entry.members:
            self._watched.setdefault(number, []).append(entry)

    def delay(self, entry: Entry) -> None:
        """Have the time told at which an entry may start, unless that has come."""
        if entry.not_before is not None and not entry.is_due:
            self.delayed.append((entry.dispatch.number, entry.not_before))

    def written(self, keys: Iterable[str]) -> list[Entry]:
        """These keys have been written; return who waits for nothing more."""
        free = []
        for key in keys:
            for entry in self._awaited.pop(key, ()):
                entry.missing.discard(key)
                if entry.is_free:
                    free.append(entry)
        return free

    def completed(self, number: int) -> list[Entry]:
        """A dispatch has completed; return the joins that were waiting for it."""
        joins = self._watched.pop(number, []) if self._watched else []
        for entry in joins:
            entry.members.discard(number)
        return joins

    def merged(self, number: int, into: int) -> None:
        """Another dispatch does the work of this one: joins wait for that instead."""
        for entry in self.completed(number):
            if into not in entry.members:
                entry.members.add(into)
                self._watched.setdefault(into, []).append(entry)
