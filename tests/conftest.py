"""What every test may use: a store of its own, and a flow in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from liteflow import Flow

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
