from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from liteflow.codec import MAX_DEPTH, PLAIN, Codec, Opaque, forms, register, signing_key
from liteflow.errors import SerializationError
from tests.values import Coin, Money, Order

KEY = b"k" * 32
CODEC = Codec(key=KEY)


class Trap:
    """Says when it is unpickled."""

    sprung = 0

    def __reduce__(self) -> tuple[object, ...]:
        return spring, ()


def spring() -> None:
    Trap.sprung += 1


def stored_pickle(value: object, place: str = "a") -> list[str]:
    pair: list[str] = json.loads(CODEC.encode(value, place))["$pickle"]
    return pair


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [Money(3), 1j, range(3), Order, np.array([None, 1]), np.array([(1, 2.0)], "i4,f8"), Path])
def test_what_cannot_be_stored_otherwise_comes_back_from_a_pickle(value):
    back = CODEC.decode(CODEC.encode({"a": (value,)}, "place"), "place")["a"][0]

    assert type(back) is type(value)
    assert np.array_equal(back, value)


def test_only_the_part_that_needs_it_is_pickled():
    tree = json.loads(CODEC.encode({"a": 1, "order": Order("tea", [Money(3)])}, ""))

    assert tree["a"] == 1
    assert tree["order"]["value"]["item"] == "tea"
    assert tree["order"]["value"]["total"][0].keys() == {"$pickle"}


def test_what_can_be_stored_otherwise_is_written_as_without_a_key():
    value = {"a": [1, (2,), np.arange(3), Coin(1)]}

    assert CODEC.encode(value, "a") == PLAIN.encode(value, "b")


@pytest.mark.parametrize(
    ("value", "why"),
    [(lambda: 1, "lambda"), (threading.Lock(), "lock"), ((n for n in []), "generator")],
    ids=["lambda", "lock", "gen"],
)
def test_what_cannot_even_be_pickled_is_refused_with_the_reason(value, why):
    with pytest.raises(SerializationError, match=rf"cannot be pickled: .*{why}") as caught:
        CODEC.encode({"a": [value]}, "")

    assert caught.value.path == ".a[0]"
    assert "liteflow.register(" in str(caught.value)
    assert "pickle=True" not in str(caught.value)


def test_an_error_in_the_functions_of_a_registered_class_is_not_covered_up_by_a_pickle(monkeypatch):
    monkeypatch.setattr(forms, "_REGISTERED", {})
    monkeypatch.setattr(forms, "_NAMED", {})
    register(Money, lambda money: money.cents / 0, Money)

    with pytest.raises(SerializationError, match="ZeroDivisionError"):
        CODEC.encode(Money(1), "")


def test_too_deep_and_too_large_stay_errors():
    loop: list[object] = []
    loop.append(loop)

    with pytest.raises(SerializationError, match=f"over {MAX_DEPTH} levels"):
        CODEC.encode(loop, "")
    with pytest.raises(SerializationError, match="in pieces"):
        Codec(key=KEY, max_bytes=1000).encode([complex(n) for n in range(20)], "")


def test_a_plain_dict_that_looks_like_a_pickle_is_a_dict():
    value = {"$pickle": stored_pickle(Trap())}

    assert CODEC.decode(CODEC.encode([value], "a"), "a") == [value]
    assert Trap.sprung == 0


def test_two_pickles_are_equal_if_their_values_are():
    one, other = CODEC.encode([{"a": 1, "b": Money(2)}], "k"), CODEC.encode([{"b": Money(2), "a": 1}], "k")

    assert one != other
    assert CODEC.equal(one, other, "k")
    assert not CODEC.equal(one, CODEC.encode([{"a": 1, "b": Money(3)}], "k"), "k")


# -- signatures ------------------------------------------------------------------------------------------------------

DATA, SIGNATURE = stored_pickle(Trap())
EVIL = base64.b64encode(pickle.dumps(Trap()) + b"x").decode()


@pytest.mark.parametrize(
    "payload",
    [
        [EVIL, SIGNATURE],
        [DATA, SIGNATURE[:-1]],
        [DATA, SIGNATURE.upper()],
        [DATA, ""],
        [DATA, "ä" * 64],
        [DATA, None],
        [DATA],
        [DATA, SIGNATURE, SIGNATURE],
        ["?", SIGNATURE],
        [1, SIGNATURE],
        {"a": 1},
        None,
    ],
    ids=str,
)
def test_nothing_is_unpickled_that_was_not_signed(payload):
    text = json.dumps({"$pickle": payload})

    with pytest.raises(SerializationError):
        CODEC.decode(text, "a")

    assert isinstance(CODEC.decode(text, "a", lenient=True), Opaque)
    assert Trap.sprung == 0


@pytest.mark.parametrize(("key", "place"), [(KEY, "b"), (b"o" * 32, "a"), (KEY, ""), (KEY, "a\0")])
def test_a_pickle_is_read_only_where_it_was_put_and_with_its_key(key, place):
    with pytest.raises(SerializationError, match="altered, moved, or signed with another LITEFLOW_SECRET_KEY"):
        Codec(key=key).decode(json.dumps({"$pickle": [DATA, SIGNATURE]}), place)

    assert Trap.sprung == 0


def test_place_and_bytes_cannot_be_shifted_against_each_other():
    longer = base64.b64encode(b"a" + base64.b64decode(DATA)).decode()

    with pytest.raises(SerializationError, match="signature"):
        CODEC.decode(json.dumps({"$pickle": [longer, SIGNATURE]}), "")


def test_a_reader_without_a_key_is_told_how_to_read_a_pickle():
    text = CODEC.encode({"a": Money(1), "b": 2}, "")

    with pytest.raises(SerializationError, match=r"Flow\(pickle=True\) reads it"):
        PLAIN.decode(text, "")

    back = PLAIN.decode(text, "", lenient=True)
    assert (back["a"].name, back["b"]) == ("$pickle", 2)
    assert "Flow(pickle=True)" in back["a"].why


def test_a_class_that_is_gone_is_an_error_of_ours(monkeypatch):
    text = CODEC.encode(Money(1), "")
    monkeypatch.delattr(sys.modules[Money.__module__], "Money")

    with pytest.raises(SerializationError, match=r"a stored \$pickle cannot be read: AttributeError"):
        CODEC.decode(text, "")


def test_the_key_is_asked_for_once_and_only_when_it_is_needed():
    asked: list[int] = []

    def key() -> bytes:
        asked.append(1)
        return KEY

    codec = Codec(key=key)
    codec.decode(codec.encode({"a": (1,)}, ""), "")
    assert asked == []

    assert codec.decode(codec.encode([1j, 2j], "a"), "a") == [1j, 2j]
    assert CODEC.decode(codec.encode(1j, "a"), "a") == 1j
    assert asked == [1]


def test_a_key_that_cannot_be_had_is_an_error_that_says_why(tmp_path):
    codec = Codec(key=lambda: signing_key("short", None))

    with pytest.raises(SerializationError, match="LITEFLOW_SECRET_KEY has 5 characters"):
        codec.encode({"a": 1j}, "")


# -- the key ---------------------------------------------------------------------------------------------------------


def test_the_environment_goes_before_the_file(tmp_path):
    file = tmp_path / "a.db.key"

    assert signing_key("0123456789abcdef", file) == b"0123456789abcdef"
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "0123456789abcde"])
def test_a_short_secret_is_refused_with_a_way_to_make_one(text):
    with pytest.raises(SerializationError, match=r'python -c "import secrets; print\(secrets.token_hex\(32\)\)"'):
        signing_key(text, None)


def test_a_database_in_memory_has_the_key_of_its_process():
    other = subprocess.run(
        [sys.executable, "-c", "from liteflow.codec import signing_key; print(signing_key(None, None).hex())"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert signing_key(None, None) == signing_key(None, None)
    assert len(signing_key(None, None)) == 32
    assert other.stdout.strip() != signing_key(None, None).hex()


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path):
    file = tmp_path / "a.db.key"

    key = signing_key(None, file)

    assert signing_key(None, file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(key) == 32
    assert signing_key(None, tmp_path / "b.db.key") != key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db.key", "b.db.key"]


def test_all_that_make_the_key_file_at_once_end_with_one_key(tmp_path):
    for n in range(20):
        barrier = threading.Barrier(8)

        def make(_: int, file: Path = tmp_path / f"{n}.key", barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait()
            return signing_key(None, file)

        with ThreadPoolExecutor(8) as pool:
            assert len({*pool.map(make, range(8))}) == 1

    assert len([*tmp_path.iterdir()]) == 20


def test_one_who_loses_the_race_takes_the_key_of_the_winner(tmp_path, monkeypatch):
    file, link = tmp_path / "a.key", os.link
    winner: list[bytes] = []

    def late(*names: object, **how: object) -> None:
        monkeypatch.setattr(os, "link", link)
        winner.append(signing_key(None, file))
        link(*names, **how)  # type: ignore[arg-type] # whatever pathlib gives

    monkeypatch.setattr(os, "link", late)

    assert signing_key(None, file) == winner[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o666])
def test_a_key_file_that_others_can_open_is_refused_with_the_cure(tmp_path, mode):
    file = tmp_path / "a.key"
    signing_key(None, file)
    file.chmod(mode)

    with pytest.raises(SerializationError, match=f"chmod 600 {file}"):
        signing_key(None, file)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a" * 63 + b"\n", b"a" * 64, b"A" * 64 + b"\n", b"a" * 64 + b"\nb", b"\xff" * 65, b"a" * 200]
)
def test_a_damaged_key_file_is_refused_and_kept(tmp_path, content):
    file = tmp_path / "a.key"
    file.write_bytes(content)
    file.chmod(0o600)

    with pytest.raises(SerializationError, match="is damaged|is empty"):
        signing_key(None, file)

    assert file.read_bytes() == content


def test_a_key_file_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    for file in (tmp_path / "nowhere" / "a.key", tmp_path):
        with pytest.raises(SerializationError, match="set LITEFLOW_SECRET_KEY instead"):
            signing_key(None, file)


def test_a_disk_that_fails_leaves_no_draft_behind(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)

    with pytest.raises(SerializationError, match="No space left on device"):
        signing_key(None, tmp_path / "a.key")

    assert [*tmp_path.iterdir()] == []
