"""What one commit of a run records: decisions and attempts, turned into rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liteflow.clock import to_text
from liteflow.codec import encode
from liteflow.model import RunStatus
from liteflow.store.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from liteflow.engine.attempt import Attempt
    from liteflow.engine.decision import Decision, Entry
    from liteflow.engine.streams import Chunk
    from liteflow.model import Failure


class Journal:
    """Collects the rows of one commit of one run.

    Args:
        run_id: the run.
        context_id: its context.
        now: the time of the commit.
    """

    def __init__(self, run_id: str, context_id: str, now: datetime) -> None:
        self._run_id, self._context_id, self._now = run_id, context_id, to_text(now)
        self.batch = Batch()

    def decided(self, decision: Decision, live: dict[int, Entry]) -> None:
        """Record what a decision says of dispatches and of the run."""
        batch, run_id = self.batch, self._run_id
        for dispatch, status, merged_into, not_before, wait_for, join in decision.dispatched:
            batch.dispatched.append({
                "run_id": run_id, "number": dispatch.number, "task_id": dispatch.task_id, "instance": dispatch.instance,
                "key": dispatch.key, "inputs": dispatch.inputs, "status": status.value, "dispatched_by": dispatch.dispatched_by,
                "merged_into": merged_into, "attempts": 0, "failures": 0, "dispatched_at": self._now,
                "not_before": not_before and to_text(not_before), "wait_for": encode(list(wait_for)) if wait_for else None,
                "join_number": join, "joins": dispatch.joins,
            })  # fmt: skip
        for number, into in decision.merged:
            batch.merged.append({"of_run": run_id, "of_number": number, "to_merged_into": into})
        for number, status in decision.moved:
            entry = live[number]
            batch.moved.append({
                "of_run": run_id, "of_number": number, "to_status": status.value, "to_attempts": entry.attempts,
                "to_failures": entry.failures, "to_not_before": entry.not_before and to_text(entry.not_before),
            })  # fmt: skip

    def wrote(self, attempt: Attempt, status: str, first_version: int | None = None, count: int | None = None) -> None:
        """Record the first *count* writes, as far as they are not yet: as open, lost, or committed from *first_version* on."""
        start = attempt.recorded_writes
        unrecorded = attempt.writes[start:count]
        attempt.recorded_writes += len(unrecorded)
        for position, (key, text) in enumerate(unrecorded, start):
            self.batch.writes.append({
                "context_id": self._context_id, "version": None if first_version is None else first_version + position,
                "key": key, "value": text, "status": status, "run_id": self._run_id, "number": attempt.dispatch.number,
                "attempt": attempt.attempt, "position": position, "written_at": self._now,
            })  # fmt: skip

    def begun(self, attempt: Attempt) -> None:
        """Record that an attempt runs."""
        attempt.is_recorded = True
        self.batch.begun.append({
            **self._of_task(attempt), "to_attempts": attempt.attempt, "to_started_at": to_text(attempt.started_at)
        })  # fmt: skip

    def kept(self, attempt: Attempt, first_version: int) -> None:
        """Record that what an attempt has recorded as open is committed; its first write gets *first_version*."""
        for place in attempt.rewritten:
            row = {**self._of_attempt(attempt), "of_position": place, "to_value": attempt.writes[place][1]}
            self.batch.rewritten.append(row)
        self.batch.kept.append({**self._of_attempt(attempt), "first_version": first_version})

    def step(self, attempt: Attempt, name: str, text: str) -> None:
        """Record the result of a step of a dispatch, and that the attempt runs which has it."""
        if not attempt.is_recorded:
            self.begun(attempt)
        self.batch.steps.append({
            "run_id": self._run_id, "number": attempt.dispatch.number, "name": name, "value": text, "attempt": attempt.attempt,
            "recorded_at": self._now,
        })  # fmt: skip

    def completed(self, attempt: Attempt, *, version: int, seq: int, leaf: bool) -> None:
        """Record that a dispatch completed, and what the attempt that did it had read."""
        reads = attempt.all_reads if attempt.has_read else None
        self.batch.completed.append({
            "of_run": self._run_id, "of_number": attempt.dispatch.number, "to_attempts": attempt.attempt,
            "to_reads": encode(reads) if reads else None, "to_output_version": version, "to_output_seq": seq, "to_leaf": leaf,
            "to_started_at": to_text(attempt.started_at), "to_finished_at": self._now,
        })  # fmt: skip

    def ended(self, attempt: Attempt, status: str, failure: Failure | None = None) -> None:
        """Record that an attempt came to nothing, and why."""
        self.batch.ended.append({
            "run_id": self._run_id, "number": attempt.dispatch.number, "attempt": attempt.attempt, "status": status,
            "error_type": failure and failure.type, "error_message": failure and failure.message,
            "traceback": failure and failure.traceback,
            "reads": encode(reads) if (reads := attempt.all_reads) else None,
            "started_at": to_text(attempt.started_at), "ended_at": self._now,
        })  # fmt: skip
        if attempt.is_recorded:
            self.batch.lost.append(self._of_attempt(attempt))

    def chunks(self, chunks: Iterable[Chunk], committed: set[tuple[int, int]], lost: set[tuple[int, int]]) -> None:
        """Record chunks: those of these attempts as committed or lost, others as open."""
        for chunk in chunks:
            attempt = (chunk.number, chunk.attempt)
            status = "committed" if attempt in committed else "lost" if attempt in lost else "open"
            self.batch.chunks.append({
                "run_id": self._run_id, "seq": chunk.seq, "number": chunk.number, "attempt": chunk.attempt,
                "task_id": chunk.task_id, "value": chunk.text, "status": status, "written_at": self._now,
            })  # fmt: skip

    def run_stands(self, status: RunStatus, reason: str | None) -> None:
        """Record that the run has come to stand in *status*."""
        ended = status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
        self.batch.cancels = status is RunStatus.CANCELLED
        self.batch.run |= {"to_status": status.value, "to_reason": reason, "to_finished_at": self._now if ended else None}

    def _of_task(self, attempt: Attempt) -> dict[str, object]:
        return {"of_run": self._run_id, "of_number": attempt.dispatch.number}

    def _of_attempt(self, attempt: Attempt) -> dict[str, object]:
        return {**self._of_task(attempt), "of_attempt": attempt.attempt}
