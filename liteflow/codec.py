"""Values <-> JSON text, exactly: what comes back is equal to what was stored, and of the same type (rule R11).

What JSON holds exactly is stored plainly. Anything else becomes an object with a ``$type``: ``{"$type": "tuple", "value": [1, 2]}``. The
set of tags is closed, and a tag that names a class resolves only to one that this process has already imported, so that reading a
database never imports, and never runs code of the database's choosing.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import math
import operator
import pathlib
import sys
import uuid
import zoneinfo
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from liteflow.errors import InvalidKeyError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH = 200
MAX_CHARACTERS = 64 << 20
MAX_KEY_BYTES = 512
TAG = "$type"
_PLAIN = frozenset({str, int, bool, type(None)})
_to_json, _from_json = msgspec.json.Encoder(), msgspec.json.Decoder()


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A stored value of a class that this process lacks, as a lenient reader gets it.

    Attributes:
        json: what is stored.
        needs: what to import, or to register, to have the value itself.
    """

    json: Any
    needs: str


class _Codec(NamedTuple):
    """How values of one kind become JSON and come back."""

    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


_registered: dict[type, tuple[str, Callable[[Any], Any]]] = {}
_by_name: dict[str, Callable[[Any], Any]] = {}


def register(cls: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], name: str | None = None) -> None:
    """Have values of a class stored.

    Args:
        cls: the class; values of exactly this class.
        encode: makes a value of it into one that can be stored.
        decode: makes that into a value of the class again.
        name: what it is stored as; by default the class's importable name.
    """
    stored = name or class_name(cls)
    _registered[cls] = (stored, encode)
    _by_name[stored] = decode


def encode(value: object) -> str:
    """Return the text of a value; equal text for the same value.

    Raises:
        SerializationError: it cannot be stored; says where inside the value, and the ways out.
    """
    try:
        packed = _pack(value, "", 0)
        text = _to_json.encode(packed).decode()
    except RecursionError:
        raise SerializationError(f"a value is nested too deeply; {MAX_DEPTH} levels can be stored") from None
    if len(text) > MAX_CHARACTERS:
        raise SerializationError(
            f"a value of {len(text)} characters is too large; {MAX_CHARACTERS} can be stored: keep it in a file, and store its path"
        )
    return text


def decode(text: str, *, lenient: bool = False) -> Any:  # noqa: ANN401 - any value
    """Return a fresh copy of the value that *text* stands for.

    Args:
        text: what `encode` gave.
        lenient: show a value of a class that this process lacks as an `Opaque`.

    Raises:
        SerializationError: the text is no such text, or names a class that this process has not imported.
    """
    try:
        value = _from_json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SerializationError(
            f"the stored text cannot be read ({error}); it was not written by LiteFlow, or is damaged"
        ) from None
    return _unpack(value, lenient=lenient) if f'"{TAG}"' in text else value


def check_key(key: object, kind: str = "Context key") -> str:
    """Return *key* if it can name something in the store.

    Raises:
        InvalidKeyError: it is no string, is empty, too long, or holds what no database keeps.
    """
    if not isinstance(key, str):
        raise InvalidKeyError(kind, key, f"is a {type(key).__name__}; use a string")
    if not key:
        raise InvalidKeyError(kind, key, "is empty; use at least one character")
    if "\0" in key:
        raise InvalidKeyError(kind, key, "holds a NUL character; leave it out")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(kind, key, "holds half of a surrogate pair; use text that can be encoded as UTF-8") from None
    if size > MAX_KEY_BYTES:
        raise InvalidKeyError(kind, key, f"has {size} bytes; use at most {MAX_KEY_BYTES}")
    return str(key)


# -- packing ---------------------------------------------------------------------------------------------------------


def _pack(value: Any, path: str, depth: int) -> Any:  # noqa: ANN401 - any value
    """Return what of JSON stands for *value*: itself where it is plain JSON."""
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return _pack_scalar(kind, value)
    if kind in _PLAIN:
        return value
    if depth >= MAX_DEPTH:
        raise SerializationError(f"a value is nested too deeply; {MAX_DEPTH} levels can be stored", path=path[:80])
    if kind is dict:
        return _pack_dict(value, path, depth)
    if kind is list:
        return _pack_items(value, path, depth)
    return _pack_tagged(kind, value, path, depth)


def _pack_scalar(kind: type, value: Any) -> Any:  # noqa: ANN401 - a str, int or float
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "value": str(value)}
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {TAG: "int", "value": hex(value)}
    return value if value.isascii() or _is_text(value) else {TAG: "str", "value": value.encode("utf-8", "surrogatepass").hex()}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pack_items(items: Iterable[Any], path: str, depth: int) -> list[Any]:
    return [
        item if type(item) is bool or item is None else _pack(item, f"{path}[{index}]", depth + 1)
        for index, item in enumerate(items)
    ]


def _pack_dict(value: dict[Any, Any], path: str, depth: int) -> Any:  # noqa: ANN401 - plain, or tagged
    if TAG in value or not all(type(key) is str and (key.isascii() or _is_text(key)) for key in value):
        pairs = [
            [_pack(key, f"{path}.keys()", depth + 1), _pack(item, f"{path}[{key!r:.40}]", depth + 1)]
            for key, item in value.items()
        ]
        return {TAG: "dict", "value": pairs}
    return {key: _pack(item, f"{path}.{key}", depth + 1) for key, item in value.items()}


def _pack_tagged(kind: type, value: Any, path: str, depth: int) -> Any:  # noqa: ANN401 - any value
    if kind in _registered:
        name, make = _registered[kind]
        return {TAG: "registered", "class": name, "value": _pack(make(value), path, depth + 1)}
    codec = _STANDARD.get(kind.__name__) if kind in _STANDARD_TYPES else None
    if codec is not None:
        return {TAG: kind.__name__, "value": _pack(codec.pack(value), path, depth + 1)}
    for name, (applies, pack, _) in _KINDS.items():
        if applies(kind):
            return {TAG: name, "class": class_name(kind), "value": _pack(pack(value), path, depth + 1)}
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, (numpy.ndarray, numpy.generic)):
        return _pack_numpy(kind, value, path)
    shown = f"{kind.__module__}.{kind.__qualname__}"
    raise SerializationError(
        f"a value of type {shown} cannot be stored; say how with liteflow.register({kind.__name__}, encode, decode), "
        "or store what it is made of",
        path=path, type_name=shown,
    )  # fmt: skip


def _pack_numpy(kind: type, value: Any, path: str) -> Any:  # noqa: ANN401 - NumPy's array or scalar
    if value.dtype.hasobject or value.dtype.fields or kind.__module__ != "numpy":
        shown = f"{kind.__module__}.{kind.__qualname__} of {value.dtype}"
        raise SerializationError(f"a value of type {shown} cannot be stored; store value.tolist()", path=path, type_name=shown)
    data = base64.b64encode(value.tobytes()).decode()
    shape = list(value.shape) if kind.__name__ == "ndarray" else None
    return {TAG: "numpy", "dtype": value.dtype.str, "shape": shape, "value": data}


def _sorted(items: Iterable[Any]) -> list[Any]:
    """Return the items of a set in an order that does not depend on the process."""
    return sorted(items, key=encode)


def _pack_datetime(value: dt.datetime) -> list[Any]:
    zone = value.tzinfo
    if zone is None or type(zone) is dt.timezone:
        return [value.isoformat(), None, value.fold]
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    raise SerializationError(
        f"a time with a {type(zone).__name__} cannot be stored; use a zoneinfo.ZoneInfo or a datetime.timezone"
    )


def _unpack_datetime(packed: list[Any]) -> dt.datetime:
    value = dt.datetime.fromisoformat(packed[0]).replace(fold=packed[2])
    return value.replace(tzinfo=zoneinfo.ZoneInfo(packed[1])) if packed[1] else value


_STANDARD_TYPES: frozenset[type] = frozenset({
    tuple, set, frozenset, bytes, bytearray, complex, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, uuid.UUID,
    pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath, pathlib.WindowsPath,
})  # fmt: skip
_STANDARD: dict[str, _Codec] = {
    "tuple": _Codec(list, tuple),
    "set": _Codec(_sorted, set),
    "frozenset": _Codec(_sorted, frozenset),
    "bytes": _Codec(lambda v: base64.b64encode(v).decode(), base64.b64decode),
    "bytearray": _Codec(lambda v: base64.b64encode(v).decode(), lambda v: bytearray(base64.b64decode(v))),
    "complex": _Codec(lambda v: [v.real, v.imag], lambda v: complex(*v)),
    "datetime": _Codec(_pack_datetime, _unpack_datetime),
    "date": _Codec(dt.date.isoformat, dt.date.fromisoformat),
    "time": _Codec(lambda v: [v.isoformat(), v.fold], lambda v: dt.time.fromisoformat(v[0]).replace(fold=v[1])),
    "timedelta": _Codec(lambda v: [v.days, v.seconds, v.microseconds], lambda v: dt.timedelta(*v)),
    "Decimal": _Codec(str, Decimal),
    "UUID": _Codec(str, uuid.UUID),
    "PurePosixPath": _Codec(str, pathlib.PurePosixPath),
    "PosixPath": _Codec(str, pathlib.Path),
    "PureWindowsPath": _Codec(str, pathlib.PureWindowsPath),
    "WindowsPath": _Codec(str, pathlib.Path),
    "float": _Codec(float, float),
    "int": _Codec(int, lambda v: int(v, 16)),
    "str": _Codec(str, lambda v: bytes.fromhex(v).decode("utf-8", "surrogatepass")),
    "dict": _Codec(dict, lambda v: {key: item for key, item in v}),  # noqa: C416 - refuses what is no pair
}


# -- kinds of classes ------------------------------------------------------------------------------------------------


def _restore(cls: type, fields: dict[str, Any]) -> Any:  # noqa: ANN401 - an instance of cls
    """Return an instance with these attributes; no code of the class runs."""
    made = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _fields(names: Callable[[Any], Iterable[str]]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: getattr(value, name) for name in names(value) if hasattr(value, name)}


def _restore_model(cls: Any, packed: list[Any]) -> Any:  # noqa: ANN401 - a pydantic model
    return cls.model_construct(_fields_set=set(packed[1]), **packed[0])


#: name of a tag -> whether a class is of that kind; how its values are packed; how they are made again
_KINDS: dict[str, tuple[Callable[[type], bool], Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "enum": (lambda cls: issubclass(cls, Enum), operator.attrgetter("_name_"), lambda cls, name: cls[name]),
    "namedtuple": (
        lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), list, lambda cls, items: tuple.__new__(cls, items),
    ),
    "dataclass": (
        lambda cls: dataclasses.is_dataclass(cls) and "__dataclass_fields__" in vars(cls),
        _fields(lambda value: [field.name for field in dataclasses.fields(value)]), _restore,
    ),
    "attrs": (
        lambda cls: "__attrs_attrs__" in vars(cls),
        _fields(lambda value: [field.name for field in value.__attrs_attrs__]), _restore,
    ),
    "pydantic": (
        lambda cls: hasattr(cls, "__pydantic_fields__") and hasattr(cls, "model_construct"),
        lambda value: [{**value.__dict__, **(value.__pydantic_extra__ or {})}, sorted(value.model_fields_set)], _restore_model,
    ),
}  # fmt: skip


def _main_name() -> str:
    """Return the name under which another process would import the script that runs."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return pathlib.Path(file).stem if file else "__main__"


def class_name(cls: type) -> str:
    """Return the name by which a class is stored, as in ``package.module:Class``; a script's is the script's importable name."""
    module = _main_name() if cls.__module__ == "__main__" else cls.__module__
    return f"{module}:{cls.__qualname__}"


def _find_class(name: str, is_kind: Callable[[type], bool]) -> type | None:
    """Return the class of this name, if this process has imported it and it is of this kind."""
    module, _, qualname = name.partition(":")
    places = [sys.modules.get(module), sys.modules.get("__main__") if module == _main_name() else None]
    for place in places:
        found: Any = place
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and is_kind(found) and class_name(found) == name:
            return found
    return None


# -- unpacking -------------------------------------------------------------------------------------------------------


def _unpack(value: Any, *, lenient: bool) -> Any:  # noqa: ANN401 - any value
    if isinstance(value, list):
        return [_unpack(item, lenient=lenient) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: _unpack(item, lenient=lenient) for key, item in value.items()}
    tag = value[TAG]
    try:
        if tag == "numpy":
            return _unpack_numpy(value)
        inner = _unpack(value["value"], lenient=lenient)
        if tag in _STANDARD:
            return _STANDARD[tag].unpack(inner)
        if tag == "registered" and value["class"] in _by_name:
            return _by_name[value["class"]](inner)
        if tag in _KINDS and (cls := _find_class(value["class"], _KINDS[tag][0])) is not None:
            return _KINDS[tag][2](cls, inner)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(f"a stored {tag} cannot be read: {type(error).__name__}: {error}", type_name=str(tag)) from error
    return _lacking(value, lenient=lenient)


def _unpack_numpy(value: dict[str, Any]) -> Any:  # noqa: ANN401 - NumPy's array or scalar
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise SerializationError("a stored NumPy value cannot be read here; import numpy first", type_name="numpy")
    flat = numpy.frombuffer(base64.b64decode(value["value"]), dtype=numpy.dtype(value["dtype"]))
    return flat[0] if value["shape"] is None else flat.reshape(value["shape"]).copy()


def _lacking(value: dict[str, Any], *, lenient: bool) -> Opaque:
    name = value.get("class")
    if value[TAG] == "registered":
        needs = f"call liteflow.register for {name} first"
    elif value[TAG] in _KINDS:
        needs = f"import {str(name).partition(':')[0]} first, which has {str(name).partition(':')[2]}"
    else:
        needs = "it was written by a newer LiteFlow, or by something else"
    if lenient:
        return Opaque(value, needs)
    raise SerializationError(f"a stored value of kind {value[TAG]} cannot be read here; {needs}", type_name=name)
