"""NumPy's arrays and scalars, bit by bit, for those who use it: it is never imported here.

A scalar is a number that SQL can read, ``{"$numpy": "<f4", "value": 1.5}``, or its bytes where a number would lose some of it.
Stored text may be hostile: no dtype but those listed here is ever made of it, and none but as large as the data beside it.
"""
# ruff: noqa: ANN401 - there is no numpy to name types of

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from math import isfinite, prod
from typing import Any

_MAX_DIMENSIONS = 64  # of an array, for NumPy 2; fewer for NumPy 1, which says so itself
_DTYPE = re.compile(
    r"[<>|](?:b1|[iu][1248]|f[248]|c8|c16"
    r"|(?:f12|f16|c24|c32)/\d{1,3}"  # a long double: its bytes depend on the processor, so bits of its mantissa are told
    r"|[iu][48]/[a-zA-Z]"  # of two C types of one size, the one that NumPy would not take by itself
    r"|[SU][1-9]\d{0,8}"
    r"|[Mm]8(?:\[\d{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_LONG = frozenset("gG")
_PADDED = 63  # bits of the mantissa of a long double that fills 10 bytes of its 12 or 16; whatever was there fills the others


def is_array(value: object) -> bool:
    """Return whether *value* is an array of NumPy itself: of a subclass, more than the bytes would have to be stored."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def take_apart(cls: type, value: Any) -> tuple[str, str | None, object] | None:
    """Return tag, dtype and content of what is NumPy's own; None for anything else.

    Raises:
        ValueError: it holds what is not stored as bytes: objects, fields.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if cls is numpy.ndarray:
        text = _text_of(numpy, value.dtype)
        return "$ndarray", None, {"dtype": text, "shape": list(value.shape), "data": b64encode(_bits(numpy, value)).decode()}
    if issubclass(cls, numpy.generic) and value.dtype.type is cls:
        return "$numpy", *_take_scalar(numpy, value)
    return None


def build_array(payload: dict[str, Any]) -> object:
    """Return the array that `take_apart` took apart: writable, with its own memory."""
    numpy = _imported()
    dtype, shape, data = _dtype_of(numpy, payload["dtype"]), payload["shape"], b64decode(payload["data"], validate=True)
    if len(payload) > len(("dtype", "shape", "data")) or type(shape) is not list or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("it is no array of LiteFlow's")
    if not all(type(length) is int and length >= 0 for length in shape) or prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"its shape and dtype do not fit its {len(data)} bytes of data")
    return numpy.ndarray(shape, dtype, data).copy()


def build_scalar(text: Any, payload: Any) -> object:
    """Return the scalar that `take_apart` took apart."""
    numpy, kind = _imported(), type(payload)
    if (text, kind) in {("S", bytes), ("U", str)}:
        return numpy.bytes_(payload) if text == "S" else numpy.str_(payload)
    dtype = _dtype_of(numpy, text)
    if kind is bytes and len(payload) == dtype.itemsize:
        return numpy.frombuffer(payload, dtype)[0]
    if kind in {bool, int, float}:
        scalar = numpy.array(payload, "i8").view(dtype)[()] if dtype.kind in "Mm" else numpy.array(payload, dtype)[()]
        again = _take_scalar(numpy, scalar)[1]
        if type(again) is kind and again == payload:
            return scalar
    raise ValueError("its value does not fit its dtype")


def alike(one: Any, other: Any) -> bool:
    """Return whether two values are equal, also where they hold arrays, which NumPy compares item by item."""
    kind = type(one)
    if kind is dict and type(other) is dict:
        return one.keys() == other.keys() and all(alike(item, other[key]) for key, item in one.items())
    if kind in {list, tuple} and type(other) is kind:
        return len(one) == len(other) and all(map(alike, one, other))
    if is_array(one) and is_array(other):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if is_array(one) or is_array(other):
        return False
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - arrays in a user's class, say: not known to be equal
        return False


def _imported() -> Any:
    if (numpy := sys.modules.get("numpy")) is None:
        raise LookupError("import numpy first")
    return numpy


def _text_of(numpy: Any, dtype: Any) -> str:
    text: str = dtype.str
    if dtype.char in _LONG:
        text = f"{text}/{numpy.finfo(dtype).nmant}"
    elif dtype.kind in "iu" and numpy.dtype(text).char != dtype.char:
        text = f"{text}/{dtype.char}"
    if not _DTYPE.fullmatch(text) or _dtype_of(numpy, text) != dtype:
        raise ValueError(f"its dtype {str(dtype)[:80]} is none of numbers, truth values, texts, bytes or times")
    return text


def _dtype_of(numpy: Any, text: str) -> Any:
    if not _DTYPE.fullmatch(text):
        raise ValueError(f"{text[:80]} is no dtype that LiteFlow stores")
    base, _, more = text.partition("/")
    dtype = numpy.dtype(base)
    if more.isdigit() and int(more) != numpy.finfo(dtype).nmant:
        raise ValueError(f"a number of dtype {base} means something else on this processor")
    if more.isalpha() and (alias := numpy.dtype(base[0] + more)).str == base:
        return alias
    return dtype


def _bits(numpy: Any, value: Any) -> bytes:
    """Return the bytes of an array or scalar; what is in the padding of long doubles is nobody's value, perhaps a secret."""
    raw: bytes = value.tobytes()
    if value.dtype.char not in _LONG or numpy.finfo(value.dtype).nmant != _PADDED:
        return raw
    size, is_little = numpy.dtype("g").itemsize, value.dtype.str[0] == "<"
    parts = numpy.frombuffer(raw, "u1").reshape(-1, size).copy()
    parts[:, slice(10, None) if is_little else slice(0, size - 10)] = 0
    return parts.tobytes()  # type: ignore[no-any-return] # NumPy's own method


def _take_scalar(numpy: Any, value: Any) -> tuple[str, object]:
    kind = value.dtype.kind
    if kind == "U":
        return kind, str.__str__(value)  # as its item() would be, but for a NUL at the end
    if kind == "S":
        return kind, bytes.__bytes__(value)
    text = _text_of(numpy, value.dtype)
    if kind in "Mm":
        return text, int(value.view("i8"))
    if kind in "biu" or (kind == "f" and value.dtype.char not in _LONG and isfinite(value)):
        return text, value.item()
    return text, _bits(numpy, value)
