"""What the benchmark makes of its readings; nothing is measured here."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import plan, plot, report

OWN = plan.liteflow("chain", 10)
RAW = plan.raw("chain", 10)
WORK = plan.Work("chain", "chain of ten", OWN, (plan.times(2.0, RAW), plan.faster(10, plan.DBOS), plan.most(100)))


def outcomes(subject: plan.Subject, *values: float) -> list[report.Outcome]:
    return [report.Outcome(WORK.name, subject.name, n, {"us": value}) for n, value in enumerate(values, start=1)]


def lines(text: str) -> list[list[str]]:
    """Return the cells of a table below its head, less the empty ones."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()[2:]]


def test_a_reading_is_told_as_its_median_and_its_extremes():
    assert report.spread(outcomes(OWN, 9, 1, 5), WORK, OWN, "us") == (5, 1, 9)


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (plan.most(15), 15, True),
        (plan.most(15), 15.1, False),
        (plan.faster(10, plan.DBOS), 10, True),
        (plan.faster(10, plan.DBOS), 9.9, False),
        (plan.Bar("encodes", most=1, least=1), 0, False),
        (plan.reported(), 1e9, None),
    ],
)
def test_a_bar_says_whether_it_is_met(bar: plan.Bar, value: float, met: object):
    assert bar.is_met(value) is met


def test_the_floor_is_compared_as_a_multiple_and_a_peer_as_how_many_times_faster():
    assert plan.times(2.0, RAW).ratio(150, 100) == 1.5
    assert plan.faster(10, plan.DBOS).ratio(150, 3_000) == 20


def test_the_table_has_a_line_a_bar_and_says_which_is_missed():
    text = report.table([WORK], [*outcomes(OWN, 90, 110, 120), *outcomes(RAW, 50), *outcomes(plan.DBOS, 2_200)])

    assert lines(text) == [
        ["chain of ten", "µs", "110", "90.0 - 120", "raw sqlite3", "50.0", "2.20 x", "<= 2 x", "MISSED"],
        ["DBOS", "2,200", "20.0 x", ">= 10 x faster", "yes"],
        ["<= 100 µs", "MISSED"],
    ]


def test_a_subject_that_failed_is_in_the_table_and_told_with_its_reason():
    failed = report.Outcome(WORK.name, plan.DBOS.name, 1, {}, "not installed: no network")
    told = [*outcomes(OWN, 90), *outcomes(RAW, 50), failed]

    assert lines(report.table([WORK], told))[1] == ["DBOS", "-", "-", ">= 10 x faster", "failed"]
    assert report.failures([*told, failed]) == ["DBOS, chain: not installed: no network (2 x)"]
    assert report.verdicts([WORK], told) == "bars: 2 met, 0 missed, 1 could not be told"


@pytest.mark.parametrize(
    ("code", "output", "errors", "understood"),
    [
        (0, 'a word before\n{"us": 1}\n', "", ({"us": 1.0}, "")),
        (
            2,
            "",
            "usage: ...\nerror: invalid choice: 'idle' (choose from 'chain')",
            ({}, "not there: error: invalid choice: 'idle'"),
        ),
        (1, "", "Traceback ...\nOSError: disk full\n", ({}, "OSError: disk full")),
        (-9, "", "", ({}, "ended with -9")),
        (0, "no json", "", ({}, "printed no readings")),
    ],
)
def test_what_a_process_printed_is_a_reading_or_a_reason(code: int, output: str, errors: str, understood: object):
    assert report.understood(code, output, errors) == understood


def test_a_work_that_is_not_known_yet_is_not_there():
    unknown = report.Outcome(WORK.name, OWN.name, 1, {}, f"{report.NOT_THERE}: invalid choice")

    assert [line[-1] for line in lines(report.table([WORK], [unknown]))] == [report.NOT_THERE] * 3


def test_every_reading_is_kept_in_the_file():
    kept = json.loads(report.to_json("2030-01-01", {"CPUs": "4"}, {"LiteFlow": "WAL"}, outcomes(OWN, 9.5, 1.25)))

    assert [outcome["readings"] for outcome in kept["outcomes"]] == [{"us": 9.5}, {"us": 1.25}]


@pytest.mark.parametrize("theme", plot.THEMES)
def test_the_plot_is_an_image_with_a_title_that_holds_each_figure(theme: str):
    figures = [plot.Figure("them <&>", "a note", 5_557.4), plot.Figure("us", "another", 101.6, is_ours=True)]

    root = ET.fromstring(plot.svg("A title", "a note", figures, plot.THEMES[theme]))  # noqa: S314 - drawn a moment ago
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]

    assert root.get("role") == "img"
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "A title"
    assert [word for word in words if "µs" in str(word)] == ["102 µs", "5,557 µs"]
    assert "them <&>" in words


def test_the_works_are_named_once_and_measured_in_known_units():
    names = [work.name for work in plan.PLAN]

    assert len(names) == len(set(names))
    assert all(bar.unit or bar.reading in {"encodes", "statements", "slowest_share"} for work in plan.PLAN for bar in work.bars)


def test_each_subject_of_a_work_has_a_name_of_its_own():
    for work in plan.PLAN:
        assert len({subject.name for subject in work.subjects}) == len(work.subjects)


# ---------------------------------------------------------------- what the README says of it

ROOT = Path(__file__).parents[1]


def test_the_readme_prints_what_was_measured_and_nothing_else():
    """In the words that stand for the picture, and in the picture itself."""
    latest = json.loads((ROOT / "benchmarks/results/latest.json").read_text(encoding="utf-8"))
    chain = [outcome for outcome in latest["outcomes"] if outcome["work"] == "chain"]
    (words,) = re.findall(
        r'alt="Microseconds a task in a chain of 1,000: (.+)"', (ROOT / "README.md").read_text(encoding="utf-8")
    )

    told = dict(re.findall(r"(\S.*?)(?: in memory)? ([\d,]+)(?:, |$)", words))

    assert len(told) == 6
    for name, figure in told.items():
        median = statistics.median(outcome["readings"]["us"] for outcome in chain if outcome["subject"] == name)
        assert figure == f"{median:,.0f}"
        for theme in ("light", "dark"):
            assert f">{figure} µs<" in (ROOT / f"docs/images/bench-{theme}.svg").read_text(encoding="utf-8")
