"""The committed values of a run's context, as its driver knows them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from liteflow.model import ABSENT, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_KEYS = 16_384
MOST_CHARACTERS = 32 << 20


class Values:
    """A bounded cache of committed values, with the writes of the commit under way laid over it.

    Absent keys are cached too: only this run commits to the context, or says that somebody else did.

    Args:
        version: the context's version.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self._cache: OrderedDict[str, Value] = OrderedDict()
        self._characters = 0
        self._staged: dict[str, Value] = {}
        self._keys: dict[str, int] | None = None  # all keys that have a value, once somebody asked for them
        self.keys_changed_at = 0  # the version at which the set of keys last changed, since somebody asked
        self.touched_at: dict[str, int] = {}  # task id -> the version with which it was last dispatched, or put something out
        self.evictions = 0

    def committed(self, key: str) -> Value | None:
        """Return the committed value of *key*, or ``None`` if it must be loaded first."""
        value = self._cache.get(key)
        if value is not None:
            self._cache.move_to_end(key)
        return value

    def loaded(self, key: str, value: Value, evictions: int) -> None:
        """Cache a value that was read from the store, unless a newer one may have come and gone since *evictions*."""
        if key not in self._cache and evictions == self.evictions:
            self._keep(key, value)

    def newest(self, key: str, load: Callable[[str], Value]) -> Value:
        """Return the value of *key* as of the commit under way; *load* gets what is not cached."""
        return self._staged.get(key) or self._cache.get(key) or load(key)

    def keys(self) -> list[str] | None:
        """Return all keys that have a value in the order of their first writes, or ``None`` if they must be loaded first."""
        return None if self._keys is None else list(self._keys)

    def loaded_keys(self, keys: dict[str, int], version: int) -> None:
        """Take the keys read from the store, unless a commit has come between."""
        if version == self.version:
            self._keys = keys

    def stage(self, key: str, text: str | None) -> int:
        """Lay a write over the committed values; return its version."""
        self.version += 1
        self._staged[key] = Value(self.version, text)
        if self._keys is not None and (key in self._keys) is (text is None):
            self.keys_changed_at = self.version
            if text is None:
                del self._keys[key]
            else:
                self._keys[key] = self.version
        return self.version

    def publish(self) -> Iterable[str]:
        """The commit under way has succeeded: its writes are the committed values now. Return their keys."""
        staged, self._staged = self._staged, {}
        for key, value in staged.items():
            self._keep(key, value)
        return staged

    def outside(self, writes: Iterable[tuple[int, str, str | None]]) -> list[str]:
        """Take in what others have committed; return the keys to which they gave a value."""
        given = []
        for version, key, text in writes:
            self.version = version - 1
            self.stage(key, text)
            if text is not None:
                given.append(key)
        return given

    def _keep(self, key: str, value: Value) -> None:
        old = self._cache.pop(key, ABSENT)
        self._cache[key] = value
        self._characters += len(value.text or "") - len(old.text or "")
        while len(self._cache) > 1 and (len(self._cache) > MOST_KEYS or self._characters > MOST_CHARACTERS):
            _, dropped = self._cache.popitem(last=False)
            self.evictions += 1
            self._characters -= len(dropped.text or "")
