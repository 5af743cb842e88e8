"""Each example runs as a script in a fresh folder, says in three lines what it shows, and prints what it promises."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from liteflow import Flow

EXAMPLES = Path(__file__).parents[1] / "examples"
EXPECTED = {
    "greeting.py": ["{'hello': 'Hello Ada!'}", "1 runs so far"],
    "chain.py": ["{'deliver': '12 loaves to the corner shop'}"],
    "parallel.py": ["{'wind': '4 m/s', 'rain': 'none', 'sun': '8 h'}", "side by side"],
    "streaming.py": ["1 write: The rain has stopped.", "4 write: three lines", "again: ['The rain has stopped.'"],
    "loop.py": ["{'step': [6, 3, 10, 5, 16, 8, 4, 2, 1]}"],
    "routing.py": ["{'letters': 'stamped, 20 g'}", "{'parcels': 'labelled, 3000 g'}"],
    "state.py": ["'stock': {'apples': 1}", "[(3, None), (2, 'sell'), (1, 'sell')]", "{'apples': 3}"],
    "map_reduce.py": ["285"],
    "survive_a_crash.py": ["killed by signal 9", "result: ['frame', 'wheels', 'saddle', 'bell']"],
    "fix_and_resume.py": ["parse: ValueError", "{'parse': 3.14}", "('download', 'completed', 1), ('parse', 'completed', 2)"],
    "order.py": [
        "reserved at attempt 3 charging 40 € waiting: task decide waits for approval",
        "{'ship': 'lamp shipped, paid with R-40'}",
        "{'refund': 'R-90 refunded'}",
        "charged 2 times",
    ],
    "crawler.py": [
        "page 200 /29",
        "page 404 /404",
        "report {'pages': 31, 'links': 60, 'broken': ['/404']}",
        "32 requests; asked for more than once: {'/5': 2}",
    ],
    "nightly.py": [
        "task clean_up is due at 2026-03-28 02:00:00 UTC",
        "closed, and opened again 28 March, 02:00 cleaning up, night 1",
        "29 March, 02:00 cleaning up, night 2",
        "30 March, 02:00 cleaning up, night 3 {'clean_up': 3}",
    ],
    "chat.py": ["your message number 1", "number 2. The one before was 'hello'."],
    "sql_tour.py": ["# The store in SQL", "## 10.", "out of paper", "conflicted"],
    "demo.py": ["kill -9 after", "were not done again", "most used", "run_overview"],
    "library_names.py": ["names in ", " self "],
}
INPUT = {"chat.py": "hello\nagain\n\n"}
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"  # its rules, for machines that do not know the name


def run(name: str, folder: Path, zone: str = "UTC0") -> str:
    env = {**os.environ, "COLUMNS": "120", "TZ": zone}
    env.pop("LITEFLOW_STORE", None)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=folder, env=env, input=INPUT.get(name, ""), text=True,
        capture_output=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_it_promises(name, tmp_path):
    printed = " ".join(run(name, tmp_path).split())

    for line in EXPECTED[name]:
        assert " ".join(line.split()) in printed


def test_the_chat_remembers_after_a_restart(tmp_path):
    run("chat.py", tmp_path)

    assert "your message number 3. The one before was 'again'." in run("chat.py", tmp_path)


def test_after_a_crash_no_part_is_mounted_twice_but_the_one_that_was_lost(tmp_path):
    printed = run("survive_a_crash.py", tmp_path)

    assert [printed.count(f"mounting the {part}") for part in ("frame", "wheels", "saddle", "bell")] == [1, 1, 2, 1]


def test_each_order_is_charged_once_and_a_script_that_is_started_again_charges_none(tmp_path):
    first, second = run("order.py", tmp_path), run("order.py", tmp_path)

    assert [printed.count("charging") for printed in (first, second)] == [2, 0]
    assert "lamp shipped, paid with R-40" in second


def test_an_order_is_charged_once_although_the_task_that_pays_is_tried_twice(tmp_path):
    printed = run("order.py", tmp_path)

    with Flow(name="order", store=f"sqlite:///{tmp_path / 'liteflow.db'}") as flow:
        attempts = [{task.key: task.attempts for task in flow.get_run(run_id).tasks()} for run_id in ("order-1", "order-2")]
    assert [tried["pay"] for tried in attempts] == [2, 2]
    assert [printed.count(f"charging {price}") for price in (40, 90)] == [1, 1]


def test_the_crawler_shows_each_page_once_and_the_report_last(tmp_path):
    lines = run("crawler.py", tmp_path).splitlines()

    pages = [line.split()[-1] for line in lines if line.startswith("page ")]
    assert sorted(pages) == sorted([*(f"/{number}" for number in range(30)), "/404"])
    assert lines[-2].startswith("report ")


def test_the_nightly_job_runs_once_a_night_at_two_by_the_clock_on_the_wall(tmp_path):
    printed = run("nightly.py", tmp_path, BERLIN)

    nights = [line for line in printed.splitlines() if "cleaning up" in line]
    assert [night.partition("  ")[0] for night in nights] == [
        "28 March, 02:00",
        "29 March, 03:00",  # there is no 02:00 in the night in which summer time begins
        "30 March, 02:00",
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_in_a_few_lines_what_it_shows(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert 3 <= len([line for line in text.splitlines() if line.strip()]) <= 4
