from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path, PosixPath

import pytest

from liteflow import codec
from liteflow.codec import decode, encode, forms, register
from liteflow.errors import SerializationError
from tests.values import Money, Order, stored


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_REGISTERED", {})
    monkeypatch.setattr(forms, "_NAMED", {})


# -- register --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registry")
class TestRegister:
    def test_a_registered_class_is_stored_as_its_functions_say(self):
        register(Money, lambda money: (money.cents,), lambda stored: Money(*stored))

        text = encode({"price": [Money(3)]})

        assert decode(text) == {"price": [Money(3)]}
        assert json.loads(text)["price"][0]["value"] == {"$tuple": [3]}

    def test_a_subclass_of_a_registered_class_is_refused(self):
        register(Money, lambda money: money.cents, Money)

        with pytest.raises(SerializationError):
            encode(type("More", (Money,), {})(1))

    def test_a_registration_goes_before_what_liteflow_would_do(self):
        register(Order, lambda order: order.item, lambda item: Order(item, "registered"))

        assert decode(encode(Order("tea"))) == Order("tea", "registered")

    def test_an_earlier_name_stays_readable(self):
        register(Money, lambda money: money.cents, Money, name="money")
        old = encode(Money(1))
        register(Money, lambda money: money.cents, Money, name="coins")

        assert decode(old) == decode(encode(Money(1))) == Money(1)
        assert "coins" in encode(Money(1))

    def test_a_name_means_one_class(self):
        register(Money, lambda money: money.cents, Money, name="money")

        with pytest.raises(SerializationError, match="money is registered for"):
            register(Order, lambda order: order.item, Order, name="money")

    @pytest.mark.parametrize("cls", [dict, list, str, int, float, bool, type(None), tuple, datetime, PosixPath])
    def test_what_liteflow_stores_by_itself_cannot_be_registered(self, cls):
        with pytest.raises(SerializationError, match="cannot be registered"):
            register(cls, str, cls)

    def test_an_error_in_the_functions_is_an_error_of_ours_with_the_cause(self):
        register(Money, lambda money: money.cents / 0, lambda stored: 1 // stored)

        with pytest.raises(SerializationError, match="ZeroDivisionError") as caught:
            encode([Money(1)])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(SerializationError, match="ZeroDivisionError"):
            decode(stored(Money, "registered", 0))

    def test_functions_that_never_end_are_an_error_of_ours(self):
        register(Money, lambda money: money, lambda stored: stored)

        with pytest.raises(SerializationError, match="too deeply"):
            encode(Money(1))

    def test_one_who_did_not_register_the_class_is_told_to(self):
        with pytest.raises(SerializationError, match=r"liteflow\.register"):
            decode(stored(Money, "registered", 3))


# -- scripts ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import dataclasses, enum, sys
from liteflow.codec import decode, encode

@dataclasses.dataclass
class Order:
    total: int

class Outer:
    class Color(enum.Enum):
        RED = 1

if __name__ == "__main__":
    text = encode([Order(3), Outer.Color.RED])
    assert decode(text) == [Order(3), Outer.Color.RED]
    assert decode(sys.argv[1] if len(sys.argv) > 1 else text) == [Order(3), Outer.Color.RED]
    print(text)
"""


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": f"{folder}:{Path(codec.__file__).parents[2]}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "module"),
    [(["jobs/shop.py"], "shop"), (["-m", "jobs.shop"], "jobs.shop"), (["-m", "shop"], "shop")],
    ids=" ".join,
)
def test_a_class_of_a_script_is_stored_under_the_name_others_import_it_by(tmp_path, arguments, module):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "shop.py").write_text(SCRIPT)
    (tmp_path / "shop.py").write_text(SCRIPT)

    text = run(*arguments, folder=tmp_path)

    assert json.loads(text)[0]["$record"] == f"{module}:Order"
    assert run(*arguments, text, folder=tmp_path) == text
    reader = (
        f"import sys, {module} as m; from liteflow.codec import *; print(decode(sys.argv[1]) == [m.Order(3), m.Outer.Color.RED])"
    )
    assert run("-c", reader, text, folder=tmp_path) == "True"


def test_a_class_of_a_script_comes_back_in_its_child_processes(tmp_path):
    (tmp_path / "shop.py").write_text(
        SCRIPT.partition("if __name__")[0]
        + "import multiprocessing\n"
        + "def back(text): return encode(decode(text))\n"
        + "if __name__ == '__main__':\n"
        + "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        + "        text = encode(Order(3))\n"
        + "        print(text == pool.apply(back, [text]), text)\n"
    )

    assert run("shop.py", folder=tmp_path) == 'True {"$record":"shop:Order","value":{"total":3}}'


def test_a_module_that_was_loaded_twice_is_refused_and_not_confused(tmp_path):
    (tmp_path / "shop.py").write_text(
        SCRIPT.partition("if __name__")[0]
        + "if __name__ == '__main__':\n"
        + "    import shop\n"
        + "    assert type(decode(encode(Order(1)))) is Order\n"
        + "    try: encode(shop.Order(1))\n"
        + "    except TypeError as error: print(error)\n"
    )

    assert "loading its module twice" in run("shop.py", folder=tmp_path)


def test_neither_attrs_nor_pydantic_nor_numpy_is_imported_for_the_user(tmp_path):
    others = "{'attr', 'attrs', 'pydantic', 'numpy'}"
    code = f"import sys; from liteflow.codec import *; encode([(1,), {{1}}]); print({others} & {{*sys.modules}})"

    assert run("-c", code, folder=tmp_path) == "set()"
