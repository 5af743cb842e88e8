"""Every Python block of the product page runs as written, and prints what its comments say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from liteflow import Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("product_page.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## (.+?)\n\n```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))

# What the comments of each block say it prints: a text for a printed string, any other value for its repr.
PRINTS: dict[str, list[object]] = {
    "Basic Usage": [{"greet": "Hello World!"}],
    "Task Chaining": ["result1", {"task2": "result2"}],
    "Parallel Execution": ["started", {"slow_task1": "result1", "slow_task2": "result2"}],
    "Streaming Results": [
        "streaming_task: interim_0", "streaming_task: interim_1", "streaming_task: interim_2", "streaming_task: final"
    ],
    "Dynamic Workflows": [{"conditional_task": "done"}],
    "Input Parameters": [{"greet": "Hello Alice!"}],
    "Push next task with inputs": [{"task2": "result2"}],
    "Dynamic Routing": [{"process_task": "processed data"}],
    "State Management": ["result1", "result2", {"task1": "result1", "task2": "result2"}],
    "Map Reduce": [{"task3": ["result2", "result2", "result2"]}],
}  # fmt: skip


def as_printed(values: list[object]) -> str:
    return "".join(f"{value}\n" for value in values)


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    flows: set[Flow] = set()

    class Kept(dict[str, Any]):
        def __setitem__(self, name: str, value: object) -> None:
            if isinstance(value, Flow):
                flows.add(value)
            super().__setitem__(name, value)

    namespace = Kept()
    yield namespace
    for flow in flows:
        flow.close()


def test_the_whole_page_runs_in_one_namespace_and_prints_what_it_says(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    printed = {}

    for heading, block in BLOCKS.items():
        exec(compile(block, heading, "exec"), namespace)  # noqa: S102 - the page is what is tested
        printed[heading] = capsys.readouterr().out

    assert printed == {heading: as_printed(values) for heading, values in PRINTS.items()}


@pytest.mark.parametrize("heading", BLOCKS)
def test_what_is_expected_of_a_block_stands_in_its_comments(heading: str):
    comments = " ".join(re.findall(r"#\s*(.*)", BLOCKS[heading]))
    told = [ast.literal_eval(text) for text in re.findall(r"\{.*?\}", comments)]

    assert all(value in PRINTS[heading] for value in told)


def test_parallel_tasks_of_a_second_each_take_about_a_second(namespace: dict[str, Any]):
    setting = "from liteflow import *\nflow = Flow()\nimport time\n"
    timed = "\nbegan = time.monotonic()\nflow.run('starter')\ntook = time.monotonic() - began\n"

    exec(setting + BLOCKS["Parallel Execution"] + timed, namespace)  # noqa: S102 - the page is what is tested

    assert 1.0 <= namespace["took"] < 1.9
