"""Values to text and back, exactly.

What JSON holds exactly is written as plain JSON. Anything else becomes an object whose first key, its tag, begins with ``$``:
``{"$tuple": [1, 2]}`` for a standard type, ``{"$record": "shop.models:Order", "value": {...}}`` for a user's class.
A dict that looks like that is written as ``{"$dict": [[key, value], ...]}``, so nothing is mistaken for a tag. Reading imports
nothing: a tag leads only to a class that is imported already, and is of the kind the tag says.
"""
# ruff: noqa: ANN401 - values of any type pass through here

from __future__ import annotations

import dataclasses
import re
import sys
from base64 import b64decode, b64encode
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from math import inf, isfinite
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from liteflow.errors import InvalidKeyError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")
MAX_BYTES = 64 * 2**20  # of the text of one value: a row of the database, held in memory several times
MAX_DEPTH = 100  # levels; each takes a few of the thousand stack frames that Python grants
MAX_KEY_BYTES = 512  # what every database takes into an index
_LEAST, _MOST = -(2**63), 2**63 - 1  # an integer column; SQL reads a longer number as an inexact one
_HUGE = 10**600  # Python may refuse decimal text from 640 digits on (sys.set_int_max_str_digits), hexadecimal never
_MANY = 16  # items from which on one look at all their types is quicker than a look at each
_SAFE = {str, bool, NoneType}
_PLAIN = _SAFE | {int, float, list, dict}
_stem = lru_cache(maxsize=8)(lambda file: PurePath(file).stem)
_TAG_SIGN, _SURROGATE = re.compile(r'\{\s*"\$'), re.compile("[\ud800-\udfff]")
_dump, _load = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


class Opaque:
    """What a lenient reader gets for a value that cannot be built here: its class or tag, its JSON, what to import."""

    def __init__(self, name: str, json: str, why: str) -> None:
        self.name, self.json, self.why = name, json, why

    def __repr__(self) -> str:
        """Show the JSON, and why it is not the value."""
        return f"<{self.name} {self.json} ({self.why})>"


def encode(value: object) -> str:
    """Return *value* as JSON text from which `decode` builds an equal value of the same type.

    Raises:
        SerializationError: it, or something in it, cannot be stored exactly, or is too deep or too large.
    """
    try:
        raw = _dump(value) if _weigh((value,), 0) < inf else b""
    except (UnicodeEncodeError, RecursionError):  # a lone surrogate; a stack that is nearly full
        raw = b""
    if not raw or b'{"$' in raw:  # quotes in a string are escaped, so this is always the first key of an object
        try:
            raw = _dump(_Packer().pack(value))
        except RecursionError:
            raise SerializationError("the value is nested too deeply; store it in pieces") from None
    if len(raw) > MAX_BYTES:
        raise SerializationError(f"the value takes {len(raw)} bytes of JSON, more than {MAX_BYTES}; store it in pieces")
    return raw.decode()


def decode(text: str, *, lenient: bool = False) -> Any:
    """Return the value that `encode` wrote, a fresh one at every call; with *lenient*, an `Opaque` in place of an error.

    Raises:
        SerializationError: the text is damaged, of an unknown format, or needs a class that is not imported here.
    """
    try:
        tree = _load(text)
        has_tags = '"$' in text and _TAG_SIGN.search(text)  # the quick test first; it settles most texts
        return _unpack(tree, lenient=lenient) if has_tags else tree
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if lenient:
            return Opaque("text", text, str(error))
        raise SerializationError(f"the stored text cannot be read, is damaged or not LiteFlow's: {error}") from error


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
    if cls in _PLAIN or cls in _FORMS:
        raise SerializationError(f"{_label(cls)} cannot be registered: LiteFlow stores it as it is; wrap it in a class")
    own = _name_of(cls)
    form = _Form(name or own, own, encode, decode)
    if _NAMED.get(form.tag, form).payload != own:
        raise SerializationError(f"{form.tag} is registered for {_NAMED[form.tag].payload}; give {own} another name")
    _REGISTERED[cls] = _NAMED[form.tag] = form


def check_key(key: object, kind: str = "Context key") -> str:
    """Return *key* if every database can hold it; raise `InvalidKeyError` with the cure if not."""
    if not isinstance(key, str):
        why = f"is of type {_label(type(key))}; use a string"
    elif not key:
        why = "is empty; use at least one character"
    elif "\0" in key:
        why = "holds a NUL character; leave it out"
    elif not _is_unicode(key):
        why = "holds half a surrogate pair; use characters that UTF-8 can write"
    elif (size := len(key.encode())) > MAX_KEY_BYTES:
        why = f"is {size} bytes long; use at most {MAX_KEY_BYTES}"
    else:
        return str.__str__(key)  # of a subclass, the characters alone
    raise InvalidKeyError(kind, key, why)


def _weigh(items: Collection[Any], depth: int) -> float:  # noqa: C901 - the hot loop: one branch a type
    """Return how many values these are, with all inside them; infinity unless JSON holds each exactly.

    Types are compared by identity: an enum or a subclass would come back as something else. A lone surrogate passes;
    the JSON encoder refuses that itself.
    """
    count: float = len(items)
    if count > _MANY:
        kinds = set(map(type, items))
        if kinds <= _SAFE or (kinds == {float} and isfinite(sum(items))):
            return count
        if kinds == {int}:
            return count if min(items) >= _LEAST and max(items) <= _MOST else inf
    for item in items:
        kind, inside = type(item), item
        if kind is str or kind is bool or item is None:
            continue
        if (kind is int and _LEAST <= item <= _MOST) or (kind is float and isfinite(item)):
            continue
        if kind is dict:
            for key in item:
                if type(key) is not str:
                    return inf
            inside = item.values()
        elif kind is not list:
            return inf
        count += _weigh(inside, depth + 1) if depth < MAX_DEPTH else inf
        if count > MAX_BYTES:  # or a few objects that hold each other many times over would outgrow all memory
            return inf
    return count


def _is_unicode(text: str) -> bool:
    return text.isascii() or not _SURROGATE.search(text)


class _Form(NamedTuple):
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
    raise ValueError(f"its time zone is a {_label(type(zone))}, neither a timezone nor a named ZoneInfo")


def _unpack_moment(cls: type[datetime | time], payload: Any) -> object:
    text, zone, fold = payload if type(payload) is list else (payload, None, 0)
    moment = cls.fromisoformat(text).replace(fold=fold)
    return moment.replace(tzinfo=ZoneInfo(zone)) if zone else moment


_FORMS: dict[type, _Form] = {
    int: _Form("int", str, lambda v: str(v) if abs(v) < _HUGE else hex(v), partial(int, base=0)),
    float: _Form("float", str, repr, float),
    str: _Form("str", str, lambda v: v.encode("unicode_escape").decode(), lambda v: v.encode().decode("unicode_escape")),
    bytes: _Form("bytes", str, lambda v: b64encode(v).decode(), partial(b64decode, validate=True)),
    bytearray: _Form("bytearray", list, lambda v: [bytes(v)], lambda v: bytearray(*v)),
    tuple: _Form("tuple", list, list, tuple),
    set: _Form("set", list, list, set),
    frozenset: _Form("frozenset", list, list, frozenset),
    datetime: _Form("datetime", object, _pack_moment, partial(_unpack_moment, datetime)),
    date: _Form("date", str, date.isoformat, date.fromisoformat),
    time: _Form("time", object, _pack_moment, partial(_unpack_moment, time)),
    timedelta: _Form("timedelta", list, lambda v: [v.days, v.seconds, v.microseconds], lambda v: timedelta(*v)),
    Decimal: _Form("decimal", str, str, Decimal),
    UUID: _Form("uuid", str, str, UUID),
}
_FORMS |= {path: _Form(path.__name__, str, str, path) for path in (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)}
_TAGS = {f"${form.tag}": form for form in _FORMS.values()} | {"$dict": _Form("dict", list, list, dict)}
_REGISTERED: dict[type, _Form] = {}  # of the process, as its classes are
_NAMED: dict[str, _Form] = {}  # the same by name


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


def _label(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _importable(module: str) -> str:
    """Return the name under which others import a module; for a script that is not ``__main__``."""
    if module not in {"__main__", "__mp_main__"}:  # the latter: the script in a child of multiprocessing
        return module
    main = sys.modules.get(module)
    name = getattr(getattr(main, "__spec__", None), "name", module)
    return _stem(getattr(main, "__file__", None) or module) if name in {"__main__", "__mp_main__"} else name


def _name_of(cls: type) -> str:
    return f"{_importable(cls.__module__)}:{cls.__qualname__}"


def _find(name: str) -> type | None:
    """Return the imported class of this name; look only into dictionaries, for attributes may import or compute."""
    module, _, qualname = name.partition(":")
    for place in ("__main__", module):
        found: Any = sys.modules.get(place)
        if _importable(place) == module and isinstance(found, ModuleType):
            names = ModuleType.__getattribute__(found, "__dict__")
            for part in qualname.split("."):
                found = names.get(part)
                names = type.__getattribute__(found, "__dict__") if isinstance(found, type) else {}
            if isinstance(found, type) and _name_of(found) == name:
                return found
    return None


class _Packer:
    """Makes plain JSON of one value; knows where in the value it is, for the error."""

    def __init__(self) -> None:
        self.path: list[object] = []  # keys, indices, types of keys that are no strings
        self.count = 0

    def pack(self, value: Any) -> Any:
        cls = type(value)
        self.count += 1
        if len(self.path) > MAX_DEPTH or self.count > MAX_BYTES:
            raise self.refusal(cls, f"the value is nested over {MAX_DEPTH} levels deep, or holds itself; store it in pieces")
        if cls is list:
            return [self.within(index, item) for index, item in enumerate(value)]
        if cls is dict:
            is_text = all(type(key) is str and _is_unicode(key) for key in value)
            if is_text and not next(iter(value), "").startswith("$"):
                return {key: self.within(key, item) for key, item in value.items()}
            steps = (key if type(key) is str else type(key) for key in value)
            return {"$dict": [[self.within(s, k), self.within(s, v)] for s, (k, v) in zip(steps, value.items(), strict=True)]}
        if cls in _PLAIN and _weigh((value,), 0) < inf and (cls is not str or _is_unicode(value)):
            return value
        try:
            tag, name, taken = _take_apart(cls, value)
        except Exception as error:
            cure = f"use liteflow.register({cls.__name__}, encode, decode), or store what it is made of"
            why = f"a value of type {_label(cls)} cannot be stored exactly: {_reason(error)}; {cure}"
            raise self.refusal(cls, why) from error
        packed = self.pack(taken)
        if cls in (set, frozenset):
            packed.sort(key=_dump)  # the same text for the same value
        return {tag: packed} if name is None else {tag: name, "value": packed}

    def within(self, step: object, value: object) -> object:
        if type(value) is bool or value is None or (type(value) is str and value.isascii()):
            return value  # most values, at a third of the cost
        self.path.append(step)
        packed = self.pack(value)
        self.path.pop()
        return packed

    def refusal(self, cls: type, why: str) -> SerializationError:
        steps = [f".{s}" if str(s).isidentifier() else f"[{getattr(s, '__name__', ascii(s))}]" for s in self.path]
        return SerializationError(why, path="".join(steps)[:200], type_name=_label(cls))


def _take_apart(cls: type, value: Any) -> tuple[str, str | None, object]:
    """Return a tag, the name of the class unless the tag alone tells it, and what is in the value."""
    if form := _REGISTERED.get(cls):
        return "$registered", form.tag, form.pack(value)
    if form := _FORMS.get(cls):
        return f"${form.tag}", None, form.pack(value)
    if (kind := _kind_of(cls)) is None:
        raise ValueError("JSON has nothing like it")
    if _find(name := _name_of(cls)) is not cls:
        raise ValueError(f"{name} does not lead to this class, made in a function or by loading its module twice")
    return f"${kind}", name, _take(kind, cls, value)


def _reason(error: Exception) -> str:
    return str(error) if type(error) in {ValueError, LookupError} else f"{type(error).__name__}: {error}"


def _unpack(tree: Any, *, lenient: bool) -> Any:
    if type(tree) is list:
        return [_unpack(item, lenient=lenient) for item in tree]
    if type(tree) is not dict:
        return tree
    tag = next(iter(tree), "")
    if not tag.startswith("$"):
        return {key: _unpack(item, lenient=lenient) for key, item in tree.items()}
    try:
        return _put_together(tag, tree[tag], tree, lenient=lenient)
    except Exception as error:
        name = str(tree[tag])[:200] if "value" in tree else tag
        if lenient:
            return Opaque(name, _dump(tree).decode(), _reason(error))
        if isinstance(error, SerializationError):
            raise
        raise SerializationError(f"a stored {name} cannot be read: {_reason(error)}", type_name=name) from error


def _put_together(tag: str, head: Any, tree: dict[str, Any], *, lenient: bool) -> object:
    form, module = _TAGS.get(tag), str(head).partition(":")[0]
    if form and len(tree) == 1 and isinstance(payload := _unpack(head, lenient=lenient), form.payload):
        return form.unpack(payload)
    if tag not in {"$registered", "$enum", "$namedtuple", "$record"} or tree.keys() != {tag, "value"}:
        raise LookupError(f"{tag} is no format that this LiteFlow knows; upgrade it if a newer one wrote this")
    payload = _unpack(tree["value"], lenient=lenient)
    if tag == "$registered":
        if head not in _NAMED:
            raise LookupError(f"import the module that calls liteflow.register for it, {module} perhaps")
        return _NAMED[head].unpack(payload)
    if (cls := _find(head)) is None:
        raise LookupError(f"import {module} first; there is no such class in what this process has imported")
    if _kind_of(cls) != tag[1:]:
        raise ValueError(f"the class is no {tag[1:]} now")
    return _build(tag[1:], cls, payload)
