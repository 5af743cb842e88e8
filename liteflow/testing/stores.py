"""Stores for one test."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_store() -> Iterator[str]:
    """Yield the URL of a store in a folder of its own, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="liteflow-", ignore_cleanup_errors=True) as folder:
        yield f"sqlite:///{Path(folder) / 'liteflow.db'}"
