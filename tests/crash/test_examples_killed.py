"""An example that was killed at any commit, and started again, prints and stores what it does when nobody kills it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.harness import ROOT
from tests.crash.scripts import EXAMPLES, MOST_POINTS, SEED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.crash.scripts import End

POINTS, TWICE = 220, 40
LEFT_OUT = {
    "demo.py": "it has no flow: it starts library_names.py, and kills it itself",
    "sql_tour.py": "it prints the history, which tells of crashes; its tasks meet at a barrier that ends with their process",
}
KILLED = sorted({path.name for path in EXAMPLES.glob("*.py")} - set(LEFT_OUT))
WITH_STEPS = sorted(name for name in KILLED if re.search(r"ctx\.a?step\(", (EXAMPLES / name).read_text("utf-8")))
PLANTED = {"loop.py": "work before done"} | dict.fromkeys(WITH_STEPS, "steps forgotten on takeover")
SECONDS = 300  # for one example

# ------------------------------------------------- what is by its nature another each time, or after a crash, in which example

MERGING = {"map_reduce.py": ("sum",)}  # keys of instances that take one turn more or less, as dispatches come before their start


def of_fix_and_resume(end: End) -> None:
    """Only who is there when it fails prints that; a crash costs an attempt."""
    end["printed"] = [re.sub(r", \d+\)", ", n)", line) for line in end["printed"] if line != "parse: ValueError"]


def of_streaming(end: End) -> None:
    """It prints the numbers of chunks: one that may have been shown is not used again."""
    end["printed"] = [re.sub(r"^\d+ ", "n ", line) for line in end["printed"]]


def of_map_reduce(end: End) -> None:
    """Squares come in the order in which their tasks end."""
    for run in end["runs"]:
        run["context"]["squares"].sort()


def of_library_names(end: End) -> None:
    """Files are counted in the order in which their tasks end."""
    end["printed"] = sorted(re.sub(r"^\d+/", "n/", line) for line in end["printed"])


def of_order(end: End) -> None:
    """It prints how each run stands, and what was charged in this process."""
    end["printed"] = [line for line in end["printed"] if not re.match(r"  (waiting|completed|running): |charged ", line)]


def of_nightly(end: End) -> None:
    """It prints which night comes next."""
    end["printed"] = [line for line in end["printed"] if " is due at " not in line and line != "None"]


def of_crawler(end: End) -> None:
    """Pages are seen, and get their instances, in the order in which others end; requests are those of this process."""
    end["printed"], end["said"] = sorted(line for line in end["printed"] if " requests; " not in line), []
    for run in end["runs"]:
        run["context"] = {key: value for key, value in run["context"].items() if not re.match(r"page(#|$)", key)}
        run["context"]["seen"].sort()
        run["result"] = run["result"].get("report")
        run["stream"] = sorted(str(chunk) for chunks in run["stream"].values() for chunk in chunks)
        run["statuses"] = sorted({(key.partition("#")[0], status) for key, status in run["statuses"]})


NORMAL: dict[str, Callable[[End], None]] = {
    "fix_and_resume.py": of_fix_and_resume,
    "streaming.py": of_streaming,
    "map_reduce.py": of_map_reduce,
    "library_names.py": of_library_names,
    "order.py": of_order,
    "nightly.py": of_nightly,
    "crawler.py": of_crawler,
}


def normal(example: str, end: End) -> End:
    for run in end["runs"]:
        for key in set(MERGING.get(example, ())) & set(run["stream"]):
            run["stream"][key] = run["stream"][key][-1:]
    NORMAL.get(example, dict)(end)
    return end


# ---------------------------------------------------------------------------------------------------------------- comparing


def differences(right: End, end: End) -> list[str]:
    """Return where two ends differ."""
    if not end:
        return []  # it is known already what went wrong
    found = [f"{part} {end[part]!r} instead of {right[part]!r}" for part in ("printed", "said") if end[part] != right[part]]
    if len(end["runs"]) != len(right["runs"]):
        found.append(f"{len(end['runs'])} runs instead of {len(right['runs'])}")
    for number, (run, same) in enumerate(zip(end["runs"], right["runs"], strict=False), 1):
        found += [f"run {number}: {part} {run[part]!r} instead of {same[part]!r}" for part in same if run[part] != same[part]]
    return found


def say(figures: str, found: list[str]) -> None:
    """Print the line of this suite."""
    print(f"crash points of examples: {figures}; differences: {len(found)}")  # noqa: T201 - the figures of the suite
    for difference in found[:10]:
        print(f"  {difference}")  # noqa: T201 - as above


def sampled(jobs: list[tuple[str, str, int]], tallies: list[dict[str, Any]]) -> str:
    """Say of which examples only some commits were taken."""
    many = sorted({job[0] for job, tally in zip(jobs, tallies, strict=True) if tally["commits"] > MOST_POINTS})
    return f" (of {', '.join(many)}: {MOST_POINTS} commits each, seed {SEED})" if many else ""


def killed(example: str, when: str, again: int, folder: Path, mutant: str = "") -> dict[str, Any]:
    """Kill an example before or after each commit, and who goes on, too; return how that went, with all that differs."""
    place = str(folder / f"{example} {when} {again}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.scripts", example, when, str(again), place, mutant],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    first, *others = [normal(example, end) for end in tally["calm"]]
    found = [*tally["wrong"], *(f"not killed: {what}" for end in others for what in differences(first, end))]
    for where, end in tally["ends"].items():
        found += [f"{where}: {what}" for what in differences(first, normal(example, end) if end else end)]
    tally["differences"] = [f"{example}, {what}" for what in found]
    return tally


@pytest.mark.timeout(600)
def test_an_example_killed_at_any_commit_and_started_again_ends_as_if_nobody_had_killed_it(tmp_path: Path):
    began = time.monotonic()
    jobs = [(example, *how) for example in KILLED for how in (("before", 0), ("after", 0), ("after", 2))]

    with ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0)))) as pool:
        tallies = list(pool.map(lambda job: killed(*job, tmp_path), jobs))

    found = [difference for tally in tallies for difference in tally["differences"]]
    points = sum(len(tally["ends"]) for tally in tallies)
    again = sum(tally["killed_again"] for tally in tallies)
    took = f"{time.monotonic() - began:.1f} s"
    say(f"{points} points x {len(KILLED)} examples, {again} killed twice{sampled(jobs, tallies)}; {took}", found)
    assert found == []
    assert points >= POINTS
    assert again >= TWICE
    assert all(tally["ends"] for tally in tallies)
    for example in WITH_STEPS:  # no step ran again, as that is a difference; and some were there to run again
        assert sum(tally["steps_given"] for job, tally in zip(jobs, tallies, strict=True) if job[0] == example) > 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("example", "mutant"), PLANTED.items())
def test_a_bug_planted_under_an_example_is_found(example: str, mutant: str, tmp_path: Path):
    tally = killed(example, "after", 0, tmp_path, mutant)

    say(f"{mutant}, in {example}", tally["differences"])
    assert [difference for difference in tally["differences"] if "not killed" in difference] == []
    assert tally["differences"] != []


def test_every_example_is_killed_or_left_out_for_a_reason():
    assert set(LEFT_OUT) <= {path.name for path in EXAMPLES.glob("*.py")}
    assert set(PLANTED) | set(NORMAL) | set(MERGING) | set(WITH_STEPS) <= set(KILLED)
