from __future__ import annotations

import json
import sys
import types

import pytest

from liteflow.codec import Opaque, decode, encode
from liteflow.errors import SerializationError
from tests.values import Coin, Color, Money, Order, Point, Sum, stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nonsense",
        "NaN",
        '"\ud800"',
        "1e999",
        '{"$unknown":1}',
        '{ "$unknown" : 1}',
        '{"$tuple":1}',
        '{"$tuple":"abc"}',
        '{"$tuple":[1],"more":2}',
        '{"$dict":{"a":1}}',
        '{"$dict":[1]}',
        '{"$set":[[1]]}',
        '{"$int":"one"}',
        '{"$bytes":"not base64!"}',
        '{"$datetime":["2026-01-01T00:00:00","../../etc/passwd",0]}',
        '{"$datetime":["2026-01-01T00:00:00","Nowhere/City",0]}',
        '{"$date":"2026-13-01"}',
        '{"$decimal":"x"}',
        '{"$uuid":"x"}',
        '{"$enum":"test_codec:Color"}',
        '{"$enum":["x"],"value":1}',
        '{"$record":"subprocess:Popen","value":{"args":"true"}}',
        '{"$record":"os:environ","value":{}}',
        '{"$record":"builtins:eval","value":{}}',
        '{"$record":"nowhere.to.be.found:Order","value":{}}',
        '{"$record":"","value":{}}',
        '{"$registered":"nobody","value":1}',
    ],
)
def test_damaged_and_unknown_text_is_an_error_and_never_a_guess(text):
    with pytest.raises(SerializationError):
        decode(text)

    assert isinstance(decode(text, lenient=True), Opaque)


@pytest.mark.parametrize(
    "text",
    [
        stored(Color, "record", {"item": 1}),
        stored(Order, "enum", "RED"),
        stored(Order, "namedtuple", {}),
        stored(Point, "record", {"x": 1}),
        stored(Money, "record", {"cents": 1}),
        stored(Color, "enum", "BLUE"),
        stored(Color, "enum", ["New", "A B"]),
        stored(Order, "record", {"total": 1}),
        stored(Order, "record", [1]),
        stored(Order, "record", {"item": 1, "__class__": 1}),
        stored(Coin, "record", {"value": 1, "gone": 2}),
        stored(Point, "namedtuple", {"y": 1}),
        stored(Point, "namedtuple", {"x": 1, "z": 1}),
    ],
)
def test_a_class_of_another_kind_or_shape_than_was_stored_is_an_error(text):
    with pytest.raises(SerializationError):
        decode(text)


def test_reading_never_imports(monkeypatch):
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    monkeypatch.setattr("builtins.__import__", None)

    with pytest.raises(SerializationError, match="import antigravity first"):
        decode('{"$record":"antigravity:Order","value":{}}')

    assert "antigravity" not in sys.modules


def test_reading_never_asks_a_module_for_an_attribute(monkeypatch):
    asked: list[str] = []
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign] # as PEP 562 has it
    monkeypatch.setitem(sys.modules, "lazy", lazy)

    with pytest.raises(SerializationError):
        decode('{"$record":"lazy:Order","value":{}}')

    assert asked == []


def test_reading_calls_nothing_of_a_dataclass(monkeypatch):
    text = encode(Sum([1]))
    monkeypatch.setattr(Sum, "__init__", None)
    monkeypatch.setattr(Sum, "__post_init__", None)

    assert decode(text).total == 1


def test_a_class_under_another_than_its_own_name_is_not_found(monkeypatch):
    alias = types.ModuleType("alias")
    alias.Order = Order  # type: ignore[attr-defined] # as `from test_codec import Order` would put it there
    monkeypatch.setitem(sys.modules, "alias", alias)

    with pytest.raises(SerializationError):
        decode(encode(Order(1)).replace(Order.__module__, "alias"))


def test_a_field_gained_since_takes_its_plain_default():
    assert decode(stored(Order, "record", {"item": 1, "tags": []})) == Order(1, 0)
    assert decode(stored(Point, "namedtuple", {"x": 1})) == Point(1, 0)


def test_a_lenient_reader_sees_the_json_and_what_to_import_and_all_else():
    text = '{"a":(1),"b":{"$record":"shop.models:Order","value":{"total":{"$decimal":"3.5"}}},"c":{"$tuple":[1]}}'

    back = decode(text.replace("(1)", "1"), lenient=True)

    assert (back["a"], back["c"]) == (1, (1,))
    assert back["b"].name == "shop.models:Order"
    assert json.loads(back["b"].json) == {"$record": "shop.models:Order", "value": {"total": {"$decimal": "3.5"}}}
    assert "import shop.models" in back["b"].why
    assert "shop.models:Order" in repr(back["b"])


def test_a_lenient_reader_can_hold_the_unknown_inside_the_known():
    unknown = '{"$enum":"shop.models:Color","value":"RED"}'

    back = decode(f'{{"$set":[{unknown},1]}}', lenient=True)

    assert type(back) is set
    assert {type(item) for item in back} == {Opaque, int}
