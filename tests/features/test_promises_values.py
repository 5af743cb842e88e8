"""A reader that lacks a class fails where it asks for that very value, and nowhere else (R11)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from liteflow import SerializationError
from tests.features.children import output_of

if TYPE_CHECKING:
    from pathlib import Path

    from liteflow import Flow

MODELS = """
from dataclasses import dataclass

@dataclass
class Order:
    item: str
"""
SELLS = """
import sys
from liteflow import Flow, NextTask, TaskOutput

sys.path.insert(0, sys.argv[2])
from models_of_another_flow import Order

with Flow(store=sys.argv[1]) as flow:
    flow.add_task("first", lambda ctx: ctx.set("order", Order("tea")) or TaskOutput(1, [NextTask("second", Order("milk"))]))
    flow.add_task("second", lambda ctx: 2)
    flow.run("first", run_id="r")
"""


def test_a_reader_that_lacks_a_class_is_shown_its_json_and_what_to_import_and_all_else(flow: Flow, store: str, tmp_path: Path):
    (tmp_path / "models_of_another_flow.py").write_text(MODELS)
    output_of(SELLS, store, tmp_path)
    run = flow.get_run("r")

    (version,) = run.context.history("order")
    records = run.tasks()

    assert version.value.json == '{"$record":"models_of_another_flow:Order","value":{"item":"tea"}}'
    assert "import models_of_another_flow" in version.value.why
    assert [record.inputs for record in records[:1]] == [None]
    assert records[1].inputs.json == '{"$record":"models_of_another_flow:Order","value":{"item":"milk"}}'
    assert run.context.keys() == ["order", "first", "second"]
    assert [run.context.get(key) for key in ("first", "second")] == [1, 2]
    assert run.result() == {"second": 2}
    with pytest.raises(SerializationError, match="import models_of_another_flow") as lacking:
        run.context.get("order")
    assert lacking.value.key == "order"
    assert "models_of_another_flow" not in sys.modules
