"""Optuna's tables, which lie in one database with ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from distreal_dse.errors import StorageError
from distreal_dse.fronts import (
    ConnectionLostError,
    engine_options,
    explained,
    is_connection_lost,
    make_tables,
    normalise_url,
    said_by_driver,
)

# Optuna writes it when all of its tables are there.
LAST_TABLE = "alembic_version"


def open_trials(url: str) -> RDBStorage:
    """Open Optuna's part of a database; to be closed with `close_trials`.

    Any number of processes may open a database without Optuna's tables at the same time: Optuna
    makes them in several steps, and of two that make them at once one fails.

    Parameters
    ----------
    url
        The database.

    Raises
    ------
    InputError
        If the URL is none.
    StorageError
        If the database can't be used, or is of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    normalised = normalise_url(url)

    def make(options: dict[str, Any]) -> None:
        close_trials(RDBStorage(normalised, engine_kwargs=options))

    with plain_errors("Optuna's tables in the storage"):
        make_tables(url, LAST_TABLE, make)
        try:
            return RDBStorage(normalised, engine_kwargs=engine_options(url))
        except RuntimeError as error:  # Optuna's, where versions differ; it says what to do
            raise StorageError(f"Optuna's tables in the storage: {error}") from error


def close_trials(storage: RDBStorage) -> None:
    """Give its connections back."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def plain_errors(what: str, then: str = "") -> Iterator[None]:
    """Turn errors of Optuna's storage into ours.

    Parameters
    ----------
    what
        What failed.
    then
        What else to do, or to know.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        own = error.__cause__ if isinstance(error, StorageInternalError) else None
        cause = own or error
        if isinstance(cause, SQLAlchemyError) and is_connection_lost(cause):
            raise ConnectionLostError(what, said_by_driver(cause)) from error
        raise StorageError(f"{what}: {explained(cause)}{then}") from error
