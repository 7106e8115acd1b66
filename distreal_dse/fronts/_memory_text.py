"""Memory as people write it: bytes with a unit."""

from __future__ import annotations

import math
import re

from distreal_dse.errors import InputError

_UNITS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_TEXT = re.compile(r"([0-9]*\.?[0-9]+)\s*([a-z]*)", re.ASCII)
# What a column of the database holds.
_MOST = 2**63 - 1


def read_memory(memory: float | str, what: str = "--memory") -> int:
    """Read a number of bytes: ``64MB``, ``1.5GiB``, ``64000000``.

    MB are 10⁶ bytes, MiB 2²⁰; capitals don't matter.

    Parameters
    ----------
    memory
        The text, or a number of bytes.
    what
        Names it in the error.

    Raises
    ------
    InputError
        If it is no number of bytes, or less than one byte.
    """
    if isinstance(memory, str):
        found = _TEXT.fullmatch(memory.strip().lower())
        unit = _UNITS.get(found[2]) if found else None
        value = float(found[1]) * unit if found and unit else -1.0
    else:
        value = float(memory)
    if not (math.isfinite(value) and 1 <= value <= _MOST):
        raise InputError(f"{what} is {memory}: expected 1 byte or more, such as 64MB or 1.5GiB")
    return int(value)


def memory_text(memory: int | None) -> str:
    """Write bytes for people, ``27.4 MB``; a dash where they are not known."""
    if memory is None:
        return "—"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if memory >= size:
            return f"{memory / size:,.{0 if memory >= 100 * size else 1}f} {unit}"
    return f"{memory} B"
