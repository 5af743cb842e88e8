"""What the runs of a flow work with, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liteflow.clock import from_text
from liteflow.errors import LiteFlowError
from liteflow.model import Version
from liteflow.places import of_key

if TYPE_CHECKING:
    from liteflow.clock import Clock
    from liteflow.codec import Codec
    from liteflow.engine.task import Task
    from liteflow.engine.ticker import Ticker
    from liteflow.executor.base import Executor
    from liteflow.executor.loop import Loop
    from liteflow.model import Limits
    from liteflow.store.database import Database
    from liteflow.store.queries import Queries
    from liteflow.store.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that a run is given.

    Attributes:
        tasks: the flow's tasks, by id; may change while runs are live.
        executor: where tasks run.
        loop: where ``async`` tasks run, unless a run brings its caller's.
        database: the open database, with `store` and `queries` upon it.
        clock: the time.
        ticker: what calls back later, by that.
        pacer: what calls back later, by the clock on the wall.
        codec: how values become text.
        limits: how far a run may go.
    """

    tasks: dict[str, Task]
    executor: Executor
    loop: Loop
    database: Database
    store: Store
    queries: Queries
    clock: Clock
    ticker: Ticker
    pacer: Ticker
    codec: Codec
    limits: Limits

    def history(self, context_id: str, key: str) -> list[Version]:
        """Return the committed writes of a key, oldest first."""
        return [
            Version(version, key, self.shown(text, of_key(context_id, key)), run_id, task, attempt, from_text(at))
            for version, key, text, run_id, task, attempt, at in self.queries.history(context_id, key)
        ]

    def shown(self, text: str | None, where: str) -> Any:  # noqa: ANN401 - any value
        """Return a stored value for a person to look at; never fail."""
        return None if text is None else self.codec.decode(text, where, lenient=True)

    def at(self, context_id: str, version: int) -> dict[str, str]:
        """Return the text of every key as of a version.

        Raises:
            LiteFlowError: the context has no such version yet.
        """
        newest = self.queries.context_version(context_id) or 0
        if not 0 <= version <= newest:
            raise LiteFlowError(f"context {context_id} has no version {version}; its newest is {newest}")
        return self.queries.values_at(context_id, version)
