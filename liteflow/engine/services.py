"""What the runs of a flow work with, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from liteflow.clock import from_text
from liteflow.codec import decode
from liteflow.errors import LiteFlowError
from liteflow.model import Version

if TYPE_CHECKING:
    from liteflow.clock import Clock
    from liteflow.engine.task import Task
    from liteflow.engine.ticker import Ticker
    from liteflow.executor.base import Executor
    from liteflow.store.database import Database
    from liteflow.store.queries import Queries
    from liteflow.store.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that a run is given.

    Attributes:
        tasks: the flow's tasks, by id; may change while runs are live.
        executor: where tasks run.
        database: the open database, with `store` and `queries` upon it.
        clock: the time.
        ticker: what calls back later.
    """

    tasks: dict[str, Task]
    executor: Executor
    database: Database
    store: Store
    queries: Queries
    clock: Clock
    ticker: Ticker

    def history(self, context_id: str, key: str) -> list[Version]:
        """Return the committed writes of a key, oldest first."""
        return [
            Version(version, key, None if text is None else decode(text, lenient=True), run_id, task, attempt, from_text(at))
            for version, key, text, run_id, task, attempt, at in self.queries.history(context_id, key)
        ]

    def at(self, context_id: str, version: int) -> dict[str, str]:
        """Return the text of every key as of a version.

        Raises:
            LiteFlowError: the context has no such version yet.
        """
        newest = self.queries.context_version(context_id) or 0
        if not 0 <= version <= newest:
            raise LiteFlowError(f"context {context_id} has no version {version}; its newest is {newest}")
        return self.queries.values_at(context_id, version)
