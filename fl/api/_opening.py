"""The database that a call works on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from distreal_dse.fronts import open_database
from distreal_dse.support.storage import storage_url


@contextmanager
def opened(storage: str | os.PathLike[str] | None) -> Iterator[Engine]:
    """Open a database for as long as a call takes; see `fl.run` for ``storage``."""
    engine = open_database(storage_url(storage))
    try:
        yield engine
    finally:
        engine.dispose()
