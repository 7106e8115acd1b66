"""Whether the Flower that this needs is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from distreal_dse.errors import InputError

LOWEST, ABOVE = "1.28", "2"
"""Flower from the first of these versions on, below the second."""


def require_flower() -> None:
    """Refuse to go on without a Flower that fits.

    Raises
    ------
    InputError
        If there is none, or one of another version.
    """
    try:
        found = version("flwr")
    except PackageNotFoundError:
        found = "none"
    if found == "none" or not Version(LOWEST) <= Version(found) < Version(ABOVE):
        raise InputError(
            f"training on Flower: expected the package flwr, {LOWEST} or newer and below {ABOVE}, "
            f"found {found}; install it with pip install 'distreal-dse[flower]'"
        )
