"""What the crash suites share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.harness import Ward

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ward(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ward]:
    """Where victims come from."""
    ward = Ward(tmp_path, request.node.path.stem.removeprefix("test_").replace("_", " "))
    yield ward
    ward.close()
