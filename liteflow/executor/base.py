"""What every executor must promise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Executor(ABC):
    """Runs jobs side by side, at most ``max_workers`` of them at once, not counting those that wait.

    All methods may be called from any thread, from within jobs too.
    """

    @property
    @abstractmethod
    def max_workers(self) -> int:
        """How many jobs run at once, at least 1."""

    @abstractmethod
    def submit(self, job: Callable[[], None], *, next_here: bool = False) -> None:
        """Have *job* run once; do not wait for it.

        Jobs begin in the order of submission.

        Args:
            job: must not raise; one that does is logged, and harms no other.
            next_here: the promise of a running job that it ends at once after this call, so that nobody needs to be woken
                for the job it submits. It holds for one job; said outside a job, or again, it means nothing.

        Raises:
            LiteFlowError: the executor is shut down, or has no thread for the job. A running job gets no such error when
                the executor is shut down: what it submits is dropped, as is all else that has not begun.
        """

    @abstractmethod
    def blocked(self) -> AbstractContextManager[None]:
        """Return a block in which the running job waits, and leaves its slot to others.

        It is entered on the thread of the job; on any other thread, and within such a block, it changes nothing. Leaving it
        waits for a slot; jobs that come back in this way go before jobs that have not begun.
        """

    @abstractmethod
    def abandon(self, job: Callable[[], None]) -> None:
        """Wait no longer for *job*: it leaves its slot to others for good, whatever it goes on to do.

        Called from any thread, when what the job does cannot take effect any more. One that is not running changes nothing.
        What the job submits afterwards, or waits for, harms nobody.

        Args:
            job: the very object that was submitted; it is not compared.
        """

    @abstractmethod
    def shutdown(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - as in concurrent.futures
        """Begin no more jobs: those that have not begun are dropped. May be called again.

        Args:
            wait: return only when the jobs that have begun are done (the calling job excepted, and those that were abandoned).
        """
