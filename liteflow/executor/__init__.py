"""Where tasks run."""

from liteflow.executor.base import Executor
from liteflow.executor.pool import PoolExecutor

__all__ = ["Executor", "PoolExecutor"]


def __getattr__(name: str) -> object:
    if name == "RayExecutor":
        raise ImportError("RayExecutor comes with a later part of LiteFlow; until then, PoolExecutor runs tasks on threads")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
