"""For tests of flows: a clock that you turn by hand, and stores that vanish afterwards."""

from liteflow.testing.clock import FakeClock
from liteflow.testing.stores import temporary_store

__all__ = ["FakeClock", "temporary_store"]
