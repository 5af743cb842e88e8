"""Values to text and back, exactly: what a flow stores, and what it reads again in any later process.

``text`` has the format, ``forms`` and ``arrays`` the types, ``names`` what their classes are called; ``sealing`` puts together
the codec of a flow, with what only some ask for: pickles, which ``signing`` protects, and a hook for encryption.
"""

from __future__ import annotations

from liteflow.codec.forms import register
from liteflow.codec.names import MAX_KEY_BYTES, check_key
from liteflow.codec.sealing import PLAIN, Codec, Transform, decode, encode
from liteflow.codec.signing import signing_key
from liteflow.codec.text import MAX_BYTES, MAX_DEPTH, Opaque

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_KEY_BYTES",
    "PLAIN",
    "Codec",
    "Opaque",
    "Transform",
    "check_key",
    "decode",
    "encode",
    "register",
    "signing_key",
]
