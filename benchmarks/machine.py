"""On what is measured: the versions, the machine, and how busy it is."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path


def facts() -> dict[str, str]:
    """Return what stays as it is while the measurements run."""
    return {
        "liteflow": version("liteflow"),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "CPUs": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": _file_system(Path(tempfile.gettempdir()).resolve()),
    }


def load() -> str:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return " ".join(f"{busy:.2f}" for busy in os.getloadavg())


def _file_system(folder: Path) -> str:
    """Return the kind of file system that the stores are put on: on one in memory a sync costs nothing."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    lines = (line.split() for line in mounts.read_text(encoding="utf-8").splitlines())
    kinds = {Path(point): kind for _, point, kind, *_ in lines}
    return next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "unknown")
