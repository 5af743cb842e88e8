"""Modules that take long to import, and that most flows do without: each is imported when something of it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import hmac
    import secrets
else:

    class _Lazy:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
            value = getattr(import_module(self._name), name)
            setattr(self, name, value)  # found without us from now on
            return value

    asyncio, hmac, secrets = _Lazy("asyncio"), _Lazy("hmac"), _Lazy("secrets")

__all__ = ["asyncio", "hmac", "secrets"]
