"""Bugs to plant into a child, so that the suites show that they would find them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liteflow.engine.attempt import Attempt
from liteflow.engine.journal import Journal
from liteflow.engine.reading import Reading
from liteflow.engine.state import RunState
from liteflow.store import statements as sql
from liteflow.store.database import Database, Transaction
from liteflow.store.queries import Queries
from liteflow.store.store import Batch, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def completes(batch: Batch) -> bool:
    return bool(batch.completed)


def in_a_later_transaction(take: Callable[[Batch], Batch], concerned: Callable[[Batch], bool] = completes) -> None:
    """Record what *take* takes out of each batch that it concerns after the transaction that records the rest."""
    record, transact = Store.record, Database._transact
    later: list[tuple[Store, str, Batch]] = []

    def first(store: Store, tx: Transaction, run_id: str, batch: Batch) -> None:
        if concerned(batch):
            later.append((store, run_id, take(batch)))
        record(store, tx, run_id, batch)

    def both(database: Database, members: list[Any], refused: dict[int, Exception]) -> None:
        transact(database, members, refused)
        taken, later[:] = list(later), []
        if not taken:
            return
        connection = database._writer
        connection.execute("BEGIN IMMEDIATE")
        for store, run_id, batch in taken:
            record(store, Transaction(connection), run_id, batch)
        database.engine.dialect.do_commit(connection)

    Store.record, Database._transact = first, both


def chunks_outside_the_attempt() -> None:
    """Chunks count as soon as they are recorded, whatever becomes of the attempt."""
    chunks = Journal.chunks

    def at_once(journal: Journal, new: Iterable[Any], committed: set[tuple[int, int]], lost: set[tuple[int, int]]) -> None:
        chunks(journal, new, committed, lost)
        for row in journal.batch.chunks:
            row["status"] = "committed"

    Journal.chunks = at_once


def output_apart_from_writes() -> None:
    """The output of a task is recorded after its other writes."""

    def take(batch: Batch) -> Batch:
        numbers = {row["of_number"] for row in batch.completed}
        outputs = {(row["number"], row["attempt"]): row for row in batch.writes if row["number"] in numbers}  # the last of each
        batch.writes = [row for row in batch.writes if row not in outputs.values()]
        return Batch(writes=list(outputs.values()))

    in_a_later_transaction(take)


def dispatches_apart() -> None:
    """What a task dispatched is recorded after its completion."""

    def take(batch: Batch) -> Batch:
        taken, batch.dispatched = batch.dispatched, []
        return Batch(dispatched=taken, run=batch.run if taken else {})

    in_a_later_transaction(take)


def done_before_work() -> None:
    """A task is recorded as completed before what it wrote."""

    def take(batch: Batch) -> Batch:
        later = Batch(writes=batch.writes, kept=batch.kept, rewritten=batch.rewritten)
        batch.writes, batch.kept, batch.rewritten = [], [], []
        return later

    in_a_later_transaction(take)


def work_before_done() -> None:
    """What a task wrote is recorded before its completion."""

    def take(batch: Batch) -> Batch:
        later = Batch(
            completed=batch.completed, dispatched=batch.dispatched, merged=batch.merged, moved=batch.moved, run=batch.run
        )
        batch.completed, batch.dispatched, batch.merged, batch.moved, batch.run = [], [], [], [], {}
        return later

    in_a_later_transaction(take)


def no_fence_check() -> None:
    """Whoever once owned a run may go on recording it."""

    def unfenced(store: Store, tx: Transaction, run_id: str, context_id: str, fence: int) -> int:
        head = store.head(tx, context_id)
        return 0 if head is None else head.version

    Store.check_fence = unfenced


def token_kept_on_takeover() -> None:
    """A takeover leaves the fencing token as it was."""
    run = Store._run

    def without(store: Store, tx: Transaction, statement: Any, **params: object) -> Any:
        return None if statement is sql.RAISE_FENCE else run(store, tx, statement, **params)

    claim = Store.claim_run

    def claiming(store: Store, *args: Any, **kwargs: Any) -> Any:
        Store._run = without
        try:
            return claim(store, *args, **kwargs)
        finally:
            Store._run = run

    Store.claim_run = claiming


def numbers_used_again() -> None:
    """A takeover numbers chunks on from the last one that is recorded, not from the last one that may have been shown."""
    row_of = Queries.run

    def run(queries: Queries, run_id: str, tx: Transaction | None = None) -> dict[str, Any] | None:
        row = row_of(queries, run_id, tx)
        if row is not None and tx is not None:
            text = """SELECT max(coalesce((SELECT max(seq) FROM chunks WHERE run_id = ?), 0),
                             coalesce((SELECT max(output_seq) FROM tasks WHERE run_id = ?), 0))"""
            row = {**row, "seq_reserved": tx.execute(text, (run_id, run_id)).fetchone()[0]}
        return row

    Queries.run = run


def open_rows_survive_a_takeover() -> None:
    """What a lost attempt had written stays open."""
    run = Store._run
    skipped = (sql.LOSE_ALL_WRITES, sql.LOSE_ALL_CHUNKS)

    def without(store: Store, tx: Transaction, statement: Any, **params: object) -> Any:
        return None if any(statement is one for one in skipped) else run(store, tx, statement, **params)

    Store._run = without


def chunks_apart_from_their_checkpoint() -> None:
    """What a body streamed before a checkpoint is recorded after what it wrote."""

    def checkpointed(batch: Batch) -> set[tuple[Any, Any]]:
        completed = {row["of_number"] for row in batch.completed}
        return {(row["of_number"], row["of_attempt"]) for row in batch.kept if row["of_number"] not in completed}

    def take(batch: Batch) -> Batch:
        attempts = checkpointed(batch)
        later = Batch(chunks=[row for row in batch.chunks if (row["number"], row["attempt"]) in attempts])
        batch.chunks = [row for row in batch.chunks if row not in later.chunks]
        return later

    in_a_later_transaction(take, lambda batch: bool(checkpointed(batch)))


def steps_forgotten_on_takeover() -> None:
    """A step counts as recorded only in the process that has recorded it."""
    record, steps = Attempt.record_step, Reading.steps
    mine: set[str] = set()

    def recorded(attempt: Attempt, name: str, text: str) -> None:
        record(attempt, name, text)
        mine.add(f"{attempt.dispatch.number} {name}")

    def known(reading: Reading, number: int) -> dict[str, str]:
        return {name: text for name, text in steps(reading, number).items() if f"{number} {name}" in mine}

    Attempt.record_step, Reading.steps = recorded, known


def members_forgotten_on_takeover() -> None:
    """A join that is taken up waits for nobody."""
    Store._load_members = lambda *_: None


def signals_forgotten_on_takeover() -> None:
    """A dispatch that is taken up waits again for keys that have been written."""
    Store.was_written = lambda *_, **__: False


def signals_taken_for_given_on_takeover() -> None:
    """A dispatch that is taken up waits for no key."""
    Store.was_written = lambda *_, **__: True


def times_forgotten_on_takeover() -> None:
    """Nobody looks at the clock for a dispatch that is taken up, and waits for a time."""
    resume = RunState.resume

    def without(state: RunState) -> Any:
        decision = resume(state)
        state.take_delayed()
        return decision

    RunState.resume = without


def attempts_counted_anew_on_takeover() -> None:
    """The first attempt after a takeover is the first of all."""
    load = Store.load_run

    def anew(store: Store, *args: Any) -> Any:
        run = load(store, *args)
        for entry in run.entries:
            entry.attempts = 0
        return run

    Store.load_run = anew


MUTANTS: dict[str, Callable[[], None]] = {
    "chunks outside the attempt": chunks_outside_the_attempt,
    "output apart from writes": output_apart_from_writes,
    "dispatches apart": dispatches_apart,
    "done before work": done_before_work,
    "work before done": work_before_done,
    "no fence check": no_fence_check,
    "token kept on takeover": token_kept_on_takeover,
    "numbers used again": numbers_used_again,
    "open rows survive a takeover": open_rows_survive_a_takeover,
    "chunks apart from their checkpoint": chunks_apart_from_their_checkpoint,
    "steps forgotten on takeover": steps_forgotten_on_takeover,
    "members forgotten on takeover": members_forgotten_on_takeover,
    "signals forgotten on takeover": signals_forgotten_on_takeover,
    "signals taken for given on takeover": signals_taken_for_given_on_takeover,
    "times forgotten on takeover": times_forgotten_on_takeover,
    "attempts counted anew on takeover": attempts_counted_anew_on_takeover,
}
