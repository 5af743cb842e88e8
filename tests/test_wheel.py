"""What is built is what a user installs: into a fresh environment, with the dependencies that the wheel names."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import venv
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(300)  # the first one builds an environment
network = pytest.mark.network

FLOW = """
from liteflow import Flow, NextTask, TaskOutput

flow = Flow(name="wheel")

@flow.task("split")
def split(ctx):
    return TaskOutput(None, [NextTask("square", n, spawn_another=True) for n in (2, 3)])

@flow.task("square")
def square(ctx, inputs):
    return inputs * inputs

print(sorted(flow.run("split", run_id="one").items()))
flow.close()
"""
RESULT = "[('square', 4), ('square#2', 9)]"


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run *command* without what the tests' own environment would lend it, and return what it printed."""
    lent = ("PYTHON", "LITEFLOW_", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(lent)}
    done = subprocess.run(command, cwd=cwd, env=own | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend itself: it needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("liteflow-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment that has the wheel and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    commands = folder / "bin"
    _run(commands / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=folder)
    return commands


def test_the_wheel_carries_the_migrations_the_type_marker_and_the_licence(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    migrations = {path.relative_to(ROOT).as_posix() for path in (ROOT / "migrations").rglob("*.py")}

    assert {f"liteflow/{name}" for name in migrations} <= names
    assert "liteflow/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_carries_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    strange = [name for name in names if not name.startswith("liteflow") or "__pycache__" in name or "tests/" in name]

    assert strange == []


@network
def test_a_flow_runs_where_only_the_wheel_is_installed(installed: Path, tmp_path: Path):
    (tmp_path / "script.py").write_text(FLOW, encoding="utf-8")

    printed = _run(installed / "python", "script.py", cwd=tmp_path)

    assert printed == RESULT
    assert (tmp_path / "liteflow.db").exists()


@network
def test_the_package_is_the_installed_one_and_not_the_checkout(installed: Path, tmp_path: Path):
    where = _run(installed / "python", "-c", "import liteflow; print(liteflow.__file__)", cwd=tmp_path)

    assert Path(where).is_relative_to(installed.parent)


@network
def test_an_installed_liteflow_upgrades_a_database_from_the_oldest_schema_there_is(installed: Path, tmp_path: Path):
    # No schema is released yet, so the oldest database is one at Alembic's base: an empty file. From the first release
    # on, the files of tests/migrations/ are upgraded here too, and their interrupted runs resumed.
    database = tmp_path / "old.db"
    database.touch()
    (tmp_path / "script.py").write_text(FLOW, encoding="utf-8")
    store = {"LITEFLOW_STORE": f"sqlite:///{database}"}

    _run(installed / "liteflow", "db", "upgrade", cwd=tmp_path, **store)
    with closing(sqlite3.connect(database)) as connection:
        stamped = connection.execute("SELECT count(*) FROM liteflow_schema").fetchone()
    _run(installed / "liteflow", "db", "check", cwd=tmp_path, **store)
    printed = _run(installed / "python", "script.py", cwd=tmp_path, **store)

    assert stamped == (1,)
    assert printed == RESULT
    assert not (tmp_path / "liteflow.db").exists()


@network
def test_doctor_speaks_from_the_installed_wheel(installed: Path, tmp_path: Path):
    printed = _run(installed / "liteflow", "doctor", cwd=tmp_path, LITEFLOW_STORE=f"sqlite:///{tmp_path}/new.db")

    assert "SQLite" in printed
