"""The format: values to JSON text and back.

What JSON holds exactly is written as plain JSON. Anything else becomes an object whose first key, its tag, begins with ``$``:
``{"$tuple": [1, 2]}`` for a standard type, ``{"$record": "shop.models:Order", "value": {...}}`` for a user's class.
A dict that looks like that is written as ``{"$dict": [[key, value], ...]}``, so nothing is mistaken for a tag. Reading imports
nothing: a tag leads only to a class that is imported already, and is of the kind the tag says.
"""
# ruff: noqa: ANN401 - values of any type pass through here

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from liteflow.codec import arrays
from liteflow.codec.forms import NAMED_TAGS, PLAIN_TYPES, SAFE, TAGS, is_registered, put_together, take_apart
from liteflow.codec.names import is_unicode, label
from liteflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_BYTES = 64 * 2**20  # of the text of one value: a row of the database, held in memory several times
_SMALLER = "store it in pieces, or raise the limit: Flow(limits=Limits(value_bytes=...))"
MAX_DEPTH = 100  # levels; each takes a few of the thousand stack frames that Python grants
_LEAST, _MOST = -(2**63), 2**63 - 1  # an integer column; SQL reads a longer number as an inexact one
_MANY = 16  # items from which on one look at all their types is quicker than a look at each
_TAG_SIGN = re.compile(r'\{\s*"\$')
dump, load = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


class Opaque:
    """What a lenient reader gets for a value that cannot be built here: its class or tag, its JSON, what to import."""

    def __init__(self, name: str, json: str, why: str) -> None:
        self.name, self.json, self.why = name, json, why

    def __repr__(self) -> str:
        """Show the JSON, and why it is not the value."""
        return f"<{self.name} {self.json} ({self.why})>"


class Format(ABC):
    """Values to text and back; what only some flows ask for is left to the codec: pickles, and a hook for all text."""

    max_bytes = MAX_BYTES

    def encode(self, value: object, place: str) -> str:
        """Return *value* as text from which `decode` builds an equal value of the same type.

        Args:
            value: what to store.
            place: where it is going to stand; what is signed is read nowhere else.

        Raises:
            SerializationError: it, or something in it, cannot be stored exactly, or is too deep or too large.
        """
        return self.seal(self.write(value, place))

    def decode(self, text: str, place: str, *, lenient: bool = False) -> Any:
        """Return the value that `encode` wrote, a fresh one at every call; with *lenient*, an `Opaque` in place of an error.

        Raises:
            SerializationError: the text is damaged or forged, of an unknown format, or needs what this process does not have.
        """
        try:
            tree = load(text)
            has_tags = '"$' in text and _TAG_SIGN.search(text)  # the quick test first; it settles most texts
            return _Reader(self, place, lenient=lenient).unpack(tree) if has_tags else tree
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if lenient:
                return Opaque("text", text, str(error))
            raise SerializationError(f"the stored text cannot be read, is damaged or not LiteFlow's: {error}") from error

    def write(self, value: object, place: str) -> str:
        """Return *value* as JSON text, before any hook."""
        kind = type(value)
        try:
            if kind is str or (kind is int and _LEAST <= value <= _MOST):  # type: ignore[operator] # no need to look closer
                raw = dump(value)
            else:
                raw = dump(value) if _weigh((value,), 0, self.max_bytes) < inf else b""
        except (UnicodeEncodeError, RecursionError):  # a lone surrogate; a stack that is nearly full
            raw = b""
        if not raw or b'{"$' in raw:  # quotes in a string are escaped, so this is always the first key of an object
            try:
                raw = dump(_Packer(self, place).pack(value))
            except RecursionError:
                raise SerializationError("the value is nested too deeply; store it in pieces") from None
        return self.fitting(raw)

    def fitting(self, raw: bytes) -> str:
        """Return the text of JSON that is not too large."""
        if len(raw) > self.max_bytes:
            raise SerializationError(f"the value takes {len(raw)} bytes of JSON, more than {self.max_bytes}; {_SMALLER}")
        return raw.decode()

    @abstractmethod
    def seal(self, text: str) -> str:
        """Return what to store instead of *text*."""

    @abstractmethod
    def opened(self, sealed: str) -> str:
        """Return the text that the hook was given."""

    @abstractmethod
    def pickled(self, value: object, place: str) -> list[str] | None:
        """Return a signed pickle; None if this flow has none."""

    @abstractmethod
    def unpickled(self, payload: Any, place: str) -> object:
        """Return what `pickled` was given."""


def reason(error: Exception) -> str:
    """Return what an error says, with its type where the words alone may say nothing."""
    return str(error) if type(error) in {ValueError, LookupError} else f"{type(error).__name__}: {error}"


def _weigh(items: Collection[Any], depth: int, most: int) -> float:  # noqa: C901 - the hot loop: one branch a type
    """Return how many values these are, with all inside them; infinity unless JSON holds each exactly.

    Types are compared by identity: an enum or a subclass would come back as something else. A lone surrogate passes;
    the JSON encoder refuses that itself.
    """
    count: float = len(items)
    if count > _MANY:
        kinds = set(map(type, items))
        if kinds <= SAFE or (kinds == {float} and isfinite(sum(items))):
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
        count += _weigh(inside, depth + 1, most) if depth < MAX_DEPTH else inf
        if count > most:  # or a few objects that hold each other many times over would outgrow all memory
            return inf
    return count


class _Packer:
    """Makes plain JSON of one value; knows where in the value it is, for the error."""

    def __init__(self, codec: Format, place: str) -> None:
        self.codec, self.place, self.most = codec, place, codec.max_bytes
        self.path: list[object] = []  # keys, indices, types of keys that are no strings
        self.size = 0

    def pack(self, value: Any) -> Any:
        cls = type(value)
        self.size += 1
        if len(self.path) > MAX_DEPTH or self.size > self.most:
            self.grow(cls, 0)
        if cls is list:
            return [self.within(index, item) for index, item in enumerate(value)]
        if cls is dict:
            is_text = all(type(key) is str and is_unicode(key) for key in value)
            if is_text and not next(iter(value), "").startswith("$"):
                return {key: self.within(key, item) for key, item in value.items()}
            steps = (key if type(key) is str else type(key) for key in value)
            return {"$dict": [[self.within(s, k), self.within(s, v)] for s, (k, v) in zip(steps, value.items(), strict=True)]}
        if cls in PLAIN_TYPES and _weigh((value,), 0, 1) < inf and (cls is not str or is_unicode(value)):
            return value
        if arrays.is_array(value):
            self.grow(cls, value.nbytes)
        try:
            tag, name, taken = take_apart(cls, value)
        except Exception as error:  # noqa: BLE001 - whatever the user's class raises
            return self.pickle(cls, value, error)
        packed = self.pack(taken)
        if cls in (set, frozenset):
            packed.sort(key=dump)  # the same text for the same value
        return {tag: packed} if name is None else {tag: name, "value": packed}

    def within(self, step: object, value: object) -> object:
        if type(value) is bool or value is None or (type(value) is str and value.isascii()):
            return value  # most values, at a third of the cost
        self.path.append(step)
        packed = self.pack(value)
        self.path.pop()
        return packed

    def grow(self, cls: type, size: int) -> None:
        """Count what is stored, and refuse too much of it before there is more."""
        self.size += size
        if len(self.path) > MAX_DEPTH:
            raise self.refusal(cls, f"the value is nested over {MAX_DEPTH} levels deep, or holds itself; store it in pieces")
        if self.size > self.most:
            raise self.refusal(cls, f"the value takes more than {self.most} bytes of JSON; store it in pieces")

    def pickle(self, cls: type, value: object, error: Exception) -> object:
        why, cure = reason(error), f"liteflow.register({cls.__name__}, encode, decode)"
        try:
            signed = None if is_registered(cls) else self.codec.pickled(value, self.place)
            if signed:
                self.grow(cls, len(signed[0]))
                return {"$pickle": signed}
            cure = f"{cure} or Flow(pickle=True)"
        except SerializationError:  # of the key, or of the size
            raise
        except Exception as failure:  # noqa: BLE001 - whatever the user's class raises
            why = f"{why}, and it cannot be pickled: {reason(failure)}"
        why = f"a value of type {label(cls)} cannot be stored exactly: {why}; use {cure}, or store what it is made of"
        raise self.refusal(cls, why) from error

    def refusal(self, cls: type, why: str) -> SerializationError:
        steps = [f".{s}" if str(s).isidentifier() else f"[{getattr(s, '__name__', ascii(s))}]" for s in self.path]
        return SerializationError(why, path="".join(steps)[:200], type_name=label(cls))


class _Reader:
    """Builds one value from plain JSON."""

    def __init__(self, codec: Format, place: str, *, lenient: bool) -> None:
        self.codec, self.place, self.lenient = codec, place, lenient

    def unpack(self, tree: Any) -> Any:
        if type(tree) is list:
            return [self.unpack(item) for item in tree]
        if type(tree) is not dict:
            return tree
        tag = next(iter(tree), "")
        if not tag.startswith("$"):
            return {key: self.unpack(item) for key, item in tree.items()}
        try:
            return self.build(tag, tree)
        except Exception as error:
            name = str(tree[tag])[:200] if "value" in tree and tag != "$numpy" else tag
            if self.lenient:
                return Opaque(name, dump(tree).decode(), reason(error))
            if isinstance(error, SerializationError):
                raise
            raise SerializationError(f"a stored {name} cannot be read: {reason(error)}", type_name=name) from error

    def build(self, tag: str, tree: dict[str, Any]) -> object:
        head = tree[tag]
        if tag in NAMED_TAGS and tree.keys() == {tag, "value"}:
            return put_together(tag, head, self.unpack(tree["value"]))
        if tag == "$pickle" and len(tree) == 1:
            return self.codec.unpickled(head, self.place)
        if tag == "$sealed" and len(tree) == 1 and isinstance(head, str):
            return self.codec.decode(self.codec.opened(head), self.place, lenient=self.lenient)
        form = TAGS.get(tag)
        if form and len(tree) == 1 and isinstance(payload := self.unpack(head), form.payload):
            return form.unpack(payload)
        raise LookupError(f"{tag} is no format that this LiteFlow knows; upgrade it if a newer one wrote this")
