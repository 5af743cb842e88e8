"""The root of the command line: its options, and how errors are told."""

from __future__ import annotations

from typing import Any

import click

from liteflow.cli.db import db
from liteflow.cli.doctor import doctor
from liteflow.errors import LiteFlowError


class _Told(click.Group):
    """A group whose errors of ours are one line, and exit with 1."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LiteFlowError as error:
            raise click.ClickException(f"[{error.code}] {error}") from error


@click.group(cls=_Told, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="liteflow", prog_name="liteflow")
def main() -> None:
    """Look after the store of your durable flows.

    The store is the one of --store, else of the environment variable LITEFLOW_STORE, else sqlite:///liteflow.db.
    """


main.add_command(doctor)
main.add_command(db)
