"""The lookup table: what a device asks, before each mini-batch, what it can afford."""

from __future__ import annotations

from bisect import bisect_right

from distreal_dse.errors import FrontError
from distreal_dse.fronts._front import Front
from distreal_dse.fronts._memory_text import memory_text, read_memory
from distreal_dse.fronts._table import TableVector, table_of


class BudgetTooSmallError(FrontError):
    """A budget below the cost of the cheapest vector of the front."""


class MemoryTooSmallError(FrontError):
    """A limit of memory below what every vector of the front needs."""


class LookupTable:
    """The vectors of a front by cost: budget → the dearest that fits.

    Parameters
    ----------
    front
        The front to look up in: its points and, where it has a table, the vectors between them, so
        that hardly any of a budget stays unused.
    memory
        What a training step may take: bytes, or text such as ``"64MB"``. Vectors that need more are
        left out. None for no limit.

    Raises
    ------
    FrontError
        If the front's table is none of its network, or it doesn't tell what its vectors need of
        memory where that is limited.
    MemoryTooSmallError
        If no vector fits into the memory.
    InputError
        If ``memory`` can't be read.
    """

    def __init__(self, front: Front, memory: float | str | None = None) -> None:
        self.front = front
        self.vectors = table_of(front)
        self._limit = ""
        if memory is not None:
            limit = read_memory(memory)
            self.vectors = _fitting(front, self.vectors, limit)
            self._limit = f" within {memory_text(limit)} of memory"
        self.cheapest = self.vectors[0]
        # A plain list: bisect takes 0.1 µs on it; numpy would take ten times as long.
        self._costs = [vector.cost for vector in self.vectors]

    def pick(self, budget: float) -> TableVector:
        """Return the best vector with cost ≤ budget.

        Parameters
        ----------
        budget
            What the device may spend on the mini-batch at hand, in the front's cost unit.

        Raises
        ------
        BudgetTooSmallError
            Where not even the cheapest vector fits, or the budget is NaN.
        """
        if budget >= self.cheapest.cost:
            return self.vectors[bisect_right(self._costs, budget) - 1]
        unit = self.front.cost_unit
        raise BudgetTooSmallError(
            f"budget {budget:g} {unit} is too small for front {self.front.label}: expected at "
            f"least {self.cheapest.cost:g} {unit}, the cost of its cheapest vector{self._limit}; "
            f"raise the budget or skip the mini-batch"
        )

    def pick_or_cheapest(self, budget: float) -> TableVector:
        """Return the best vector with cost ≤ budget, or the cheapest where none fits."""
        if budget >= self.cheapest.cost:
            return self.vectors[bisect_right(self._costs, budget) - 1]
        return self.cheapest


def _fitting(front: Front, vectors: tuple[TableVector, ...], limit: int) -> tuple[TableVector, ...]:
    """The vectors that need no more memory than the limit; at least one."""
    needs = [one.memory for one in vectors if one.memory is not None]
    if len(needs) < len(vectors):
        raise FrontError(
            f"front {front.label}: expected what each vector needs of memory, found none for "
            f"{len(vectors) - len(needs)} of {len(vectors)}; run its search again with the same "
            "storage, which trains nothing anew, or look up without a limit of memory"
        )
    fitting = tuple(one for one in vectors if one.memory is not None and one.memory <= limit)
    if not fitting:
        raise MemoryTooSmallError(
            f"memory {memory_text(limit)} is too small for front {front.label}: expected at least "
            f"{memory_text(min(needs))}, what a step of its smallest vector takes; give it more, "
            "search with a smaller batch_size in the study, or leave the device out"
        )
    return fitting
