from __future__ import annotations

import copy
import json
import math
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import PosixPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given

from liteflow.codec import check_key, decode, encode
from liteflow.errors import InvalidKeyError, SerializationError
from tests.values import (
    ENUMS,
    JSON_LIKE,
    VALUES,
    Color,
    Customer,
    IntRight,
    Level,
    Number,
    Order,
    Seal,
    Sum,
    Table,
    Text,
    Word,
    is_plain_json,
    same,
)


@given(VALUES)
@example(-0.0)
@example([True, 1, 1.0])
@example("\ud83d\ude00")
@example(PosixPath("\udcff"))
@example({"$tuple": [1]})
@example({"a": {"$record": "os:environ", "value": {}}})
@example([{"$": 1}, {" $": 1}, '{"$tuple":[1]}'])
def test_a_value_comes_back_equal_and_of_the_same_type(value):
    text = encode(value)

    assert same(decode(text), value)
    assert text.encode()  # any database takes it


@given(JSON_LIKE)
@example([1] * 20)
@example([1.5] * 20 + [math.nan])
@example([1] * 20 + [2**63])
@example([1] * 20 + [-(2**63) - 1])
@example([1.5] * 20 + [math.inf, -math.inf])
@example([Table(a=1)])
@example({"a": OrderedDict()})
@example([Number(1)])
@example([Level.LOW])
@example(Text("a"))
@example({Text("a"): 1})
@example({1: 1})
@example({"$a": 1, "b": 2})
@example([1] * 20 + [True])
@example([1e308] * 40)
@example({"a": Word.YES})
@example({Word.YES: 1})
def test_exactly_what_is_plain_json_is_written_as_plain_json(value):
    is_plain = is_plain_json(value)

    try:
        text = encode(value)
    except SerializationError:
        assert not is_plain
        return

    assert is_plain == ('{"$' not in text)
    if is_plain:
        assert same(json.loads(text), value)


@given(VALUES)
def test_the_same_value_gives_the_same_text(value):
    assert encode(decode(encode(value))) == encode(value)


def test_sets_are_written_in_one_order():
    one, other = {0, 8}, {8, 0}  # the same place in the table, so the order is that of the insertion

    assert list(one) != list(other)
    assert encode(one) == encode(other)


def test_each_decode_gives_a_fresh_value():
    text = encode({"a": [1], "b": {2}})

    decode(text)["a"].append(2)

    assert decode(text) == {"a": [1], "b": {2}}


@pytest.mark.parametrize("digits", [1, 616, 617, 640, 4300, 4301, 20_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_of_any_length_comes_back(digits, sign):
    number = sign * (10**digits - 1)

    assert decode(encode({"n": number})) == {"n": number}


@pytest.mark.parametrize("member", ENUMS)
def test_an_enum_member_comes_back_as_itself(member):
    assert decode(encode(member)) is member or (decode(encode(member)) == member and type(member) is IntRight)


def test_an_hour_that_comes_twice_keeps_its_fold():
    late = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))

    back = decode(encode(late))

    assert (back, back.fold, back.utcoffset(), back.tzinfo) == (late, 1, timedelta(hours=1), late.tzinfo)


def test_what_a_dataclass_sets_beside_its_fields_comes_back():
    back = decode(encode(Sum([1, 2])))

    assert (back, back.total) == (Sum([1, 2]), 3)


def test_a_pydantic_model_comes_back_with_all_its_state():
    customer = Customer(name="Ann", nickname="A")
    customer._secret = 8

    back = decode(encode([customer]))[0]

    assert back == customer
    assert (type(back), back.model_fields_set, back._secret, back.model_extra) == (
        Customer,
        {"name", "nickname"},
        8,
        {"nickname": "A"},
    )


def test_a_model_that_skipped_validation_comes_back_as_it_is():
    customer = Customer.model_construct(name=(1, 2))

    assert decode(encode(customer)) == customer


def test_a_cached_hash_is_not_carried_into_another_process():
    seal = Seal("wax")
    hash(seal)

    text = encode(seal)

    assert str(hash(seal)) not in text
    assert decode(text) == seal
    assert hash(decode(text)) == hash(seal)


def test_values_are_readable_in_the_database():
    value = {"order": Order("tea", Decimal("3.50")), "when": datetime(2026, 11, 23, tzinfo=UTC), "color": Color.RED}

    tree = json.loads(encode(value))

    assert tree["order"]["value"] == {"item": "tea", "total": {"$decimal": "3.50"}, "tags": []}
    assert tree["when"] == {"$datetime": "2026-11-23T00:00:00+00:00"}
    assert tree["color"]["value"] == "RED"


@given(VALUES)
def test_encoding_changes_nothing_in_the_value(value):
    before = copy.deepcopy(value)

    encode(value)

    assert same(value, before)


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "a b", "ä" * 256, "x" * 512, "load#2", " "])
def test_a_key_that_every_database_can_hold_is_taken(key):
    assert check_key(key) == key


def test_a_key_of_a_subclass_is_taken_as_its_characters():
    assert type(check_key(Word.YES)) is str
    assert check_key(Word.YES) == "yes"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (1, "type int"),
        (None, "NoneType"),
        (b"a", "bytes"),
        ("", "empty"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ("x" * 513, "513 bytes"),
        ("ä" * 257, "514 bytes"),
    ],
)
def test_a_key_that_some_database_cannot_hold_is_refused_with_the_cure(key, why):
    with pytest.raises(InvalidKeyError, match=why) as caught:
        check_key(key, "Task id")

    assert str(caught.value).startswith("Task id ")
    assert "use " in str(caught.value) or "leave" in str(caught.value)
    assert caught.value.kind == "Task id"
