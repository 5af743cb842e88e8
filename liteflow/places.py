"""What the places are called where values are kept: a signed value is good in its own place only."""

from __future__ import annotations


def of_key(context_id: str, key: str) -> str:
    """Return the place of a context key, and of what the instance of this key puts out."""
    return f"{context_id}/{key}"


def of_inputs(run_id: str) -> str:
    """Return the place of the inputs of a run and of its dispatches."""
    return f"{run_id}/inputs"


def of_step(run_id: str, number: int, name: str) -> str:
    """Return the place of a step's result."""
    return f"{run_id}/{number}/step/{name}"
