from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from liteflow.codec import MAX_DEPTH, PLAIN, Codec, Opaque
from liteflow.errors import SerializationError
from tests.test_codec_sealing import Cipher
from tests.values import HASHABLE_LEAVES, TAGS, TEXT, Box, Coin, Order, Pair, Point, same

PICKLING = Codec(key=b"k" * 32)
SEALING = Codec(key=b"k" * 32, transform=Cipher())
DTYPES = ["?", "i1", ">i4", "u8", "q", "f2", "f4", ">f8", "c8", "c16", "S3", "U2", ">U1", "M8[ns]", "M8[25s]", "m8[D]"]
SHAPES = [(), (0,), (1,), (2,), (2, 3), (3, 0, 1)]


def array_of(dtype: str, shape: tuple[int, ...], seed: bytes) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if dtype.endswith(("U1", "U2")):
        return np.full(shape, seed.decode("latin-1").replace("\0", ""), dtype)
    raw = (seed * (size // len(seed) + 1))[:size]
    return np.ndarray(shape, dtype, bytes(byte & 1 for byte in raw) if dtype == "?" else raw)


ARRAYS = st.builds(array_of, st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.binary(min_size=1, max_size=24))
SCALARS = ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0])
LONG = st.integers(4_998, 5_001).map(lambda digits: 10**digits - 1)
LEAVES = HASHABLE_LEAVES | SCALARS | LONG
TAG_KEYS = TAGS | st.sampled_from(["$ndarray", "$numpy", "$pickle", "$sealed"])
VALUES = st.recursive(
    LEAVES | ARRAYS | st.sets(LEAVES, max_size=3) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT | TAG_KEYS, inner, max_size=3)
        | st.dictionaries(LEAVES, inner, max_size=3)
        | st.builds(Order, inner, inner)
        | st.builds(Box, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=4,
)


def comparable(value: Any) -> Any:
    """The same, with what NumPy compares in its own way replaced by what Python compares."""
    if isinstance(value, np.ndarray | np.generic):
        return ("numpy", type(value), value.dtype.str, value.dtype.char, value.shape, value.tobytes())
    if type(value) is complex:
        return ("complex", repr(value))
    kind, parts = type(value), value
    if kind in {Order, Box, Coin}:
        parts = [getattr(value, name) for name in kind.__match_args__]
    elif kind in {set, frozenset}:
        return (kind, sorted(PICKLING.encode(item, "") for item in value))
    elif kind is dict:
        parts = [*value, *value.values()]
    elif kind not in {list, tuple, Pair, Point}:
        return value
    return (kind, [*map(comparable, parts)])


def nested(levels: int, wraps: list[str], value: Any) -> Any:
    for level in range(levels):
        wrap = wraps[level % len(wraps)]
        value = [value] if wrap == "list" else (value,) if wrap == "tuple" else {wrap: value}
    return value


@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(VALUES, st.sampled_from([PICKLING, SEALING]), TEXT)
@example(-0.0, SEALING, "")
@example({"$sealed": "x"}, SEALING, "")
@example({"$pickle": ["x", "y"]}, PICKLING, "a")
@example([{"$ndarray": {"dtype": "O"}}, {"$numpy": "<f8", "value": 1.5}], PICKLING, "a")
@example({np.float64("nan"): 1, float("nan"): {10**5000: "\ud800"}}, PICKLING, "\ud800")
def test_any_value_comes_back_equal_and_of_the_same_type(value, codec, place):
    text = codec.encode(value, place)

    assert text.encode()  # any database takes it
    assert json.loads(text) is not Ellipsis  # any SQL reads it
    assert same(comparable(codec.decode(text, place)), comparable(value))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["list", "tuple", "a", "$a", "$pickle"]), min_size=1, max_size=5), st.integers(0, 100_000))
@example(["list"], 100_000)
@example(["tuple", "a"], 100_000)
@example(["$a"], 100_000)
@example(["list", "tuple", "a"], MAX_DEPTH)
@example(["list", "tuple", "a"], MAX_DEPTH + 1)
def test_a_value_of_any_depth_comes_back_or_is_an_error_of_ours(wraps, levels):
    value = nested(levels, wraps, 1)

    try:
        text = PICKLING.encode(value, "")
    except SerializationError as error:
        assert levels > MAX_DEPTH / 2  # a dict of pairs takes more levels than one
        assert "in pieces" in str(error)  # noqa: PT017 - both ends are right, each for its depth
    else:
        assert levels <= MAX_DEPTH
        assert PICKLING.decode(text, "") == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.sampled_from(DTYPES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TAG_KEYS | st.sampled_from(["dtype", "shape", "data", "$set", "$datetime", "$int"]), inner, max_size=3)
        | st.builds(lambda tag, inside: {tag: inside}, TAG_KEYS, inner)
        | st.builds(lambda head, inside: {"$numpy": head, "value": inside}, st.sampled_from(DTYPES), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=1_000, deadline=None)
@given(JSON | st.text())
def test_any_text_is_a_value_or_an_error_of_ours(tree):
    text = tree if isinstance(tree, str) else json.dumps(tree)

    try:
        SEALING.decode(text, "")
    except SerializationError:
        assert Opaque.__name__ in repr_of_types(SEALING.decode(text, "", lenient=True))


def repr_of_types(value: Any) -> str:
    """The names of all types in a value, as far as containers go."""
    inside = (
        [*value, *value.values()] if type(value) is dict else value if isinstance(value, list | tuple | set | frozenset) else []
    )
    return " ".join([type(value).__name__, *map(repr_of_types, inside)])


def test_plain_has_neither_pickle_nor_hook():
    assert PLAIN.seal("1") == "1"
    assert PLAIN.pickled(1, "") is None
