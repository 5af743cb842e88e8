"""The house rules of CONTRIBUTING.md, as far as a machine can tell whether they are kept."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
CODE_FOLDERS = ("liteflow", "migrations", "tests", "examples", "benchmarks")
BUILT = {".git", ".venv", "dist", "node_modules", "__pycache__"}

MAX_FILE, MAX_FUNCTION, MAX_CORE, MAX_PARTS = 400, 40, 3_500, 2_500  # lines
LONG = "# long:"  # on the line of a `def` that is longer, with the reason
CORE = ("model.py", "context.py", "ports.py", "flow.py", "run.py", "bell.py", "places.py", "engine/")
PARTS = ("errors.py", "codec/", "executor/", "store/")  # each to be read without the rest

THIS = Path(__file__).relative_to(ROOT).as_posix()


def _python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if BUILT.isdisjoint(path.parts))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _code_lines(path: Path) -> int:
    """Count the lines that hold code: not those of comments, docstrings, blanks or brackets alone."""
    source = path.read_text(encoding="utf-8")
    words = {tokenize.NAME, tokenize.NUMBER, tokenize.STRING}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {line for token in tokens if token.type in words for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=_name(path)))


def _called(call: ast.Call) -> str:
    """Return the dotted name that *call* calls, as it is written."""
    return ast.unparse(call.func)


# ---------------------------------------------------------------- sizes


def test_no_file_is_longer_than_400_lines():
    too_long = {_name(path): _lines(path) for path in _python_files(*CODE_FOLDERS) if _lines(path) > MAX_FILE}

    assert too_long == {}


def _long_functions(source: str) -> Iterator[tuple[str, int]]:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            signature = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
            if length > MAX_FUNCTION and not re.search(rf"{LONG} \w+", signature):
                yield node.name, length


def test_no_function_is_longer_than_40_lines_unless_its_line_says_why():
    too_long = {
        f"{_name(path)}:{function}": length
        for path in _python_files(*CODE_FOLDERS)
        for function, length in _long_functions(path.read_text(encoding="utf-8"))
    }

    assert too_long == {}


@pytest.mark.parametrize(("reason", "found"), [("", [("f", 42)]), ("  # long: one table, read top to bottom", [])])
def test_the_measure_of_functions_sees_a_long_one(reason: str, found: list[tuple[str, int]]):
    source = f"def f():{reason}\n" + "    pass\n" * 41

    assert list(_long_functions(source)) == found


@pytest.mark.parametrize(("names", "most"), [(CORE, MAX_CORE), (PARTS, MAX_PARTS)])
def test_the_core_can_be_read_in_an_afternoon(names: tuple[str, ...], most: int):
    package = ROOT / "liteflow"
    lines = {
        name: _code_lines(path)
        for path in _python_files("liteflow")
        if (name := path.relative_to(package).as_posix()).startswith(names)
    }

    assert sum(lines.values()) <= most, lines


# ---------------------------------------------------------------- what is written


def test_no_test_sleeps():
    sleeping = [
        f"{_name(path)}:{number}"
        for path in _python_files("tests")
        if _name(path) != THIS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\bsleep\((?!0\))|\bimport\b.*\bsleep\b", line)  # asyncio.sleep(0) lets others go first, and takes no time
    ]

    assert sleeping == []


def _built_statements(source: str) -> Iterator[int]:
    """Yield the lines on which SQL is put together from pieces at run time."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _called(node).rpartition(".")[2] in {"text", "exec_driver_sql"}:
            statement = node.args[0] if node.args else None
            glued = isinstance(statement, ast.JoinedStr | ast.BinOp)
            filled = isinstance(statement, ast.Call) and _called(statement).endswith(".format")
            if glued or filled:
                yield node.lineno


def test_no_sql_text_is_an_f_string():
    built = [
        f"{_name(path)}:{line}"
        for path in _python_files("liteflow", "migrations", "tests", "examples", "benchmarks")
        for line in _built_statements(path.read_text(encoding="utf-8"))
    ]

    assert built == []


@pytest.mark.parametrize("glue", ["text(f'SELECT {x}')", "sa.text('SELECT ' + x)", "text('SELECT {}'.format(x))"])
def test_the_search_for_built_sql_sees_it(glue: str):
    assert list(_built_statements(glue)) == [1]


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_every_exception_from_a_checker_says_why_on_its_line():
    exception = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)[:\s]*(\[[^]]*\]|[A-Z]+\d+[,\s]*)*")
    silent = [
        f"{_name(path)}:{line}: {comment}"
        for path in _python_files(*CODE_FOLDERS)
        for line, comment in _comments(path)
        if exception.search(comment) and len(re.findall(r"\w+", exception.sub("", comment))) < 1
    ]

    assert silent == []


def test_every_rule_switched_off_for_ruff_says_why():
    table = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.ruff.lint]")[2]
    rules = table.partition("[tool.ruff.lint.pydocstyle]")[0]
    silent = [line for line in rules.splitlines() if re.match(r'\s+"[A-Z]+\d*",', line) and not re.search(r"# \w+", line)]

    assert silent == []


def _skips(path: Path) -> Iterator[ast.Call | ast.Attribute]:
    """Yield each place that skips a test or expects it to fail, as a call or as a bare mark."""
    called = set()
    for node in _nodes(path):
        if isinstance(node, ast.Call) and re.search(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)$", _called(node)):
            called.add(node.func)
            yield node
        elif (
            isinstance(node, ast.Attribute)
            and node not in called
            and re.search(r"pytest\.mark\.(skip|skipif|xfail)$", ast.unparse(node))
        ):
            yield node


def _has_reason(skip: ast.Call | ast.Attribute) -> bool:
    if isinstance(skip, ast.Attribute):
        return False
    named = any(keyword.arg == "reason" for keyword in skip.keywords)
    return named or (bool(skip.args) and _called(skip) in {"pytest.skip", "pytest.xfail", "pytest.mark.skip"})


def test_every_skip_has_a_reason():
    silent = [f"{_name(path)}:{skip.lineno}" for path in _python_files("tests") for skip in _skips(path) if not _has_reason(skip)]

    assert silent == []


# ---------------------------------------------------------------- the tree as a whole


def _kept_files() -> list[Path]:
    """Return what is, or is about to be, under version control; all files in a tree that has none."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file() and BUILT.isdisjoint(path.parts)]
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_in_the_tree_names_a_place_outside_it():
    outside = re.compile(
        rb"\.\./shared|/work/(main|shared|\.library|\.mirror)|/tmp/brief|/root/|\b(HOUSE|SEMANTICS|FAULTS|RAY|seed-readme)\.md"
    )
    naming = [
        f"{_name(path)}: {found.group().decode()}"
        for path in _kept_files()
        if _name(path) != THIS and (found := outside.search(path.read_bytes()))
    ]

    assert naming == []


def _python_blocks() -> Iterator[pytest.ParameterSet]:
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```(?:python|py)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, block.start(1)) + 1
            yield pytest.param(block.group(1), id=f"{_name(page)}:{line}")


@pytest.mark.parametrize("block", list(_python_blocks()))
def test_python_in_the_documentation_parses(block: str):
    ast.parse(block)


def test_the_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


# ---------------------------------------------------------------- the architecture

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {contract["id"]: contract["name"] for contract in CONFIG["tool"]["importlinter"]["contracts"]}

# One import a contract that it must refuse: the module it stands in, and the line.
VIOLATIONS = {
    "layers": ("liteflow/store/planted.py", "import liteflow.executor"),
    "acyclic": ("liteflow/clock.py", "import liteflow.planted"),
    "root": ("liteflow/codec.py", "from liteflow import __doc__"),
    "pure": ("liteflow/engine/state.py", "import threading"),
    "database": ("liteflow/executor/__init__.py", "import sqlalchemy.orm"),
    "terminal": ("liteflow/store/__init__.py", "import rich.console"),
    "codec": ("liteflow/context.py", "import msgspec"),
    "ids": ("liteflow/engine/__init__.py", "from uuid import uuid4"),
}


def _lint_imports(tree: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Check *contracts*, or all, in *tree*: the command looks for the package first where it is started."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    for contract in contracts:
        command += ["--contract", contract]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "liteflow", tmp_path / "liteflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_there_is_a_violation_to_try_each_contract_with():
    assert VIOLATIONS.keys() == CONTRACTS.keys()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_an_import_that_breaks_a_contract_is_refused_by_that_contract(contract: str, tree: Path):
    module, line = VIOLATIONS[contract]
    if contract == "acyclic":  # a circle takes two
        (tree / "liteflow/planted.py").write_text("import liteflow.clock\n", encoding="utf-8")
    with (tree / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")

    checked = _lint_imports(tree, contract)

    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert f"{CONTRACTS[contract]} BROKEN" in checked.stdout


def test_the_package_keeps_every_contract(tree: Path):
    checked = _lint_imports(tree)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_module_without_a_place_in_the_layers_is_refused(tree: Path):
    (tree / "liteflow/helpers.py").write_text("", encoding="utf-8")

    checked = _lint_imports(tree, "layers")

    assert checked.returncode == 1
    assert "liteflow.helpers" in checked.stdout
