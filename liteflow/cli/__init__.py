"""The command line: `liteflow …`, one file a command group."""

from liteflow.cli.main import main

__all__ = ["main"]
