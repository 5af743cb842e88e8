from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode

import numpy as np
import pytest

from liteflow.codec import Codec, Opaque, decode, encode
from liteflow.errors import SerializationError

NAN_WITH_PAYLOAD = np.array([0x7FF8_0000_0000_1234, 0xFFF0_0000_0000_0001], "u8").view("f8")
ARRAYS = {
    "booleans": np.array([True, False]),
    "small integers": np.arange(6, dtype="i1").reshape(2, 3),
    "unsigned, of the other byte order": np.array([2**64 - 1, 0], ">u8"),
    "halves": np.array([0.5, -0.0, np.inf], "f2"),
    "doubles": np.array([-0.0, np.nan, 1e308]),
    "a NaN's payload": NAN_WITH_PAYLOAD,
    "doubles of the other byte order": np.array([1.5, np.nan], ">f8"),
    "long doubles": np.array([1, 3], "g") / 3,
    "complex": np.array([1 + 2j, complex(-0.0, np.nan)], "c8"),
    "complex long doubles": np.array([1 + 2j], "G") / 3,
    "bytes": np.array([b"a\0", b"\0\0c", b"\xff"]),
    "texts": np.array(["ä", "\U0001f600b", ""]),
    "texts of the other byte order": np.array(["ab"], ">U2"),
    "half a surrogate pair": np.array(["\ud800"]),
    "moments": np.array(["2026-11-23T01:02:03.000000004", "NaT"], "M8[ns]"),
    "moments of a strange unit": np.array([1, 2], "M8[25s]"),
    "moments without a unit": np.array(["NaT"], "M8"),
    "durations": np.array([-1, 2**62], ">m8[D]"),
    "the other C type of that size": np.array([1], "q"),
    "the same, of the other byte order": np.array([1], ">Q"),
    "no dimensions": np.array(7.5),
    "empty": np.array([]),
    "empty in one of its dimensions": np.empty((3, 0, 2), "i4"),
    "order of Fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "every second": np.arange(10)[::2],
    "one, stretched": np.broadcast_to(np.int16(3), (2, 2)),
    "read-only": np.frombuffer(b"abcd", "u1"),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_bit_by_bit_writable_and_with_its_own_memory(array):
    back = decode(encode({"a": [array]}))["a"][0]

    assert type(back) is np.ndarray
    assert (back.dtype, back.dtype.char, back.dtype.str) == (array.dtype, array.dtype.char, array.dtype.str)
    assert back.shape == array.shape
    if array.dtype.kind in "fc" and array.dtype.char in "gG":
        assert np.array_equal(back, array)  # whose padding is nobody's
    else:
        assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    assert back.flags.owndata


SCALARS = [
    np.True_,
    np.int8(-5),
    np.uint64(2**64 - 1),
    np.int64(-(2**63)),
    np.longlong(1),
    np.ulonglong(1),
    np.float16(0.1),
    np.float32(0.1),
    np.float64(0.1),
    np.float64(-0.0),
    np.float32(np.nan),
    np.float64(-np.inf),
    NAN_WITH_PAYLOAD[0],
    np.longdouble(1) / 3,
    np.complex64(1 + 2j),
    np.complex128(complex(-0.0, np.nan)),
    np.clongdouble(1j) / 3,
    np.str_("ä\0"),
    np.str_(""),
    np.str_("\ud800"),
    np.bytes_(b"a\0"),
    np.bytes_(b""),
    np.datetime64("2026-11-23T01:02:03.000000004", "ns"),
    np.datetime64("2026-11", "M"),
    np.datetime64("NaT"),
    np.timedelta64(3, "25s"),
    np.timedelta64("NaT", "us"),
]


def bits(scalar: np.generic) -> object:
    return str(scalar) if scalar.dtype.char in "gG" else scalar.tobytes()  # the padding of a long double is nobody's


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: f"{type(scalar).__name__} {scalar!s}".encode("ascii", "replace"))
def test_a_scalar_comes_back_bit_by_bit_and_of_its_type_wherever_it_stands(scalar):
    back, in_tuple, key = decode(encode([scalar, (scalar,), {scalar: 1}]))

    for one in (back, *in_tuple, *key):
        assert type(one) is type(scalar)
        assert one.dtype == scalar.dtype
        assert bits(one) == bits(scalar)


def test_a_number_is_readable_in_the_database_where_it_is_exact():
    tree = json.loads(encode([np.float32(1.5), np.int64(7), np.True_, np.str_("tea"), np.datetime64(5, "s"), np.float32(np.nan)]))

    assert tree[:5] == [
        {"$numpy": "<f4", "value": 1.5},
        {"$numpy": "<i8", "value": 7},
        {"$numpy": "|b1", "value": True},
        {"$numpy": "U", "value": "tea"},
        {"$numpy": "<M8[s]", "value": 5},
    ]
    assert tree[5]["value"].keys() == {"$bytes"}


def test_an_array_is_stored_as_its_dtype_shape_and_bytes():
    tree = json.loads(encode(np.array([[1.5], [2.5]])))

    data = b64encode(np.array([1.5, 2.5]).tobytes()).decode()
    assert tree == {"$ndarray": {"dtype": "<f8", "shape": [2, 1], "data": data}}


def test_numbers_of_both_kinds_stay_apart():
    value = {"a": [1, np.int64(1), 1.0, np.float64(1.0), True, np.True_], 1: {"b": np.int32(2)}, np.int64(2): {np.float64(2.5)}}

    back = decode(encode(value))

    assert [*map(type, back["a"])] == [*map(type, value["a"])]
    assert [*map(type, back)] == [str, int, np.int64]
    assert type(back[1]["b"]) is np.int32
    assert type(*back[2]) is np.float64


def test_what_lies_in_the_padding_of_long_doubles_is_not_stored():
    clean = np.array([1, 2], "g") / 3
    dirty = np.frombuffer(clean.tobytes(), "u1").reshape(2, -1).copy()
    dirty[:, 10:] = 0xAA
    array = dirty.reshape(-1).view("g")

    assert np.array_equal(array, clean)
    assert encode(array) == encode(clean.copy())
    assert encode(array.astype(">g")) == encode(clean.astype(">g"))


class Celsius(np.float64):
    pass


class Grid(np.ndarray):
    pass


@pytest.mark.parametrize(
    "value",
    [
        np.ma.array([1, 2], mask=[0, 1]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(3).view(Grid),
        Celsius(1.5),
        np.array([None]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0],
        np.void(b"abc"),
        np.ndarray(3, "S0"),
        np.dtype("f8"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_more_than_its_bytes_is_refused_with_its_path_and_the_ways_out(value):
    with pytest.raises(SerializationError, match=r"liteflow.register\(.*Flow\(pickle=True\)") as caught:
        encode({"grid": [value]})

    assert caught.value.path == ".grid[0]"


def test_fields_and_objects_are_refused_by_their_dtype():
    with pytest.raises(SerializationError, match="its dtype object is none of"):
        encode(np.array([None]))


HUGE = b64encode(bytes(16)).decode()


def array_text(**changed: object) -> str:
    return json.dumps({"$ndarray": {"dtype": "<f8", "shape": [2], "data": HUGE} | changed})


@pytest.mark.parametrize(
    "text",
    [
        *(array_text(dtype=dtype) for dtype in ("O", "|O", "|O8", "V8", "f8,f8", "<f16", "<f16/7", "|S0", "<U0", "", 8, None)),
        *(array_text(dtype=dtype) for dtype in ("|S999999999999", "<U999999999", "<M8[ns]x", "{'names':['a']}", [], "<f8\n")),
        *(array_text(shape=shape) for shape in ([3], [-2], [-1, -2], [2.0], [True, 2], 2, None, "2", [], [[2]], [2, 2**62])),
        array_text(shape=[2**63]),
        array_text(shape=[0, 2**62, 2**62], data=""),
        array_text(shape=[1] * 65 + [2]),
        array_text(shape=[10**18] * 100_000),
        array_text(dtype="|S900000000", shape=[10**9]),
        array_text(data="not base64!"),
        array_text(data=None),
        array_text(more=1),
        '{"$ndarray":{"dtype":"<f8","shape":[2]}}',
        '{"$ndarray":[]}',
        '{"$numpy":"<f8"}',
        '{"$numpy":"O","value":1}',
        '{"$numpy":"<f8","value":"1.5"}',
        '{"$numpy":"<f8","value":[1.5]}',
        '{"$numpy":"<f8","value":1}',
        '{"$numpy":"<f4","value":0.1}',
        '{"$numpy":"|u1","value":300}',
        '{"$numpy":"|b1","value":1}',
        '{"$numpy":"<i8","value":{"$int":"99999999999999999999"}}',
        '{"$numpy":"<f8","value":{"$bytes":"AAAA"}}',
        '{"$numpy":"U","value":1}',
        '{"$numpy":"S","value":"a"}',
        '{"$numpy":["U"],"value":"a"}',
        '{"$numpy":1,"value":1}',
    ],
)  # fmt: skip
def test_hostile_text_is_an_error_and_never_an_object_array(text):
    with pytest.raises(SerializationError):
        decode(text)

    assert isinstance(decode(text, lenient=True), Opaque)


def test_reading_takes_no_more_memory_than_the_text_accounts_for():
    code = (
        "import resource, sys, numpy; from liteflow.codec import decode\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try: print(decode(sys.argv[1]).nbytes)\n"
        "except TypeError: print('refused')\n"
    )

    def read(text: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    assert read(array_text(shape=[2**40])) == "refused"
    assert read(array_text(shape=[0, 2**40], data="")) in {"0", "refused"}
    assert read(array_text(dtype="|S900000000", shape=[0], data="")) in {"0", "refused"}


def test_one_who_has_not_imported_numpy_is_told_to():
    text = encode({"a": np.arange(3), "b": np.float64(1.5), "c": 1})
    code = (
        "import sys; from liteflow.codec import decode\n"
        "try: decode(sys.argv[1])\n"
        "except TypeError as error: print(error)\n"
        "value = decode(sys.argv[1], lenient=True)\n"
        "print(value['a'].name, value['a'].why, value['b'].name, value['b'].json, value['c'], 'numpy' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines() == [
        "a stored $ndarray cannot be read: import numpy first",
        '$ndarray import numpy first $numpy {"$numpy":"<f8","value":1.5} 1 False',
    ]


def test_an_array_that_is_too_large_is_refused_before_its_bytes_are_copied():
    endless = np.broadcast_to(np.int64(1), (10**15,))

    with pytest.raises(SerializationError, match="more than 67108864 bytes") as caught:
        encode({"a": [endless]})

    assert caught.value.path == ".a[0]"


def test_one_array_many_times_over_counts_as_often_as_it_is_stored():
    array = np.zeros(1000, "u1")

    with pytest.raises(SerializationError, match="in pieces"):
        Codec(max_bytes=100_000).encode([array] * 101, "")


def test_an_array_may_be_as_large_as_the_limit_and_no_larger():
    array = np.arange(100, dtype="u1")
    size = len(encode(array))

    assert Codec(max_bytes=size).encode(array, "") == encode(array)
    with pytest.raises(SerializationError, match=f"{size} bytes"):
        Codec(max_bytes=size - 1).encode(array, "")


def test_arrays_are_equal_if_dtype_shape_and_bits_are():
    codec, array = Codec(), np.array([1.0, np.nan])

    def equal(one: object, other: object) -> bool:
        return codec.equal(encode(one), encode(other), "")

    assert equal({"a": array, "b": 1}, {"b": 1.0, "a": array.copy()})
    assert equal({1: [array], 2: (array,)}, {2: (array,), 1: [array]})
    assert not equal([np.array([1])], [np.array([[1]])])
    assert not equal([np.array([1, 2])], [np.array([1, 3])])
    assert not equal(np.array([1]), np.array([1], "i4"))
    assert not equal(np.array([5]), 5)
    assert not equal(np.array([]), np.array([0]))
