"""Bounded waits: what does not come in time fails the test, and does not hang it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 20.0  # a wait this long has failed


def passes(event: threading.Event) -> None:
    """Wait for an event."""
    assert event.wait(SECONDS), "it did not happen"


def until(condition: Callable[[], object]) -> None:
    """Wait for what nothing signals: the state of another process, or of a database."""
    beat, left = threading.Event(), int(SECONDS * 100)
    while not condition():
        left -= 1
        assert left, "it did not happen"
        beat.wait(0.01)


class Helper:
    """A function on a thread of its own, whose result or error is handed over."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # noqa: BLE001 - handed over
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return not self._thread.is_alive()

    def result(self) -> object:
        """Wait for its end; return or raise what it did."""
        self._thread.join(SECONDS)
        assert self.is_done, "it did not end"
        if self._error is not None:
            raise self._error
        return self._result
