"""Values for the tests of the codec: classes of every kind, strategies, and what equal means."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import pydantic
from hypothesis import strategies as st

from liteflow.codec import encode


@dataclasses.dataclass
class Order:
    item: Any
    total: Any = 0
    tags: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Coin:
    value: Any


@dataclasses.dataclass
class Sum:
    parts: list[int]

    def __post_init__(self) -> None:
        self.total = sum(self.parts)


@dataclasses.dataclass
class Shelf(list):
    label: str = ""


@attrs.define
class Box:
    inside: Any


@attrs.frozen(cache_hash=True)
class Seal:
    text: str


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    name: str
    visits: int = 0
    _secret: int = pydantic.PrivateAttr(default=7)


class Point(NamedTuple):
    x: Any
    y: Any = 0


Pair = collections.namedtuple("Pair", ["first", "second"])  # noqa: PYI024 - the untyped kind, too


class Sub(Pair):
    pass


class Color(enum.Enum):
    RED = 1
    GREEN = (1, 2)
    CRIMSON = 1  # noqa: PIE796 - an alias, which comes back as what it stands for


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class IntRight(enum.IntFlag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Table(dict):
    pass


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return type(other) is Money and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


class NowhereZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types all the way down; NaN is itself, -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float | Decimal | datetime | time):
        parts = (repr(one), getattr(one, "fold", 0), getattr(one, "tzinfo", None))
        return parts == (repr(other), getattr(other, "fold", 0), getattr(other, "tzinfo", None))
    if isinstance(one, set | frozenset):
        one, other = sorted(one, key=encode), sorted(other, key=encode)
    if isinstance(one, Order | Coin | Box):
        one, other = ([getattr(item, name) for name in type(one).__match_args__] for item in (one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same([*one, *one.values()], [*other, *other.values()])
    return bool(one == other)


def is_plain_json(value: Any) -> bool:
    """The oracle: a plain walk, as slow as it is simple."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is str:
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if type(value) is list:
        return all(map(is_plain_json, value))
    if type(value) is dict:
        has_string_keys = all(type(key) is str for key in value)
        looks_like_a_tag = has_string_keys and next(iter(value), "").startswith("$")
        return has_string_keys and not looks_like_a_tag and all(map(is_plain_json, [*value, *value.values()]))
    return value is None or type(value) is bool


TEXT = st.text(alphabet=st.characters(codec=None) | st.sampled_from('\0"\\${\ud800\udc00\U0001f600'))
ZONES = st.none() | st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=7, seconds=1)), ZoneInfo("Europe/Berlin")])
ENUMS = [
    Color.RED,
    Color.GREEN,
    Color.CRIMSON,
    Level.LOW,
    Word.YES,
    Right.READ,
    Right.READ | Right.WRITE,
    Right(0),
    IntRight(3),
    IntRight(8),
]
PATHS = st.sampled_from([PosixPath, PurePosixPath, PureWindowsPath])
HASHABLE_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**63) - 2, -(2**63) + 2)
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.floats()
    | TEXT
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=ZONES)
    | st.times(timezones=ZONES)
    | st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(timezones=ZONES) | st.times(), st.integers(0, 1))
    | st.timedeltas()
    | st.decimals().filter(lambda number: not number.is_snan())  # which has no hash
    | st.uuids()
    | st.builds(lambda kind, text: kind(text), PATHS, TEXT.filter(lambda text: "\0" not in text))
    | st.sampled_from(ENUMS)
)  # fmt: skip
HASHABLE = st.recursive(
    HASHABLE_LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(inner, max_size=4)
        | st.builds(Coin, inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=6,
)
TAGS = st.sampled_from(["$tuple", "$dict", "$record", "$", "$$", "value", "a"])
VALUES = st.recursive(
    HASHABLE | st.binary().map(bytearray) | st.sets(HASHABLE, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(TEXT | TAGS, inner, max_size=5)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.builds(Order, inner, inner, st.lists(inner, max_size=2))
        | st.builds(Box, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)
JSON_LIKE = st.recursive(
    HASHABLE_LEAVES | st.sampled_from([Text("a"), Number(1), Table(a=1)]),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(TEXT | TAGS, inner, max_size=20)
        | st.lists(st.integers() | st.floats(), min_size=15)
    ),
    max_leaves=20,
)


def stored(cls: type, kind: str, value: Any) -> str:
    return json.dumps({f"${kind}": f"{cls.__module__}:{cls.__qualname__}", "value": value})
