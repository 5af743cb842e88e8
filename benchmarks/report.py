"""What came of it, as a table to read and as a file to keep."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plan import Bar, Subject, Work

NOT_THERE = "not there"  # how the failure of a work that works.py does not know begins
HEAD = ("work", "reading", "LiteFlow", "min - max", "against", "median", "ratio", "bar", "met")
RIGHT = {"LiteFlow", "min - max", "median", "ratio"}  # the columns of numbers
SMALL, LARGE = 10, 100  # where a figure takes two decimals, and where it takes none


@dataclass(frozen=True)
class Outcome:
    """What one process told: its readings, or why there are none."""

    work: str
    subject: str
    repetition: int
    readings: dict[str, float]
    failure: str = ""


class Spread(NamedTuple):
    """Several readings of the same thing."""

    median: float
    least: float
    most: float


def understood(code: int, output: str, errors: str) -> tuple[dict[str, float], str]:
    """Return the readings that a process printed and "", or none and the reason."""
    last = errors.strip().rpartition("\n")[2]
    if code == 2:  # noqa: PLR2004 - with this argparse refuses a work or an option that it does not know
        return {}, f"{NOT_THERE}: {last.partition(' (choose')[0]}"
    if code:
        return {}, last or f"ended with {code}"
    try:
        readings = json.loads(output.strip().rpartition("\n")[2])
        return {name: float(reading) for name, reading in readings.items()}, ""
    except (ValueError, TypeError, AttributeError):
        return {}, "printed no readings"


def spread(outcomes: Sequence[Outcome], work: Work, subject: Subject, reading: str) -> Spread | None:
    """Return how one reading of one subject came out, ``None`` when it never did."""
    of_subject = [one.readings for one in outcomes if (one.work, one.subject) == (work.name, subject.name)]
    values = [readings[reading] for readings in of_subject if reading in readings]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def table(works: Sequence[Work], outcomes: Sequence[Outcome]) -> str:
    """Return one table: a line a bar."""
    rows = [HEAD]
    for work in works:
        lines = [_row(work, bar, outcomes) for bar in work.bars]
        seen: set[tuple[str, ...]] = set()
        for line in lines:
            rows.append((line[0] if not seen else "", *([""] * 3 if line[:4] in seen else line[1:4]), *line[4:]))
            seen.add(line[:4])
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(map(_padded, HEAD, row, widths)).rstrip() for row in rows)


def verdicts(works: Sequence[Work], outcomes: Sequence[Outcome]) -> str:
    """Return how many bars are met, in a line."""
    met = Counter(_row(work, bar, outcomes)[-1] for work in works for bar in work.bars if bar.is_asked)
    unknown = met.total() - met["yes"] - met["MISSED"]
    return f"bars: {met['yes']} met, {met['MISSED']} missed" + (f", {unknown} could not be told" if unknown else "")


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each subject that did not do its work, with the reason."""
    counted = Counter((one.subject, one.work, one.failure) for one in outcomes if one.failure)
    return [f"{subject}, {work}: {failure} ({count} x)" for (subject, work, failure), count in counted.items()]


def to_json(date: str, settings: dict[str, str], subjects: dict[str, str], outcomes: Sequence[Outcome]) -> str:
    """Return everything, each reading as it was."""
    whole = {"date": date, "settings": settings, "subjects": subjects, "outcomes": [asdict(one) for one in outcomes]}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def figure(value: float) -> str:
    """Return a number with about three digits that mean something."""
    return f"{value:,.{2 if abs(value) < SMALL else 1 if abs(value) < LARGE else 0}f}"


def _row(work: Work, bar: Bar, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    own = spread(outcomes, work, work.own, bar.reading)
    label = " ".join("µs" if word == "us" else word for word in bar.reading.split("_"))
    reading = (figure(own.median), f"{figure(own.least)} - {figure(own.most)}") if own else ("-", "-")
    name, median, ratio, value = "", "", "", own.median if own else None
    if bar.against is not None:
        other = spread(outcomes, work, bar.against, bar.reading)
        value = bar.ratio(own.median, other.median) if own and other else None
        name, median = bar.against.name, figure(other.median) if other else "-"
        ratio = "-" if value is None else f"{figure(value)} x"
    return (work.says, label, *reading, name, median, ratio, bar.says, _met(work, bar, value, outcomes))


def _met(work: Work, bar: Bar, value: float | None, outcomes: Sequence[Outcome]) -> str:
    if value is None:
        needed = {work.own.name, bar.against.name if bar.against else work.own.name}
        reasons = {one.failure for one in outcomes if one.work == work.name and one.subject in needed and one.failure}
        return "failed" if any(not reason.startswith(NOT_THERE) for reason in reasons) else NOT_THERE
    return {True: "yes", False: "MISSED", None: ""}[bar.is_met(value)]


def _padded(column: str, cell: str, width: int) -> str:
    return cell.rjust(width) if column in RIGHT else cell.ljust(width)
