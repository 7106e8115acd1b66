"""What is installed: all of it, or the light distribution for devices.

Both have the same modules. The light one requires none of `LEFT_OUT`, which searches, pictures and
comparisons use, and most shipped studies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from distreal_dse.errors import DistrealError

FULL, LIGHT = "distreal-dse", "distreal-dse-light"
"""Names of the distributions."""

LEFT_OUT = (
    "greenlet",
    "optuna",
    "optuna_dashboard",
    "plotly",
    "scipy",
    "sklearn",
    "torchvision",
)
"""Packages, as they are imported, that devices do without."""


class LightInstallationError(DistrealError):
    """Something that the light distribution can't do."""


def distribution() -> str:
    """Name of the distribution that is installed; the full one where nobody knows."""
    for name in (FULL, LIGHT):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return FULL


def version() -> str:
    """Version of what is installed.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If nothing is, as in a copy of the source that nobody installed.
    """
    return metadata.version(distribution())


@contextmanager
def full_installation(what: str) -> Iterator[None]:
    """Say what to install where a package is missing that devices do without.

    Parameters
    ----------
    what
        What needs it, such as ``"a search"``.

    Raises
    ------
    LightInstallationError
        In place of the error of such an import.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in LEFT_OUT:
            raise
        raise LightInstallationError(
            f"{what} needs the package {package}: expected all of {FULL}, found an installation "
            f"without it; pip install {FULL}"
        ) from error
