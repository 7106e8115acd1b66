"""The command line; composes the rooms and holds no logic."""

from distreal_dse.cli._app import main

__all__ = ["main"]
