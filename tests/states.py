"""Runs in the states that tests of `RunState` begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liteflow.engine.state import Entry, Request, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable


def spawn(task_id: str, inputs: str | None = None) -> Request:
    return Request(task_id, inputs, spawn_another=True)


def run_of(*requests: str | Request) -> RunState:
    """Return a run whose first task has completed and asked for these, which are numbered from 2."""
    state = RunState()
    state.start(Request("start"))
    begin(state, *state.take_ready())
    state.completed(1, [Request(r) if isinstance(r, str) else r for r in requests])
    return state


def begin(state: RunState, *numbers: int):
    for number in numbers:
        assert state.begin(number) is not None


def all_running(*requests: str | Request) -> RunState:
    state = run_of(*requests)
    begin(state, *state.take_ready())
    return state


def loaded(
    *entries: Entry,
    spawned: dict[str, int] | None = None,
    produced: Iterable[str] = (),
    next_number: int = 9,
    failed: int | None = None,
) -> RunState:
    return RunState.load(entries, spawned=spawned or {}, produced=produced, next_number=next_number, failed=failed)


def ask(state: RunState, *requests: Request):
    """Let dispatch 2 complete with these requests; return what is recorded of them: number, key, status and host."""
    decision = state.completed(2, requests)
    return [(d.number, d.key, status, into) for d, status, into, *_ in decision.dispatched]
