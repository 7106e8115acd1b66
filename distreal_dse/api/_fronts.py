"""Fronts from Python: loaded from a database or a file, and written to one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from distreal_dse.fronts import Front


def load_front(
    front: str | os.PathLike[str], storage: str | os.PathLike[str] | None = None
) -> Front:
    """Load a front.

    Parameters
    ----------
    front
        ``NAME`` for its newest version, ``NAME@VERSION``, or the path of a ``.json`` file.
    storage
        As for `distreal_dse.optimize`; not touched for a file.

    Raises
    ------
    FrontError
        If there is no such front, or it was changed.
    StorageError
        If the database can't be read.
    """
    from distreal_dse.fronts import find_front

    return find_front(storage_url(storage), os.fspath(front))


def save_front(front: Front, path: str | os.PathLike[str]) -> None:
    """Write a front to a ``.json`` file, to be used elsewhere: `load_front` reads it.

    Raises
    ------
    FrontError
        If it can't be written.
    """
    from distreal_dse.fronts import export_front

    export_front(front, path)
