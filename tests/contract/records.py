"""The rows that the contract tests record: run r in context c, driven by process o."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from liteflow.store.store import Batch

if TYPE_CHECKING:
    from liteflow.store.store import LiveRun, Store

Row = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
T = "2026-01-01T00:00:00.000000Z"
LATER = "2026-01-01T00:01:00.000000Z"


def owner(name: str = "o") -> Row:
    return {"id": name, "machine": "m", "pid": 1, "process_started": "1", "leased_until": T}


def run(name: str = "r", context: str = "c", **more: object) -> Row:
    return {
        "id": name, "flow": "f", "context_id": context, "start_task": "a", "inputs": None, "status": "running", "priority": 0,
        "owner_id": "o", "crashes": 0, "progress_version": -1, "base_version": 0, "seq_reserved": 100, "created_at": T,
        "started_at": T, **more,
    }  # fmt: skip


def task(number: int = 1, task_id: str = "a", status: str = "pending", *, instance: int = 1, **more: object) -> Row:
    return {
        "run_id": "r", "number": number, "task_id": task_id, "instance": instance,
        "key": task_id if instance == 1 else f"{task_id}#{instance}", "inputs": None, "status": status, "dispatched_by": None,
        "merged_into": None, "attempts": 0, "failures": 0, "not_before": None, "wait_for": None, "join_number": None,
        "joins": None, "dispatched_at": T, **more,
    }  # fmt: skip


def begun(number: int = 1, attempt: int = 1) -> Row:
    return {"of_run": "r", "of_number": number, "to_attempts": attempt, "to_started_at": T}


def completed(number: int = 1, version: int = 1, seq: int = 1, *, leaf: bool = True, attempt: int = 1) -> Row:
    return {
        **begun(number, attempt), "to_reads": None, "to_output_version": version, "to_output_seq": seq, "to_leaf": leaf,
        "to_finished_at": T,
    }  # fmt: skip


def ended(number: int = 1, attempt: int = 1, status: str = "failed", error: str | None = "OSError") -> Row:
    return {
        "run_id": "r", "number": number, "attempt": attempt, "status": status, "error_type": error,
        "error_message": error and "no paper", "traceback": error and "…", "reads": None, "started_at": T, "ended_at": T,
    }  # fmt: skip


def moved(number: int, status: str, *, attempts: int = 1, failures: int = 0, not_before: str | None = None) -> Row:
    return {
        "of_run": "r", "of_number": number, "to_status": status, "to_attempts": attempts, "to_failures": failures,
        "to_not_before": not_before,
    }  # fmt: skip


def attempt(number: int = 1, attempt: int = 1) -> Row:
    return {"of_run": "r", "of_number": number, "of_attempt": attempt}


def write(key: str, value: str | None, version: int | None = None, *, number: int = 1, position: int = 0) -> Row:
    """A write of a first attempt: committed if it has a version, else open."""
    return {
        "context_id": "c", "version": version, "key": key, "value": value, "status": "committed" if version else "open",
        "run_id": "r", "number": number, "attempt": 1, "position": position, "written_at": T,
    }  # fmt: skip


def chunk(seq: int, value: str = "1", status: str = "open", *, number: int = 1, attempt: int = 1) -> Row:
    return {
        "run_id": "r", "seq": seq, "number": number, "attempt": attempt, "task_id": "said", "value": value, "status": status,
        "written_at": T,
    }  # fmt: skip


class Recorder:
    """Records batches of the run, each in a transaction of its own, as its owner does.

    Args:
        store: where to.
        fence: the owner's fencing token.
    """

    def __init__(self, store: Store, *, fence: int) -> None:
        self.store, self.fence = store, fence

    def record(self, **rows: Any) -> None:
        """Record a batch."""
        self.store.database.write(lambda tx: self.store.record(tx, "r", Batch(**rows)))

    def live(self) -> LiveRun:
        """Return the live part of the run, as recorded."""
        with self.store.database.read() as tx:
            return self.store.load_run(tx, {"id": "r", "context_id": "c", "base_version": 0})

    def claim(self, by: str = "o", *, seq_reserved: int = 200) -> Any:
        """Take the run over."""

        def take(tx):
            cursor = tx.execute("SELECT id, context_id, status, crashes, progress_version FROM runs WHERE id = 'r'", ())
            row = dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))
            return self.store.claim_run(tx, row, by, now=NOW, seq_reserved=seq_reserved)

        return self.store.database.write(take)

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Return what the database answers."""
        with self.store.database.read() as tx:
            return [tuple(row) for row in tx.execute(question, ()).fetchall()]
