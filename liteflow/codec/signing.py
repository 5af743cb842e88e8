"""Signatures of pickles, and the key for them: from the environment, from a file beside the database, or of this process.

Whoever can write to the database could run code where a pickle is read. The key is not in the database, and each signature
is for the one place where its pickle stands: nothing is unpickled that a flow with this key has not put there.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from liteflow.errors import SerializationError
from liteflow.lazily import hmac, secrets

if TYPE_CHECKING:
    from pathlib import Path

_LEAST = 16  # characters of a secret
_FOR_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_CONTENT = re.compile(rb"[0-9a-f]{64}\n")
_LONGEST = 100  # bytes to read of a key file; more than belongs there, so that one too long is seen
_MAKE_ONE = 'make one with: python -c "import secrets; print(secrets.token_hex(32))"'
_OF_THIS_PROCESS = os.urandom(32)


def signing_key(env: str | None, file: Path | None) -> bytes:
    """Return the key that signs the pickles of a flow, the same at every call.

    Args:
        env: the text of the environment variable LITEFLOW_SECRET_KEY, if it is set; it goes before the file.
        file: the key file, made if it is not there; with neither, the key is one that this process alone has.

    Raises:
        SerializationError: the text is too short, or the file is open to others, damaged or out of reach.
    """
    if env is not None:
        if len(env) < _LEAST:
            raise SerializationError(f"LITEFLOW_SECRET_KEY has {len(env)} characters, fewer than {_LEAST}; {_MAKE_ONE}")
        return env.encode("utf-8", "surrogateescape")
    if file is None:
        return _OF_THIS_PROCESS
    try:
        with suppress(FileNotFoundError):
            return _read(file)
        _create(file)
        return _read(file)
    except OSError as error:
        why = f"the key file {file} for pickles cannot be read or made: {error.strerror}"
        raise SerializationError(f"{why}; set LITEFLOW_SECRET_KEY instead, {_MAKE_ONE}") from error


def sign(key: bytes, place: str, data: bytes) -> str:
    """Return the signature of *data* for *place*; the length tells where one ends and the other begins."""
    where = place.encode("utf-8", "surrogatepass")
    mac = hmac.new(key, len(where).to_bytes(8, "big") + where, "sha256")
    mac.update(data)
    return mac.hexdigest()


def fits(signature: str, key: bytes, place: str, data: bytes) -> bool:
    """Return whether `sign` made this signature; how long it takes tells nobody how much of it is right."""
    return hmac.compare_digest(sign(key, place, data).encode(), signature.encode())


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_mode & _FOR_OTHERS:
            raise SerializationError(f"the key file {file} for pickles is open to others than its owner; chmod 600 {file}")
        content = opened.read(_LONGEST)
    if not _CONTENT.fullmatch(content):
        why = "is damaged" if content else "is empty"
        raise SerializationError(f"the key file {file} for pickles {why}; restore it, for without it no pickle can be read")
    return bytes.fromhex(content.decode())


def _create(file: Path) -> None:
    """Make the key file, whole from the start; of two processes that do so at once, both go on with the first one's."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:  # noqa: PTH123 - a descriptor
            opened.write(secrets.token_hex(32) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            file.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    _sync(file.parent)


def _sync(folder: Path) -> None:
    """Let the name of a new file outlast a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
