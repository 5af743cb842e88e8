"""`liteflow db`: the schema of a store."""

from __future__ import annotations

import click

from liteflow.cli.options import existing, store_option


@click.group()
def db() -> None:
    """See and upgrade the schema of a store."""


@db.command()
@store_option
def upgrade(store: str) -> None:
    """Bring the store to this version's schema, after a backup beside it."""
    from liteflow.store import schema  # noqa: PLC0415 - brings SQLAlchemy, which --help does not need

    database = existing(store, read_only=False)
    before = schema.current(database)
    kept = schema.bring_up(database)
    if before == schema.head():
        click.echo(f"{database.url_masked} has schema {before} already")
        return
    click.echo(f"{database.url_masked} upgraded from schema {before or 'none'} to {schema.head()}")
    if kept is not None:
        click.echo(f"as it was before: {kept}")


@db.command()
@store_option
def current(store: str) -> None:
    """Print the schema that the store has."""
    from liteflow.store import schema  # noqa: PLC0415 - as above

    click.echo(schema.current(existing(store, read_only=True)) or "none")


@db.command()
@store_option
def check(store: str) -> None:
    """Exit with 0 if the store has this version's schema, else say what to do and exit with 1."""
    from liteflow.store import schema  # noqa: PLC0415 - as above

    database = existing(store, read_only=True)
    schema.check(database)
    click.echo(f"{database.url_masked} has schema {schema.head()}, which is this version's")
