"""Who works on what is in a database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from distreal_dse.fronts.leases import Work


def status(storage: str | os.PathLike[str] | None = None) -> list[Work]:
    """Return who works on what, since when: on searches, then on federated runs.

    Parameters
    ----------
    storage
        As for `distreal_dse.optimize`.

    Raises
    ------
    StorageError
        If there is no such database, or it can't be read.
    """
    from distreal_dse.fronts import open_database
    from distreal_dse.support.installation import full_installation
    from fl.store.work import runs_under_way

    with full_installation("the state of searches"):
        from distreal_dse.search import searches_under_way
    engine = open_database(storage_url(storage), create=False)
    try:
        return [*searches_under_way(engine), *runs_under_way(engine)]
    finally:
        engine.dispose()
