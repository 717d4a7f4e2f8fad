"""The command line: ``explain run | methods | compare | report | replay``."""

from explain.cli.commands import app

__all__ = ["app"]
