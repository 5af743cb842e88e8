"""The command line: what it prints, what it exits with, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from liteflow import Flow
from liteflow.cli import main
from liteflow.cli.doctor import file_system
from liteflow.store import schema
from tests.test_dialects import read_only_disk  # noqa: F401 - a fixture


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


@pytest.fixture
def interrupted(url):
    """The store, with a run whose process was killed, and left its log behind."""
    died = subprocess.run([sys.executable, "-c", DYING.format(url=url)], env=dict(os.environ), check=False)
    assert died.returncode == -signal.SIGKILL
    return url


def test_doctor_tells_of_interrupted_runs(liteflow, interrupted):
    answer = liteflow("doctor", "--store", interrupted)

    assert "1 interrupted: lost-run; flow.recover()" in answer.output
    assert answer.exit_code == 0


def files(folder: Path) -> dict[str, object]:
    """Everything that looking could change; the index of the log is SQLite's own to rebuild."""
    found = {path.name: (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    return {name: None if name.endswith("-shm") else what for name, what in found.items()}


@pytest.mark.parametrize("store", ["url", "interrupted"])
@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"], ["db", "current"], ["db", "check"]])
def test_looking_changes_nothing(liteflow, request, tmp_path, store, words):
    url = request.getfixturevalue(store)
    before = files(tmp_path)

    assert liteflow(*words, "--store", url).exit_code == 0

    assert files(tmp_path) == before


def stamp(url: str, revision: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE liteflow_schema SET version_num = ?", (revision,))


def test_doctor_of_a_newer_schema_says_what_to_install_and_what_else_it_can_tell(liteflow, url):
    stamp(url, "9999")

    answer = liteflow("doctor", "--store", url)

    assert answer.exit_code == 1
    assert "LF501" in answer.output
    assert "install a newer LiteFlow" in answer.output
    assert [line.split()[-1] for line in answer.output.splitlines() if line.startswith(("schema ", "perm"))] == [
        "0600", "9999", "0001",
    ]  # fmt: skip


def test_doctor_of_an_older_schema_says_that_the_next_run_upgrades_it_and_leaves_that_to_it(liteflow, url, monkeypatch):
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002"))

    answer = liteflow("doctor", "--store", url)

    assert (answer.exit_code, "upgrades schema 0001 to 0002" in answer.output) == (0, True)
    assert liteflow("db", "current", "--store", url).output == "0001\n"


def test_doctor_names_the_table_of_another_program_that_is_in_the_way(liteflow, tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as db, db:
        db.execute("CREATE TABLE tasks (title TEXT)")

    answer = liteflow("doctor", "--store", f"sqlite:///{tmp_path / 'other.db'}")

    assert (answer.exit_code, "a table there named tasks" in answer.output) == (1, True)


def test_doctor_tells_an_empty_file_and_one_in_memory_from_a_problem(liteflow, tmp_path):
    (tmp_path / "empty.db").touch()

    for store, note in (
        (f"sqlite:///{tmp_path / 'empty.db'}", "the first run makes them"),
        ("sqlite://", "ends with its process"),
    ):
        answer = liteflow("doctor", "--store", store)
        assert (answer.exit_code, note in answer.output) == (0, True)


def test_doctor_says_so_if_the_folder_of_a_store_is_not_there(liteflow, tmp_path):
    answer = liteflow("doctor", "--store", f"sqlite:///{tmp_path / 'missing' / 'store.db'}")

    assert (answer.exit_code, f"mkdir -p {tmp_path / 'missing'}" in answer.output) == (1, True)


@pytest.mark.parametrize("name", ["store.db", "new.db"])
def test_doctor_says_so_if_a_store_cannot_be_written(liteflow, read_only_disk, name):  # noqa: F811 - the fixture
    answer = liteflow("doctor", "--store", f"sqlite:///{read_only_disk / name}")

    assert (answer.exit_code, "may not write" in answer.output) == (1, True)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("/x.db", "ext4"), ("/home/a b/x.db", "nfs4"), ("/home/a b/local/x.db", "xfs"), ("/home/a bc/x.db", "ext4")],
)
def test_the_file_system_of_a_file_is_that_of_the_nearest_mount(file, kind):
    mounts = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:45 / /home/a\\040b rw,relatime - nfs4 server:/export rw,vers=4.2
91 90 8:2 / /home/a\\040b/local rw - xfs /dev/sdb rw
"""

    assert file_system(Path(file), mounts) == kind


def test_doctor_warns_of_a_network_file_system(liteflow, url, monkeypatch, tmp_path):
    (tmp_path / "mounts").write_text("22 1 0:45 / / rw - nfs4 server:/export rw\n")
    monkeypatch.setattr("liteflow.cli.doctor.MOUNTS", tmp_path / "mounts")

    answer = liteflow("doctor", "--store", url)

    assert (answer.exit_code, "network file system (nfs4)" in answer.output) == (0, True)


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"], ["db", "current"], ["db", "upgrade"]])
def test_a_password_is_never_shown(liteflow, words):
    answer = liteflow(*words, "--store", "postgresql://ada:secret@host/db")

    assert (answer.exit_code, "secret" in answer.output, "ada:***@host" in answer.output) == (1, False, True)


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


def test_version_and_help_exit_with_0(liteflow):
    assert liteflow("--version").output.startswith("liteflow, version ")
    assert liteflow("-h").exit_code == liteflow("db", "--help").exit_code == 0


def test_help_loads_nothing_that_takes_long():
    slow = ("sqlalchemy", "alembic", "rich", "importlib.metadata")
    code = (
        "import sys; from liteflow.cli import main; main(['--help'], standalone_mode=False);"
        f"print([name for name in {slow} if name in sys.modules])"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout

    assert "doctor" in shown
    assert shown.endswith("[]\n")
