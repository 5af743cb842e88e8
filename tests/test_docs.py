"""What the documents show is so: the README's code runs, and docs/sql.md shows what its queries answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_code_of_the_readme_runs_as_written(tmp_path):
    code = "\n".join(blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python"))

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["{'ship': 'shipped, after: charged 42'}"] * 2 + [
        "{'visit': 1}",
        "[1]",
        "{'deliver': 'approved by Ada'}",
    ]


def test_the_sql_page_is_what_its_script_writes(tmp_path):
    script = [sys.executable, str(ROOT / "examples" / "sql_tour.py")]

    fresh = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout

    page = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    assert blocks(page, "sql") == blocks(fresh, "sql")
    assert len(blocks(page, "sql")) == 10
    for shown, answer in zip(blocks(page, "text"), blocks(fresh, "text"), strict=True):
        assert shown.splitlines()[0].split() == answer.splitlines()[0].split()
        assert len(shown.splitlines()) == len(answer.splitlines())


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link
