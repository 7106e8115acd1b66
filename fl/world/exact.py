"""Numbers as they were meant, so that virtual time is added up and compared without rounding.

Whether a device meets a deadline must not hang on the last bit of a sum. So times within a round
are fractions, and what people write as 0.7 or 1 / 3 counts as 7/10 or 1/3.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

Seconds: TypeAlias = Fraction | float
"""Virtual seconds: a fraction, or a float where they are infinite or were never more exact."""

BITS = 1024
"""Largest denominators of times, in bits."""

# The first one suffices for most numbers that people write, the last for measurements of 9 digits.
_LARGEST_DENOMINATORS = (10**3, 10**6, 10**9)


def exact(number: Seconds) -> Fraction:
    """Return the fraction that a finite number stands for.

    That is one with a small denominator which rounds to the float, such as 7/10 for 0.7, where
    there is one; else the float's own value. Fractions stay as they are.
    """
    return number if isinstance(number, Fraction) else _meant(number)


def bounded(seconds: Fraction) -> Fraction:
    """Return a time, rounded down to 1 / 2^`BITS` s where its denominator is larger than that.

    With random shares, denominators grow by up to a hundred bits for each mini-batch, and without
    end. What meets a deadline exactly has a small one: that of the slots.
    """
    if seconds.denominator.bit_length() <= BITS:
        return seconds
    return Fraction(math.floor(seconds * 2**BITS), 2**BITS)


@lru_cache(maxsize=4096)  # speeds, shares and costs come again and again
def _meant(number: float) -> Fraction:
    own = Fraction(number)
    for largest in _LARGEST_DENOMINATORS:
        simple = own.limit_denominator(largest)
        if float(simple) == number:
            return simple
    return own
