"""LiteFlow, the database itself and the peers do the same works by turns, each time in a process of its own.

``python benchmarks/bench.py`` prints one table, and keeps every reading in ``benchmarks/results/latest.json`` and the plots in
``docs/images/``. A bar that is missed is said, and is no error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import machine
import peers
from plan import DBOS, HUEY, LANGGRAPH, ORIGINAL, PINS, PLAN, RAW, Work
from plot import THEMES, Figure, svg
from report import Outcome, failures, figure, spread, table, to_json, understood, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plan import Subject

HERE = Path(__file__).parent
LATEST = HERE / "results/latest.json"
IMAGES = HERE.parent / "docs/images"
REPETITIONS, QUICK_REPETITIONS = 5, 3
PATIENCE = 600  # seconds for one measurement

NOTES = {
    RAW: "the same rows, no engine",
    LANGGRAPH: "SQLite checkpointer",
    HUEY: "a queue",
    DBOS: "durable, on SQLite",
    ORIGINAL: "in memory, keeps nothing",
}


def main() -> None:
    """Measure what the command line names, and tell."""
    args = _arguments()
    works = _chosen(args)
    started = machine.load()
    used = sorted({subject.peer for work in works for subject in work.subjects if subject.peer})
    installed, missing = _install(used)
    outcomes = _by_turns(works, args.repeat or (QUICK_REPETITIONS if args.quick else REPETITIONS), missing)
    loads = {"load average at start": started, "load average at end": machine.load()}
    settings = machine.facts() | ({"peers": ", ".join(installed)} if installed else {}) | loads
    subjects = {subject.name: subject.settings for work in works for subject in work.subjects}
    _tell(works, outcomes, settings, subjects)
    if works == list(PLAN):
        date = datetime.now(UTC).isoformat(timespec="seconds")
        LATEST.parent.mkdir(exist_ok=True)
        LATEST.write_text(to_json(date, settings, subjects, outcomes), encoding="utf-8")
        _say(f"every reading: {LATEST.relative_to(HERE.parent)}")
        _draw(works[0], outcomes, settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure LiteFlow beside the database itself and its peers.")
    parser.add_argument("--quick", action="store_true", help="LiteFlow and the database alone, the short works; no plot, no file")
    parser.add_argument("--repeat", type=int, metavar="N", help=f"how often ({REPETITIONS}, with --quick {QUICK_REPETITIONS})")
    parser.add_argument("--only", metavar="WORK[,WORK]", help=f"some works of: {', '.join(work.name for work in PLAN)}")
    parser.add_argument("--no-peers", action="store_true", help="leave out DBOS, LangGraph, Huey and the original")
    args = parser.parse_args()
    unknown = set(args.only.split(",") if args.only else ()) - {work.name for work in PLAN}
    if unknown:
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    if args.repeat is not None and args.repeat < 1:
        parser.error("--repeat takes 1 or more")
    return args


def _chosen(args: argparse.Namespace) -> list[Work]:
    works = [work for work in PLAN if work.name in args.only.split(",")] if args.only else list(PLAN)
    if args.quick and not args.only:
        works = [work for work in works if work.quick]
    if args.quick or args.no_peers:
        works = [replace(work, bars=tuple(bar for bar in work.bars if not (bar.against and bar.against.peer))) for work in works]
    return works


def _install(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Install the peers; return the versions, and those that could not be installed, with the reason."""
    installed: list[str] = []
    missing: dict[str, str] = {}
    for name in names:
        _say(f"environment of {name} ...")
        try:
            installed.append(peers.install(name, PINS[name]))
        except RuntimeError as error:
            missing[name] = f"not installed: {error}"
    return installed, missing


def _by_turns(works: Sequence[Work], repetitions: int, missing: dict[str, str]) -> list[Outcome]:
    """Let everybody do every work once, then again: what slows the machine down for a while slows all of them."""
    turns = [(n, work, subject) for n in range(1, repetitions + 1) for work in works for subject in work.subjects]
    outcomes: list[Outcome] = []
    for place, (repetition, work, subject) in enumerate(turns, start=1):
        readings, failure = _measure(subject, missing)
        outcomes.append(Outcome(work.name, subject.name, repetition, readings, failure))
        told = failure or ", ".join(f"{name} {figure(reading)}" for name, reading in readings.items())
        _say(f"[{place}/{len(turns)}] {work.name}, {subject.name}: {told}")
    return outcomes


def _measure(subject: Subject, missing: dict[str, str]) -> tuple[dict[str, float], str]:
    if subject.peer in missing:
        return {}, missing[subject.peer]
    python = peers.python_of(subject.peer) if subject.peer else Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder if argument == "FOLDER" else argument for argument in subject.arguments]
        command = [str(python), str(HERE / subject.script), *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - a script of this folder
                command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"took longer than {PATIENCE} s"
    return understood(done.returncode, done.stdout, done.stderr)


def _tell(works: Sequence[Work], outcomes: Sequence[Outcome], settings: dict[str, str], subjects: dict[str, str]) -> None:
    print(table(works, outcomes))
    print(f"\n{verdicts(works, outcomes)}")
    for heading, lines in (
        ("did not run", failures(outcomes)),
        ("journal mode and synchronous", [f"{name}: {value}" for name, value in subjects.items()]),
        ("settings", [f"{name}: {value}" for name, value in settings.items()]),
    ):
        if lines:
            print("\n  ".join([f"\n{heading}:", *lines]))


def _draw(chain: Work, outcomes: Sequence[Outcome], settings: dict[str, str]) -> None:
    """Draw what a task of the chain costs, unless somebody's reading is missing: the plots would hide that."""
    figures = []
    for subject, note in {chain.own: "durable, on SQLite", **NOTES}.items():
        readings = spread(outcomes, chain, subject, "us")
        if readings is None:
            _say(f"the plots stay as they were: no reading of {subject.name}")
            return
        figures.append(Figure(subject.name, note, readings.median, subject is chain.own))
    note = f"µs a task, shorter is faster; SQLite {settings['SQLite']}, WAL, synchronous NORMAL; Python {settings['Python']}"
    IMAGES.mkdir(exist_ok=True)
    for name, theme in THEMES.items():
        file = IMAGES / f"bench-{name}.svg"
        file.write_text(svg("What a small task costs, in a chain of 1,000", note, figures, theme), encoding="utf-8")
        _say(f"plot: {file.relative_to(HERE.parent)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
