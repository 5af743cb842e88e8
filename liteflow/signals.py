"""Signals: what is begun is done whole, and SIGTERM ends a script as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

RAISING = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)  # whose handlers are known to raise in the main thread


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def undisturbed() -> AbstractContextManager[None]:
    """Let no signal raise in this thread before the block has ended; one that comes meanwhile is handled then.

    An exception out of nowhere, in the middle of a commit that this thread leads, would leave everybody else waiting for its end.
    """
    return _deferred() if _is_main_thread() else nullcontext()


@contextmanager
def _deferred() -> Iterator[None]:
    came: list[tuple[int, FrameType | None]] = []
    kept = {number: handler for number in RAISING if callable(handler := signal.getsignal(number))}
    try:
        for number in kept:
            signal.signal(number, lambda *what: came.append(what))
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for what in came:
            kept[signal.Signals(what[0])](*what)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit` in the main thread, unless somebody handles it already."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def exit_now(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, exit_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
