from __future__ import annotations

import base64
import json
import secrets
import zlib

import numpy as np
import pytest

from liteflow.codec import PLAIN, Codec, Opaque
from liteflow.errors import SerializationError
from tests.values import Order


class Zip:
    def encode(self, text: str) -> str:
        return base64.b85encode(zlib.compress(text.encode())).decode()

    def decode(self, text: str) -> str:
        return zlib.decompress(base64.b85decode(text)).decode()


class Cipher:
    """Like every good one, it never gives the same text twice."""

    def encode(self, text: str) -> str:
        return secrets.token_hex(8) + text.encode().hex()

    def decode(self, text: str) -> str:
        return bytes.fromhex(text[16:]).decode()


class Says:
    """Returns, or raises, what it was made with."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def encode(self, _text: str) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value] # which is what is tried

    decode = encode


ZIP, CIPHER = Codec(transform=Zip()), Codec(transform=Cipher())
VALUES = [None, 1, "ä\0\ud800", {"a": [1, (2,)]}, {"$sealed": "x"}, [{"$sealed": "x", "b": 1}], {1: 2}, Order("tea", 1)]


@pytest.mark.parametrize("codec", [ZIP, CIPHER], ids=["zip", "cipher"])
@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_a_sealed_value_comes_back_and_is_not_to_be_seen(codec, value):
    text = codec.encode(value, "")

    assert json.loads(text).keys() == {"$sealed"}
    assert codec.decode(text, "") == value


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_what_was_written_before_the_hook_is_read_as_before(value):
    assert CIPHER.decode(PLAIN.encode(value, ""), "") == value


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_text_that_was_written_without_the_hook_can_be_sealed_later(value):
    text = CIPHER.seal(PLAIN.encode(value, ""))

    assert text.startswith('{"$sealed":')
    assert CIPHER.decode(text, "") == value


def test_a_codec_without_a_hook_seals_nothing():
    assert PLAIN.seal("[1]") == "[1]"


def test_text_that_the_database_has_spaced_out_is_still_sealed():
    text = json.dumps(json.loads(ZIP.encode([1], "")), indent=1)

    assert ZIP.decode(text, "") == [1]


def test_a_reader_without_the_hook_is_told_whose_it_is():
    text = ZIP.encode({"a": 1}, "")

    with pytest.raises(SerializationError, match=r"sealed by the codec of its flow; give Flow\(codec=...\)"):
        PLAIN.decode(text, "")

    back = PLAIN.decode(text, "", lenient=True)
    assert isinstance(back, Opaque)
    assert (back.name, back.json) == ("$sealed", text)
    assert "Flow(codec=" in back.why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ValueError("no key today"), "no key today"),
        (KeyError("k"), "KeyError: 'k'"),
        (SerializationError("of the hook"), "of the hook"),
        (b"bytes", "must encode to a str .* bytes"),
        (None, "NoneType"),
        ("\ud800", "that UTF-8 can write"),
    ],
    ids=ascii,
)
def test_a_hook_that_fails_is_named_with_its_reason(answer, why):
    codec = Codec(transform=Says(answer))

    with pytest.raises(SerializationError, match=f"Says, the codec of the flow, .*{why}"):
        codec.encode([1], "")
    with pytest.raises(SerializationError, match=f"Says, the codec of the flow, .*{why.replace('encode', 'decode')}"):
        codec.decode('{"$sealed":"x"}', "")
    assert isinstance(codec.decode('{"$sealed":"x"}', "", lenient=True), Opaque)


def test_a_hook_without_its_methods_is_named():
    with pytest.raises(SerializationError, match="object, the codec of the flow, failed to encode a value: AttributeError"):
        Codec(transform=object()).encode(1, "")  # type: ignore[arg-type] # which is what is tried


@pytest.mark.parametrize("text", ['{"$sealed":1}', '{"$sealed":"x","value":1}', '{"$sealed":"x","more":1}', '{"$sealed":["x"]}'])
def test_damaged_sealed_text_is_an_error(text):
    with pytest.raises(SerializationError):
        CIPHER.decode(text, "")


@pytest.mark.parametrize("answer", ["", "nonsense", '{"$sealed":"x"}', '{"$unknown":1}'])
def test_a_hook_that_opens_to_no_value_is_an_error(answer):
    with pytest.raises(SerializationError):
        Codec(transform=Says(answer)).decode('{"$sealed":"x"}', "")


def test_a_lenient_reader_sees_what_it_can_of_a_sealed_value():
    text = Codec(key=b"k" * 32, transform=Zip()).encode({"a": 1, "b": 1j}, "")

    back = ZIP.decode(text, "", lenient=True)

    assert (back["a"], back["b"].name) == (1, "$pickle")


def test_pickles_and_the_hook_go_together():
    codec = Codec(key=b"k" * 32, transform=Cipher())
    text = codec.encode({"a": 1j}, "here")

    assert codec.decode(text, "here") == {"a": 1j}
    with pytest.raises(SerializationError, match="moved"):
        codec.decode(text, "there")


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ([1], [1], True),
        ([1], [1.0], True),
        ([1], [2], False),
        ({"a": 1, "b": float("nan")}, {"a": 1, "b": float("nan")}, True),
        (Order(np.arange(3)), Order(np.arange(3)), True),
        (Order(np.arange(3)), Order(np.arange(4)), False),
        ({1: 2, 3: 4}, {3: 4, 1: 2}, True),
    ],
)
def test_values_are_equal_however_they_are_sealed(one, other, is_equal):
    texts = CIPHER.encode(one, ""), CIPHER.encode(other, "")

    assert CIPHER.equal(*texts, "") is is_equal
    assert CIPHER.equal(PLAIN.encode(one, ""), texts[1], "") is is_equal


def test_no_value_equals_only_no_value():
    assert PLAIN.equal(None, None, "")
    assert not PLAIN.equal(None, "null", "")
    assert not PLAIN.equal("1", None, "")


def test_texts_that_cannot_be_read_are_not_called_different():
    with pytest.raises(SerializationError, match="import nowhere first"):
        PLAIN.equal('{"$record":"nowhere:A","value":{}}', "1", "")


def test_a_sealed_value_may_be_as_large_as_the_limit_and_no_larger():
    value = list(range(50))
    size = len(CIPHER.encode(value, ""))

    assert Codec(transform=Cipher(), max_bytes=size).encode(value, "")
    with pytest.raises(SerializationError, match=f"{size} bytes"):
        Codec(transform=Cipher(), max_bytes=size - 1).encode(value, "")


def test_a_hook_that_shrinks_does_not_lift_the_limit():
    value = "a" * 1000

    assert len(ZIP.encode(value, "")) < 100
    with pytest.raises(SerializationError, match="1002 bytes"):
        Codec(transform=Zip(), max_bytes=1001).encode(value, "")


def test_the_type_of_a_hook_text_is_str_itself():
    class Text(str):
        __slots__ = ()

    assert json.loads(Codec(transform=Says(Text("a"))).encode(1, "")) == {"$sealed": "a"}
