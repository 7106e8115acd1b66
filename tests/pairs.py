"""Pairwise testing: few combinations of many parameters."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any


def all_pairs(*factors: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Combinations of a value of each factor that hold every pair of values of two factors.

    Most mistakes show in one value or in two together (Kuhn, Wallace, Gallo, "Software fault
    interactions and implications for software testing", 2004). It takes what holds most pairs that
    are still missing, in the order of the full product, until none is missing.
    """
    left = [(row, set(combinations(enumerate(row), 2))) for row in product(*factors)]
    missing = set[Any]().union(*(pairs for _, pairs in left))
    taken = []
    while missing:
        row, pairs = max(left, key=lambda one: len(one[1] & missing))
        taken.append(row)
        missing -= pairs
    return taken
