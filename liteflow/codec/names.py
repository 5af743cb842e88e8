"""What things are called in the store: keys, and the classes of values."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import PurePath
from types import ModuleType
from typing import Any

from liteflow.errors import InvalidKeyError

MAX_KEY_BYTES = 512  # what every database takes into an index
_SURROGATE = re.compile("[\ud800-\udfff]")
_stem = lru_cache(maxsize=8)(lambda file: PurePath(file).stem)


def check_key(key: object, kind: str = "Context key") -> str:
    """Return *key* if every database can hold it; raise `InvalidKeyError` with the cure if not."""
    if not isinstance(key, str):
        why = f"is of type {label(type(key))}; use a string"
    elif not key:
        why = "is empty; use at least one character"
    elif "\0" in key:
        why = "holds a NUL character; leave it out"
    elif not is_unicode(key):
        why = "holds half a surrogate pair; use characters that UTF-8 can write"
    elif (size := len(key.encode())) > MAX_KEY_BYTES:
        why = f"is {size} bytes long; use at most {MAX_KEY_BYTES}"
    else:
        return str.__str__(key)  # of a subclass, the characters alone
    raise InvalidKeyError(kind, key, why)


def is_unicode(text: str) -> bool:
    """Return whether UTF-8 can write *text*: it holds no half of a surrogate pair."""
    return text.isascii() or not _SURROGATE.search(text)


def label(cls: type) -> str:
    """Return what a class is called in an error."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def name_of(cls: type) -> str:
    """Return what a class is called in the store."""
    return f"{_importable(cls.__module__)}:{cls.__qualname__}"


def find(name: str) -> type | None:
    """Return the imported class of this name; look only into dictionaries, for attributes may import or compute."""
    module, _, qualname = name.partition(":")
    for place in ("__main__", module):
        found: Any = sys.modules.get(place)
        if _importable(place) == module and isinstance(found, ModuleType):
            names = ModuleType.__getattribute__(found, "__dict__")
            for part in qualname.split("."):
                found = names.get(part)
                names = type.__getattribute__(found, "__dict__") if isinstance(found, type) else {}
            if isinstance(found, type) and name_of(found) == name:
                return found
    return None


def _importable(module: str) -> str:
    """Return the name under which others import a module; for a script that is not ``__main__``."""
    if module not in {"__main__", "__mp_main__"}:  # the latter: the script in a child of multiprocessing
        return module
    main = sys.modules.get(module)
    name = getattr(getattr(main, "__spec__", None), "name", module)
    return _stem(getattr(main, "__file__", None) or module) if name in {"__main__", "__mp_main__"} else name
