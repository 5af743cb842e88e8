"""What every test may use: a store of its own, and a flow in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from liteflow import Flow, PoolExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _store_of_the_environment_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITEFLOW_STORE", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of a store that is not there yet."""
    return f"sqlite:///{tmp_path / 'liteflow.db'}"


@pytest.fixture
def flow(store: str) -> Iterator[Flow]:
    """A flow with 4 threads, and without tasks."""
    with Flow(store=store) as flow:
        yield flow


@pytest.fixture(params=["own-1", "own-4", "users-1", "users-4"])
def any_flow(request: pytest.FixtureRequest, store: str) -> Iterator[Flow]:
    """A flow on threads of ours, and on a pool that the user brings; with one worker, and with four."""
    kind, workers = request.param.split("-")
    with ThreadPoolExecutor(int(workers)) as users:
        executor = users if kind == "users" else PoolExecutor(max_workers=int(workers))
        with Flow(executor=executor, store=store) as flow:
            yield flow
