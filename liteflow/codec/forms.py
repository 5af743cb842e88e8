"""What values are taken apart into: standard types, the user's classes, and what the user has registered.

A class is found again by its name, among what is imported already, and only if it is still of the kind that its tag says.
"""
# ruff: noqa: ANN401 - values of any type pass through here

from __future__ import annotations

import dataclasses
from base64 import b64decode, b64encode
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from liteflow.codec import arrays
from liteflow.codec.names import find, label, name_of
from liteflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
SAFE = frozenset({str, bool, NoneType})
PLAIN_TYPES = SAFE | {int, float, list, dict}
_HUGE = 10**600  # Python may refuse decimal text from 640 digits on (sys.set_int_max_str_digits), hexadecimal never


def register(cls: type[T], encode: Callable[[T], object], decode: Callable[[Any], T], name: str | None = None) -> None:
    """Tell how values of a class are stored: of this very class, not of its subclasses.

    Args:
        cls: the class.
        encode: returns what to store instead: any value that can be stored.
        decode: returns an equal instance from that.
        name: what the class is called in the store, by default ``module:QualifiedName``; earlier names stay readable.

    Raises:
        SerializationError: *cls* is stored without help, or *name* stands for another class.
    """
    if cls in PLAIN_TYPES or cls in _FORMS:
        raise SerializationError(f"{label(cls)} cannot be registered: LiteFlow stores it as it is; wrap it in a class")
    own = name_of(cls)
    form = Form(name or own, own, encode, decode)
    if _NAMED.get(form.tag, form).payload != own:
        raise SerializationError(f"{form.tag} is registered for {_NAMED[form.tag].payload}; give {own} another name")
    _REGISTERED[cls] = _NAMED[form.tag] = form


class Form(NamedTuple):
    """How a type is stored, and under which tag or name."""

    tag: str
    payload: Any  # what the payload must be when it is read; the class it is for, if registered
    pack: Callable[[Any], object]
    unpack: Callable[[Any], object]


def _pack_moment(moment: datetime | time) -> object:
    zone = moment.tzinfo
    if zone is None or type(zone) is timezone:
        return [moment.isoformat(), None, 1] if moment.fold else moment.isoformat()
    if type(zone) is ZoneInfo and zone.key:
        return [moment.replace(tzinfo=None).isoformat(), zone.key, moment.fold]
    raise ValueError(f"its time zone is a {label(type(zone))}, neither a timezone nor a named ZoneInfo")


def _unpack_moment(cls: type[datetime | time], payload: Any) -> object:
    text, zone, fold = payload if type(payload) is list else (payload, None, 0)
    moment = cls.fromisoformat(text).replace(fold=fold)
    return moment.replace(tzinfo=ZoneInfo(zone)) if zone else moment


_FORMS: dict[type, Form] = {
    int: Form("int", str, lambda v: str(v) if abs(v) < _HUGE else hex(v), partial(int, base=0)),
    float: Form("float", str, repr, float),
    str: Form("str", str, lambda v: v.encode("unicode_escape").decode(), lambda v: v.encode().decode("unicode_escape")),
    bytes: Form("bytes", str, lambda v: b64encode(v).decode(), partial(b64decode, validate=True)),
    bytearray: Form("bytearray", list, lambda v: [bytes(v)], lambda v: bytearray(*v)),
    tuple: Form("tuple", list, list, tuple),
    set: Form("set", list, list, set),
    frozenset: Form("frozenset", list, list, frozenset),
    datetime: Form("datetime", object, _pack_moment, partial(_unpack_moment, datetime)),
    date: Form("date", str, date.isoformat, date.fromisoformat),
    time: Form("time", object, _pack_moment, partial(_unpack_moment, time)),
    timedelta: Form("timedelta", list, lambda v: [v.days, v.seconds, v.microseconds], lambda v: timedelta(*v)),
    Decimal: Form("decimal", str, str, Decimal),
    UUID: Form("uuid", str, str, UUID),
}
_FORMS |= {path: Form(path.__name__, str, str, path) for path in (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)}
TAGS = {f"${form.tag}": form for form in _FORMS.values()} | {
    "$dict": Form("dict", list, list, dict),
    "$ndarray": Form("ndarray", dict, dict, arrays.build_array),
}
NAMED_TAGS = frozenset({"$registered", "$enum", "$namedtuple", "$record", "$numpy"})  # with a name, and a "value" beside it
_REGISTERED: dict[type, Form] = {}  # of the process, as its classes are
_NAMED: dict[str, Form] = {}  # the same by name


@lru_cache(maxsize=512)
def _kind_of(cls: Any) -> str | None:
    if issubclass(cls, Enum):
        return "enum"
    if issubclass(cls, tuple) and hasattr(cls, "_field_defaults"):
        return "namedtuple"
    try:
        object.__new__(cls)  # refused if it extends a list, an exception or the like, whose content is in no field
    except TypeError:
        return None
    return None if _field_names(cls) is None else "record"


@lru_cache(maxsize=512)
def _field_names(cls: Any) -> list[str] | None:
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return list(cls.model_fields) if hasattr(cls, "__pydantic_core_schema__") else None


def _take(kind: str, cls: Any, value: Any) -> object:
    """Return what makes up an instance of a class of this kind."""
    if kind == "enum":
        return value.name if cls.__members__.get(value.name) is value else [value.value]  # that is a union of flags
    if kind == "namedtuple":
        if getattr(value, "__dict__", None):
            raise ValueError("it has attributes beside its fields")
        return dict(zip(cls._fields, tuple.__iter__(value), strict=True))
    stored: Any = object.__getstate__(_whole(cls, value))  # of a dict, of slots, or of both
    state = {name: item for part in (stored if type(stored) is tuple else (stored,)) for name, item in (part or {}).items()}
    if "_attrs_cached_hash" in state:
        state["_attrs_cached_hash"] = None  # a hash holds in this process only
    return state


def _build(kind: str, cls: Any, payload: Any) -> object:
    """Return what `_take` took apart; no class but an enum, for a union of its flags, is called."""
    if kind == "enum":
        return cls.__members__[payload] if type(payload) is str else cls(payload[0])
    if kind == "namedtuple":
        if unknown := payload.keys() - set(cls._fields):
            raise ValueError(f"the class has no field {min(unknown)} now")
        return tuple.__new__(cls, [payload[n] if n in payload else cls._field_defaults[n] for n in cls._fields])
    record = object.__new__(cls)
    for name, item in payload.items():
        object.__setattr__(record, name, item)
    return _whole(cls, record)


def _whole(cls: type, record: T) -> T:
    for name in _field_names(cls) or ():
        if not hasattr(record, name):  # a plain default is found in the class
            raise ValueError(f"its field {name} has no value")
    return record


def is_registered(cls: type) -> bool:
    """Return whether the user has said how this class is stored."""
    return cls in _REGISTERED


def take_apart(cls: type, value: Any) -> tuple[str, str | None, object]:
    """Return a tag, the name of the class unless the tag alone tells it, and what is in the value.

    Raises:
        Exception: any, saying why it cannot be stored; the functions of the user's classes raise what they like.
    """
    if form := _REGISTERED.get(cls):
        return "$registered", form.tag, form.pack(value)
    if form := _FORMS.get(cls):
        return f"${form.tag}", None, form.pack(value)
    if cls.__module__ == "numpy" and (taken := arrays.take_apart(cls, value)):
        return taken
    if (kind := _kind_of(cls)) is None:
        raise ValueError("JSON has nothing like it")
    if find(name := name_of(cls)) is not cls:
        raise ValueError(f"{name} does not lead to this class, made in a function or by loading its module twice")
    return f"${kind}", name, _take(kind, cls, value)


def put_together(tag: str, name: Any, payload: Any) -> object:
    """Return the value that `take_apart` took apart under a name."""
    if tag == "$numpy":
        return arrays.build_scalar(name, payload)
    module = str(name).partition(":")[0]
    if tag == "$registered":
        if name not in _NAMED:
            raise LookupError(f"import the module that calls liteflow.register for it, {module} perhaps")
        return _NAMED[name].unpack(payload)
    if (cls := find(name)) is None:
        raise LookupError(f"import {module} first; there is no such class in what this process has imported")
    if _kind_of(cls) != tag[1:]:
        raise ValueError(f"the class is no {tag[1:]} now")
    return _build(tag[1:], cls, payload)
