from __future__ import annotations

import collections
import dataclasses
import types
from datetime import datetime
from typing import Any

import pytest

from liteflow.codec import MAX_DEPTH, Codec, Opaque, decode, encode
from liteflow.errors import SerializationError
from tests.values import Box, Coin, Customer, NowhereZone, Number, Order, Point, Shelf, Sub, Table, Text


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        range(3),
        print,
        Order,
        collections.OrderedDict(a=1),
        collections.defaultdict(list),
        Table(a=1),
        Text("a"),
        Number(1),
        types.SimpleNamespace(a=1),
        ValueError("a"),
        Shelf("a"),
        memoryview(b"a"),
        (n for n in []),
        datetime(2026, 1, 1, tzinfo=NowhereZone()),
        dataclasses.make_dataclass("Nowhere", ["a"])(1),
        Opaque("a", "{}", "b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_refused_with_its_path_its_type_and_the_ways_out(value):
    with pytest.raises(SerializationError) as caught:
        encode({"items": [0, {"price": value}]})

    assert caught.value.path == ".items[1].price"
    assert caught.value.type_name is not None
    assert type(value).__qualname__ in caught.value.type_name
    for words in (
        ".items[1].price",
        caught.value.type_name,
        "liteflow.register(",
        "Flow(pickle=True)",
        "store what it is made of",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ""),
        ((1, object()), "[1]"),
        ({"a b": object()}, "['a b']"),
        ({"\ud800": object()}, r"['\ud800']"),
        ({1: object()}, "[int]"),
        ({object(): 1}, "[object]"),
        ({10**5000: object()}, "[int]"),
        (Order(item=[Box(object())]), ".item[0].inside"),
        (Customer.model_construct(name=object()), ".name"),
        (Point(1, object()), ".y"),
    ],
)
def test_the_path_leads_to_the_value(value, path):
    with pytest.raises(SerializationError) as caught:
        encode(value)

    assert caught.value.path == path


def test_an_error_does_not_show_the_value():
    with pytest.raises(SerializationError) as caught:
        encode({"password": ["hunter2", types.SimpleNamespace(word="hunter2")]})

    assert "hunter2" not in str(caught.value)


def test_an_instance_that_lacks_a_field_is_refused_where_it_is_set():
    coin = object.__new__(Coin)

    with pytest.raises(SerializationError, match="its field value has no value"):
        encode(coin)


def test_a_named_tuple_with_more_than_its_fields_is_refused():
    pair = Sub(1, 2)
    assert decode(encode(pair)) == pair
    pair.third = 3

    with pytest.raises(SerializationError, match="beside its fields"):
        encode(pair)


def nested(wrap: Any, levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS = {
    "list": lambda v: [v],
    "dict": lambda v: {"a": v},
    "tuple": lambda v: (v,),
    "tagged dict": lambda v: {"$a": v},
    "dataclass": Coin,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_as_many_levels_as_allowed_are_stored_and_one_more_is_refused(wrap):
    deepest = nested(wrap, MAX_DEPTH)

    assert decode(encode(deepest)) == deepest
    with pytest.raises(SerializationError, match="levels deep"):
        encode(wrap(deepest))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_hundred_thousand_levels_are_an_error_of_ours(wrap):
    value = nested(wrap, 100_000)

    with pytest.raises(SerializationError, match="in pieces"):
        encode(value)

    while not isinstance(value, int):  # level by level, for a deep object is as deep a stack when it is dropped
        value = (
            next(iter(value.values() if isinstance(value, dict) else value))
            if isinstance(value, list | dict | tuple)
            else getattr(value, "name" if isinstance(value, Customer) else "value")
        )


def test_deep_text_is_an_error_of_ours():
    with pytest.raises(SerializationError):
        decode("[" * 100_000)


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop += [loop, loop]

    with pytest.raises(SerializationError, match="holds itself"):
        encode(loop)


@pytest.mark.parametrize("pair", [list, tuple])
def test_few_objects_that_stand_for_very_many_values_are_refused(pair):
    value = nested(lambda inner: pair([inner, inner]), 60)

    with pytest.raises(SerializationError, match="in pieces"):
        Codec(max_bytes=10_000).encode(value, "")


@pytest.mark.parametrize("value", ["a" * 98, list(range(10, 43)), (1,) * 43], ids=["str", "list", "tuple"])
def test_a_value_may_be_as_large_as_the_limit_and_no_larger(value):
    size = len(encode(value))
    enough = Codec(max_bytes=size)

    assert enough.decode(enough.encode(value, ""), "") == value
    with pytest.raises(SerializationError, match=f"{size} bytes"):
        Codec(max_bytes=size - 1).encode(value, "")
