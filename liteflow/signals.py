"""Signals: what is begun is done whole, and SIGTERM ends a script as Ctrl-C does."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

RAISING = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)  # whose handlers are known to raise in the main thread
MOST_MILLISECONDS = 2**31 - 1  # that poll(2) takes


_main_thread = threading.main_thread().ident
_is_deferring = False


def is_main_thread() -> bool:
    """Return whether this is the thread in which Python calls signal handlers."""
    return threading.get_ident() == _main_thread


def undisturbed() -> AbstractContextManager[None]:
    """Let no signal raise in this thread before the block has ended; one that comes meanwhile is handled then.

    An exception out of nowhere, in the middle of a commit that this thread leads, would leave everybody else waiting for its end.
    """
    return _deferred() if is_main_thread() and not _is_deferring else nullcontext()


@contextmanager
def _deferred() -> Iterator[None]:
    global _is_deferring  # noqa: PLW0603 - the main thread's alone
    came: list[tuple[int, FrameType | None]] = []
    kept = {number: handler for number in RAISING if callable(handler := signal.getsignal(number))}
    try:
        for number in kept:
            signal.signal(number, lambda *what: came.append(what))
        _is_deferring = True
        yield
    finally:
        _is_deferring = False
        for number, handler in kept.items():
            signal.signal(number, handler)
        for what in came:
            kept[signal.Signals(what[0])](*what)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit` in the main thread, unless somebody handles it already."""
    if not is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def exit_now(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, exit_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Gate:
    """What the main thread waits at: whoever holds it lets that go on, and so does each signal that a handler is there for.

    A lock will not do: Python calls handlers between two steps of this thread, and a signal that another thread takes, or that
    comes in the instant before this one waits for the lock, does not end that wait. So a byte comes here for each signal (see
    `signal.set_wakeup_fd`), and is passed on to where such bytes went before.
    """

    _free: ClassVar[list[Gate]] = []  # none is ever closed: its descriptor would be another's when somebody late opens it

    def __init__(self) -> None:
        self._inside, self._outside = os.pipe()
        os.set_blocking(self._inside, False)
        os.set_blocking(self._outside, False)

    @classmethod
    @contextmanager
    def lent(cls) -> Iterator[Gate]:
        """Lend one for the block. It may let the thread go on for those who come late from earlier blocks, too."""
        gate = cls._free.pop() if cls._free else cls()
        try:
            yield gate
        finally:
            cls._free.append(gate)

    @classmethod
    def forget(cls) -> None:
        """Leave those there are to the process that this one was forked from."""
        cls._free = []

    def open(self) -> None:
        """Let the main thread go on."""
        _write(self._outside, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until it is opened, or a signal comes, so many seconds at most."""
        before = signal.set_wakeup_fd(self._outside, warn_on_full_buffer=False)
        try:
            poll = select.poll()
            poll.register(self._inside, select.POLLIN)
            if poll.poll(min(seconds * 1000, MOST_MILLISECONDS)):
                _write(before, os.read(self._inside, 4096).replace(b"\0", b""))
        finally:
            signal.set_wakeup_fd(before)


def _write(fd: int, numbers: bytes) -> None:
    if fd >= 0 and numbers:
        with suppress(OSError):  # it is full: there is enough to wake its reader
            os.write(fd, numbers)


def _begin_in_child() -> None:
    global _main_thread  # noqa: PLW0603 - the thread that has forked is the main one now
    _main_thread = threading.get_ident()
    Gate.forget()


os.register_at_fork(after_in_child=_begin_in_child)
