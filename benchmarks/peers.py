"""The peers, each in a virtual environment of its own, with the versions that ``plan.PINS`` names."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / ".venvs"
VERSIONS = (
    "import sys; from importlib.metadata import version; print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
)


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return FOLDER / peer / ".venv/bin/python"  # below a .venv, where no checker of ours looks


def install(peer: str, pins: tuple[str, ...]) -> str:
    """Make the environment of a peer, unless it is there with these versions; return what it has, as it tells itself.

    Raises:
        RuntimeError: there is no environment to be had; the message says why.
    """
    stamp = FOLDER / peer / "pins"
    wanted = " ".join([platform.python_version(), *pins])
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(FOLDER / peer, ignore_errors=True)
        _ask(sys.executable, "-m", "venv", str(FOLDER / peer / ".venv"))
        _ask(str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins)
        stamp.write_text(wanted, encoding="utf-8")
    names = [pin.partition("==")[0] for pin in pins if "==" in pin]
    return _ask(str(python_of(peer)), "-c", VERSIONS, *names)


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().rpartition("\n")[2])
    return done.stdout.strip()
