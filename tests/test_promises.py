"""docs/promises.md names tests that are there, for each promise at least one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NOT_YET = "not there yet"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
]


@cache
def named_in(path: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_rule_has_its_section():
    assert re.findall(r"^## R(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 14)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_each_promise_stands_beside_tests_that_are_there(row: tuple[str, ...]):
    promise, proof = row

    assert promise.endswith((".", ":"))
    named = [re.fullmatch(r"\[(tests/\S+\.py)\]\(\.\./\1\)(?:`::(test_\w+)`)?", cell) for cell in proof.split("<br>")]
    if proof == NOT_YET:
        return
    for match in named:
        assert match is not None, proof
        path, name = match.groups()
        assert named_in(path) if name is None else name in named_in(path), (path, name)


def test_few_promises_are_not_there_yet():
    assert len(ROWS) >= 100
    assert sum(row[1] == NOT_YET for row in ROWS) <= 2
