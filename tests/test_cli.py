"""The command line: what it prints, what it exits with, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from liteflow import Flow
from liteflow.cli import main


@pytest.fixture
def liteflow(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LITEFLOW_STORE", raising=False)

    def call(*words: str):
        return CliRunner().invoke(main, words)

    return call


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Flow(store=url) as flow:
        flow.add_task("a", lambda ctx: "done")
        flow.run("a")
    return url


def test_doctor_names_versions_the_store_and_its_runs(liteflow, url):
    answer = liteflow("doctor", "--store", url)

    assert answer.exit_code == 0
    for words in ("LiteFlow", "SQLite", "journal mode", "wal", "0600", "runs completed", "nothing keeps this store"):
        assert words in answer.output


def test_doctor_gives_json(liteflow, url):
    found = json.loads(liteflow("doctor", "--json", "--store", url).output)

    assert (found["schema"], found["runs"], found["problems"]) == ("0001", 1, [])


def test_doctor_takes_the_store_of_the_environment_and_creates_none(liteflow, monkeypatch, tmp_path):
    monkeypatch.setenv("LITEFLOW_STORE", f"sqlite:///{tmp_path / 'none.db'}")

    answer = liteflow("doctor")

    assert (answer.exit_code, "the first run makes it" in answer.output) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_wrong_with_a_file_that_is_no_database_and_exits_with_1(liteflow, tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one " * 40, encoding="utf-8")

    answer = liteflow("doctor", "--store", f"sqlite:///{tmp_path / 'notes.txt'}")

    assert answer.exit_code == 1
    assert "LF506" in answer.output


def test_doctor_tells_of_a_file_that_others_can_read(liteflow, url):
    Path(url.removeprefix("sqlite:///")).chmod(0o644)

    assert "chmod 600" in liteflow("doctor", "--store", url).output


DYING = """
import os, signal
from liteflow import Flow
flow = Flow(store={url!r})
flow.add_task("die", lambda ctx: os.kill(os.getpid(), signal.SIGKILL))
flow.run("die", run_id="lost-run")
"""


def test_doctor_tells_of_interrupted_runs(liteflow, url):
    died = subprocess.run([sys.executable, "-c", DYING.format(url=url)], env=dict(os.environ), check=False)
    assert died.returncode == -signal.SIGKILL

    answer = liteflow("doctor", "--store", url)

    assert "1 interrupted: lost-run; flow.recover()" in answer.output
    assert answer.exit_code == 0


def test_db_commands_tell_check_and_upgrade_the_schema(liteflow, url, tmp_path):
    assert liteflow("db", "current", "--store", url).output == "0001\n"
    assert liteflow("db", "check", "--store", url).exit_code == 0
    assert "already" in liteflow("db", "upgrade", "--store", url).output
    (tmp_path / "empty.db").touch()
    empty = f"sqlite:///{tmp_path / 'empty.db'}"

    assert liteflow("db", "current", "--store", empty).output == "none\n"
    refused = liteflow("db", "check", "--store", empty)
    assert (refused.exit_code, "LF502" in refused.output) == (1, True)
    assert "from schema none to 0001" in liteflow("db", "upgrade", "--store", empty).output
    assert liteflow("db", "check", "--store", empty).exit_code == 0


def test_db_upgrade_of_a_file_that_is_not_there_is_one_line_and_creates_none(liteflow, tmp_path):
    answer = liteflow("db", "upgrade", "--store", f"sqlite:///{tmp_path / 'none.db'}")

    assert answer.exit_code == 1
    assert answer.output.startswith("Error: [LF503]")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_word_exits_with_2(liteflow):
    assert liteflow("dokter").exit_code == 2


def test_help_does_not_load_the_database_library():
    code = (
        "import sys; from liteflow.cli import main; main(['--help'], standalone_mode=False); print('sqlalchemy' in sys.modules)"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout

    assert "doctor" in shown
    assert shown.endswith("False\n")
