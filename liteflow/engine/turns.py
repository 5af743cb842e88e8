"""Whose turn it is over keys that several attempts read and wrote: who lost a conflict goes before who comes, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class Turns:
    """The turns that those take who lost a conflict, so that N of them end within a number of attempts linear in N."""

    def __init__(self) -> None:
        self._contends: dict[int, frozenset[str]] = {}  # dispatch -> the keys over which it has lost
        self._holders: dict[str, int] = {}  # contended key -> whose turn it is
        self._in_line: list[int] = []  # who waits for a turn, in the order of the losses

    def __bool__(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._in_line)

    def lost(self, number: int, keys: Collection[str]) -> list[int]:
        """A dispatch lost over these keys; return whose turn it is now."""
        self._contends[number] = self._contends.get(number, frozenset()) | frozenset(keys)
        self._in_line.append(number)
        return self._next()

    def release(self, number: int, *, for_good: bool) -> list[int]:
        """Pass on the turns that a dispatch holds; return whose turn it is now."""
        if number not in self._contends:
            return []
        self._holders = {key: holder for key, holder in self._holders.items() if holder != number}
        if for_good:
            del self._contends[number]
        return self._next()

    def _next(self) -> list[int]:
        """Give a turn to each in the line whose keys nobody holds, nor anybody before it wants."""
        given = []
        taken = set(self._holders)
        for number in list(self._in_line):
            contends = self._contends[number]
            if taken.isdisjoint(contends):
                self._in_line.remove(number)
                self._holders.update(dict.fromkeys(contends, number))
                given.append(number)
            taken |= contends
        return given
