"""Options that commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from liteflow.store.database import Database

store_option = click.option(
    "--store", envvar="LITEFLOW_STORE", default="sqlite:///liteflow.db", show_default=True, help="SQLAlchemy URL of the store."
)


def existing(store: str, *, read_only: bool) -> Database:
    """Return a store that exists, whatever its schema; it is closed when the command ends."""
    from liteflow.store.database import Database  # noqa: PLC0415 - brings SQLAlchemy, which --help does not need

    database = Database(store)
    click.get_current_context().call_on_close(database.dispose)
    database.connect(must_exist=True, read_only=read_only)
    return database
