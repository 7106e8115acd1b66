"""Which database is meant where none is named."""

from __future__ import annotations

import os

DEFAULT_STORAGE = "sqlite:///distreal.db"
"""A file in the working folder."""

VARIABLES = ("DISTREAL_STORAGE", "OPTUNA_STORAGE")
"""Environment variables that name a database, the first that is set."""


def storage_url(given: str | os.PathLike[str] | None) -> str:
    """Return the URL of the database to use.

    Parameters
    ----------
    given
        A URL; a `pathlib.Path`, for an SQLite file; None for that of `VARIABLES`, else
        `DEFAULT_STORAGE`.
    """
    if isinstance(given, os.PathLike):
        return f"sqlite:///{os.fspath(given)}"
    named = next(filter(None, (os.environ.get(name) for name in VARIABLES)), None)
    return given or named or DEFAULT_STORAGE
