"""The codec of a flow: the format, with signed pickles and a hook for encryption where the flow asks for them."""
# ruff: noqa: ANN401 - values of any type pass through here

from __future__ import annotations

import pickle
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Protocol

from liteflow.codec.arrays import alike
from liteflow.codec.names import is_unicode
from liteflow.codec.signing import fits, sign
from liteflow.codec.text import MAX_BYTES, Format, dump, reason
from liteflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

_PICKLE_PROTOCOL = 5  # which every Python that LiteFlow runs on can read


class Transform(Protocol):
    """What a user's hook does to the text of each value: encrypt or compress it, and undo that."""

    def encode(self, text: str, /) -> str:
        """Return what to store instead."""

    def decode(self, text: str, /) -> str:
        """Return what `encode` was given."""


class Codec(Format):
    """How one flow turns values into text and back.

    Args:
        key: signs pickles, or a function that returns the key when it is first needed; None refuses what needs a pickle.
        transform: the user's hook, applied to the text of each value, for encryption or compression.
        max_bytes: the longest text of one value, before the hook and after it.
    """

    def __init__(
        self, key: bytes | Callable[[], bytes] | None = None, transform: Transform | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        self.max_bytes = max_bytes
        self._key, self._transform = key, transform

    def seal(self, text: str) -> str:
        """Return text that a codec without a hook has written as this codec would have written it.

        Raises:
            SerializationError: the hook failed, or what it returned is too large.
        """
        if self._transform is None:
            return text
        return self.fitting(dump({"$sealed": self._apply("encode", text)}))

    def equal(self, one: str | None, other: str | None, place: str) -> bool:
        """Return whether two texts written for *place* stand for equal values; None is no value, equal to itself.

        Raises:
            SerializationError: one of two texts that differ cannot be read.
        """
        if one == other or one is None or other is None:
            return one == other
        values = [self.decode(text, place) for text in (one, other)]
        return alike(*values) or self.write(values[0], place) == self.write(values[1], place)

    def pickled(self, value: object, place: str) -> list[str] | None:
        """Return *value* as a pickle signed for *place*; None without a key."""
        if self._key is None:
            return None
        raw = pickle.dumps(value, _PICKLE_PROTOCOL)
        return [b64encode(raw).decode(), sign(self._secret(self._key), place, raw)]

    def unpickled(self, payload: Any, place: str) -> object:
        """Return what `pickled` was given, if it was this key and this place."""
        if self._key is None:
            raise SerializationError("the stored value is a pickle; Flow(pickle=True) reads it")
        data, signature = payload
        raw = b64decode(data, validate=True)
        if not fits(signature, self._secret(self._key), place, raw):
            raise SerializationError(
                "the signature of a stored pickle does not fit this place and key: "
                "it was altered, moved, or signed with another LITEFLOW_SECRET_KEY"
            )
        return pickle.loads(raw)  # noqa: S301 - its signature says that this flow wrote it

    def opened(self, sealed: str) -> str:
        """Return the text that `seal` was given."""
        if self._transform is None:
            raise SerializationError(
                "the stored value cannot be read: it was sealed by the codec of its flow; give Flow(codec=...)"
            )
        return self._apply("decode", sealed)

    def _secret(self, key: bytes | Callable[[], bytes]) -> bytes:
        if callable(key):
            self._key = key = key()
        return key

    def _apply(self, verb: str, text: str) -> str:
        name = type(self._transform).__qualname__
        try:
            done: Any = getattr(self._transform, verb)(text)
        except Exception as error:
            raise SerializationError(f"{name}, the codec of the flow, failed to {verb} a value: {reason(error)}") from error
        if not isinstance(done, str) or not is_unicode(done):
            kind = type(done).__qualname__
            raise SerializationError(
                f"{name}, the codec of the flow, must {verb} to a str that UTF-8 can write, not to this {kind}"
            )
        return str.__str__(done)


PLAIN = Codec()


def encode(value: object) -> str:
    """Return *value* as `PLAIN` writes it."""
    return PLAIN.encode(value, "")


def decode(text: str, *, lenient: bool = False) -> Any:
    """Return the value that `encode` wrote; see `Codec.decode`."""
    return PLAIN.decode(text, "", lenient=lenient)
