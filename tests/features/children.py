"""Scripts in processes of their own, to be killed, interrupted and asked."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.features.waiting import SECONDS

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A Python script in a process of its own, whose output is read line by line.

    Args:
        script: its text; ``sys.argv[1:]`` are the *arguments*.
        arguments: handed to it as text.
        fds: file descriptors that it inherits.
    """

    def __init__(self, script: str, *arguments: object, fds: Collection[int] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(script), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: IO[str], take: Callable[[str], None]) -> None:
        with pipe:
            for line in pipe:
                take(line.rstrip("\n"))

    def line(self) -> str:
        """Wait for the next line that it prints."""
        try:
            return self._lines.get(timeout=SECONDS)
        except queue.Empty:
            raise AssertionError(f"no line came: {self._errors}") from None

    def lines(self) -> list[str]:
        """Return the lines not yet asked for; complete once the process has ended."""
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        return found

    @property
    def errors(self) -> str:
        """What it has printed on stderr."""
        return "\n".join(self._errors)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power switch would, and wait for that."""
        self.process.kill()
        self.end()

    def end(self) -> int:
        """Wait for its end, and put one to it that takes too long; return its exit code."""
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for reader in self._readers:
            reader.join(SECONDS)
        return code


def output_of(script: str, *arguments: object) -> list[str]:
    """Run a script to its end, which must be a good one; return the lines it has printed."""
    child = Child(script, *arguments)
    assert child.end() == 0, child.errors
    return child.lines()
