"""The side of the tests: ordering victims, comparing how they end, and saying in one line what was done."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from liteflow.store.database import Database
from tests.crash.flows import ALL_SHAPES
from tests.crash.victim import Order, as_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9
T = TypeVar("T")


class Parent:
    """A process without threads that forks victims, one order at a time; see `tests.crash.victim`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.victim"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def carry_out(self, order: Order) -> dict[str, Any]:
        """Have a victim carry out an order; return how it ended, or that it stands still."""
        return self._ask(as_line(order))

    def let_go_on(self, outcome: dict[str, Any], seconds: float = 20.0) -> dict[str, Any]:
        """Let a victim that stands still go on."""
        return self._ask(json.dumps({"go_on": outcome["pid"], "seconds": seconds}))

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the parent of the victims has died"
        return dict(json.loads(answer))

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@dataclass
class Told:
    """What a victim has told before it ended.

    Attributes:
        ends: how its flows ended, by name; empty if it was killed before.
        chunks: what its followers were shown.
        stood: with which error each flow came to stand still in this process, by name.
        counts: of places where it could have been struck; empty if it was killed.
        errors: what it has printed on its standard error.
    """

    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    stood: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    errors: str = ""


class Place:
    """A store of its own for one victim after the other.

    Args:
        parent: forks them.
        folder: empty.
        template: the file of a store that has the schema and nothing else; ``None`` to begin without a file.
    """

    def __init__(self, parent: Parent, folder: Path, template: Path | None) -> None:
        folder.mkdir(parents=True)
        self.parent, self.folder, self.file = parent, folder, folder / "crash.db"
        self._victims = 0
        if template is not None:
            shutil.copyfile(template, self.file)  # nobody has it open

    def order(self, shapes: Sequence[str], **how: Any) -> Order:
        """Make an order for the next victim here."""
        self._victims += 1
        return Order(list(shapes), f"sqlite:///{self.file}", str(self.folder / f"told {self._victims}"), **how)

    def send(self, shapes: Sequence[str], **how: Any) -> tuple[dict[str, Any], Told]:
        """Have the next victim carry out an order; return how it ended, and what it has told."""
        order = self.order(shapes, **how)
        return self.parent.carry_out(order), told(order)

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Return what the database answers."""
        with contextlib.closing(sqlite3.connect(self.file)) as db, db:
            return db.execute(question).fetchall()

    def faults(self) -> list[str]:
        """Return what is wrong in the database, whatever the flows were."""
        answers = {question: self.ask(question) for question in QUESTIONS}
        return [f"{question}: {answers[question][:3]}" for question, right in QUESTIONS.items() if answers[question] != right]


QUESTIONS: dict[str, list[tuple[Any, ...]]] = {
    "PRAGMA integrity_check": [("ok",)],
    "PRAGMA foreign_key_check": [],
    "SELECT run_id, number FROM writes WHERE status = 'open'": [],
    "SELECT run_id, seq FROM chunks WHERE status = 'open'": [],
    "SELECT run_id, number, status FROM tasks WHERE status NOT IN ('completed', 'merged')": [],
    "SELECT id, status FROM runs WHERE status != 'completed'": [],
    """SELECT context_id, count(*), max(version) FROM writes WHERE version IS NOT NULL GROUP BY context_id
       HAVING max(version) != count(*)""": [],
    "SELECT run_id, seq FROM chunks JOIN tasks USING (run_id) WHERE output_seq = seq": [],
    "SELECT run_id, output_seq FROM tasks WHERE output_seq IS NOT NULL GROUP BY run_id, output_seq HAVING count(*) > 1": [],
    "SELECT runs.id, seq FROM runs JOIN chunks ON run_id = runs.id WHERE seq > seq_reserved": [],
}


def told(order: Order) -> Told:
    """Read what the victim of an order has told, a line that it was killed in left out."""
    found, errors = Told(), Path(order.answer + ".errors")
    file = Path(order.answer)
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    for line in lines:
        facts = json.loads(line)
        what = facts.pop("what")
        if what == "chunk":
            found.chunks.append(facts)
        elif what == "stood":
            found.stood[facts["run"]] = facts["error"]
        elif what == "ends":
            found.ends = facts["ends"]
        else:
            found.counts = facts
    found.errors = errors.read_text(encoding="utf-8") if errors.exists() else ""
    return found


class Ward:
    """Where victims come from: a parent for each processor, and a folder for their stores.

    Args:
        folder: a folder of one test.
        name: what it prints its line under.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.template = folder / "template.db"
        database = Database(f"sqlite:///{self.template}")
        database.open()
        database.dispose()
        assert not Path(f"{self.template}-wal").exists()
        self._parents = [Parent() for _ in range(max(2, len(os.sched_getaffinity(0))))]
        self._free: queue.SimpleQueue[Parent] = queue.SimpleQueue()
        for parent in self._parents:
            self._free.put(parent)
        self._places = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.enough = threading.Event()  # nothing more is to be done, as what was looked for is found

    @contextlib.contextmanager
    def place(self, *, fresh: bool = False) -> Iterator[Place]:
        """Give a store with a parent of victims; with *fresh*, there is no file yet."""
        parent = self._free.get()
        with self._lock:
            self._places += 1
            folder = self.folder / str(self._places)
        try:
            yield Place(parent, folder, None if fresh else self.template)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._free.put(parent)

    def all(self, jobs: Iterable[Callable[[], list[T]]]) -> list[T]:
        """Do these jobs, as many at a time as there are parents; return all that they found."""
        with ThreadPoolExecutor(len(self._parents)) as pool:
            return [one for found in pool.map(lambda job: job(), jobs) for one in found]

    def say(self, figures: str, differences: list[str]) -> None:
        """Print the line of this suite."""
        took = time.monotonic() - self._began
        print(f"{self.name}: {figures}; {took:.1f} s; differences: {len(differences)}")  # noqa: T201 - the figures of the suite
        for difference in differences[:30]:
            print(f"  {difference}")  # noqa: T201 - as above

    def close(self) -> None:
        """Let all parents end."""
        for parent in self._parents:
            parent.close()


# ---------------------------------------------------------------------------------------------------------------- comparing


def uncrashed(place: Place, shapes: Sequence[str]) -> Told:
    """Run flows as they are without a crash; what they tell is what a crash must not change."""
    outcome, calm = place.send(shapes)
    assert outcome["code"] == 0, calm.errors
    assert set(calm.ends) == set(shapes), calm
    assert [end for end in calm.ends.values() if "error" in end] == []
    assert place.faults() == []
    assert calm.counts["commit"] == calm.counts["commits_seen"] > 0  # no commit goes past the places where a child is struck
    return calm


def differences(shapes: Sequence[str], calm: Told, resumed: Told) -> list[str]:
    """Return in what the end after a crash is not that of the uncrashed run."""
    found = []
    for name in shapes:
        right, end = calm.ends[name], resumed.ends.get(name, {"error": "it did not end"})
        parts = ["result", "context", "status", "statuses", *(["histories"] if ALL_SHAPES[name].in_order else [])]
        if "error" in end:
            found.append(f"{name}: {end['error']}")
            continue
        found += [f"{name}: {part} {end[part]!r} instead of {right[part]!r}" for part in parts if end[part] != right[part]]
        if comparable(name, end["stream"]) != comparable(name, right["stream"]):
            found.append(f"{name}: stream {end['stream']!r} instead of {right['stream']!r}")
    return found


def comparable(name: str, stream: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the chunks by key; of an instance that may take one turn more or less, the last one."""
    return {key: chunks[-1:] if key in ALL_SHAPES[name].merging else chunks for key, chunks in stream.items()}


def reused_numbers(victims: Iterable[Told]) -> list[str]:
    """Return the stream numbers under which victims were shown, or have recorded, different chunks."""
    shown: dict[tuple[str, int], tuple[str, str]] = {}
    found = []
    for victim in victims:
        last: dict[str, int] = {}
        for chunk in victim.chunks:
            run, seq = chunk["run"], chunk["seq"]
            what = (chunk["key"], json.dumps(chunk["value"]))
            if shown.setdefault((run, seq), what) != what:
                found.append(f"{run}: number {seq} was {shown[run, seq]}, and is {what} now")
            if seq <= last.get(run, 0):
                found.append(f"{run}: number {seq} came after {last[run]}")
            last[run] = seq
    return found


# ---------------------------------------------------------------------------------------------------------------- sequences


def struck(  # noqa: PLR0913 - what a sequence consists of
    ward: Ward, shape: str, calm: Told, at: str, when: str, *, judge: Callable[[str, Told, Told], list[str]],
    mutant: str = "", fresh: bool = False, again: int = 0, until_found: bool = False, seconds: float = 20.0,
) -> tuple[int, list[str]]:  # fmt: skip
    """Kill a victim at the first place, another at the second, and so on until one ends by itself; resume each.

    With *again*, who resumes is killed too, after so many commits, and a third one resumes.

    Returns:
        How many were killed, and what differed.
    """
    found: list[str] = []
    count = 0
    while not (until_found and ward.enough.is_set()):
        count += 1
        with ward.place(fresh=fresh) as place:
            how = {"mutant": mutant, "seconds": seconds}
            outcome, first = place.send([shape], at=at, when=when, count=count, **how)
            assert outcome["late"] or outcome["code"] in (0, KILLED), first.errors
            is_calm, victims = outcome["code"] == 0, [first]
            if again and not is_calm:
                victims.append(place.send([shape], when="after", count=again, **how)[1])
            if not is_calm:
                victims.append(place.send([shape], **how)[1])
            wrong = [*judge(shape, calm, victims[-1]), *reused_numbers(victims), *place.faults()]
        where = "not killed" if is_calm else f"{when} {at} {count}"
        found += [f"{shape}, {where}: {what}" for what in wrong]
        if found:
            ward.enough.set()
        if is_calm:
            if at == "commit" and not mutant and not count > first.counts["commits_seen"] == first.counts["commit"]:
                found.append(f"{shape}: {count - 1} kills for {first.counts}")
            return count - 1, found
    return count, found
