"""Who waits for which key of a run, and what ends the wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liteflow.bell import Bell
from liteflow.errors import DeadlockError, GetTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from liteflow.clock import Clock
    from liteflow.engine.state import RunState
    from liteflow.errors import LiteFlowError


class Waiter:
    """One wait: for a key, by the attempt of a dispatch or, without a number, by an observer."""

    __slots__ = ("error", "key", "number", "woken")

    def __init__(self, key: str, number: int | None) -> None:
        self.key, self.number = key, number
        self.woken = Bell()
        self.error: LiteFlowError | None = None

    def wait(self, deadline: Deadline) -> None:
        """Wait until there is news of the key; called without the driver's lock.

        Raises:
            GetTimeoutError: there was none in time.
            LiteFlowError: the wait can never end, or the attempt was given up.
        """
        self._came(deadline, rung=self.woken.wait(deadline.left))

    async def heard(self, deadline: Deadline) -> None:
        """Wait as `wait` does, on the event loop."""
        self._came(deadline, rung=await self.woken.heard(deadline.left))

    def _came(self, deadline: Deadline, *, rung: bool) -> None:
        if self.error is not None:
            raise self.error
        if not rung and deadline.timeout is not None:
            raise GetTimeoutError(f"Key {self.key}", deadline.timeout)


class Deadline:
    """When a wait of so many seconds, or without end, is over."""

    def __init__(self, timeout: float | None, clock: Clock) -> None:
        self.timeout, self._clock = timeout, clock
        self._ends = None if timeout is None else clock.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """The seconds that are left."""
        return None if self._ends is None else max(0.0, self._ends - self._clock.monotonic())


class Waits:
    """The waits of one run; called under the driver's lock.

    Args:
        state: the run, which knows who can still produce what.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._waiters: dict[str, list[Waiter]] = {}

    def begin(self, key: str, number: int | None) -> Waiter:
        """Note a wait for *key*.

        Raises:
            DeadlockError: those that the key waits for wait for the caller.
        """
        if number is not None and self._state.blocks(number, key):
            error = DeadlockError(key, self._state.waits())
            self._state.unblocks(number)
            raise error
        waiter = Waiter(key, number)
        self._waiters.setdefault(key, []).append(waiter)
        return waiter

    def wake(self, keys: Iterable[str]) -> None:
        """These keys were written: let those who wait for them look again."""
        if self._waiters:
            for key in keys:
                for waiter in self._waiters.pop(key, ()):
                    self.end(waiter)

    def wake_all(self) -> None:
        """Let everybody look again."""
        self.wake(list(self._waiters))

    def fail(self, number: int, error: LiteFlowError) -> None:
        """End the wait of a dispatch, if it waits."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                if waiter.number == number and not waiter.woken.has_rung:
                    waiter.error = error
                    self.end(waiter)

    def hopeless(self) -> list[int]:
        """Return whose waits nothing can fulfil any more."""
        return self._state.stuck() if self._waiters else []

    def deadlock(self, number: int) -> None:
        """End a hopeless wait."""
        self.fail(number, DeadlockError(self._state.live[number].waits_for or "", self._state.waits()))

    def end(self, waiter: Waiter) -> None:
        """This wait is over."""
        if waiter.number is not None:
            self._state.unblocks(waiter.number)
        waiter.woken.ring()
