"""Mask policies: which filters are kept for given kept counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distreal_dse.dropout._channels import Units
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.errors import InputError

Floats = npt.NDArray[np.float64]

ORDERS = ("random", "fixed", "rolling")
ROUND = "round"
"""The redraw period that lasts as long as a round."""


class MaskPolicy(ABC):
    """Decides which filters a mini-batch keeps.

    A policy may have state that lasts for a round. Whoever trains takes a deep copy for each local
    training (or a new policy), and calls ``start_round`` before its first mini-batch.
    """

    @property
    def spec(self) -> str:
        """Text that names the policy and its settings: equal text, equal masks.

        It is kept with searches and fronts. The text of a policy that a package offers as a plug-in
        begins with the name of the entry point, and `make_policy` makes an equal policy of it.
        """
        return type(self).__name__

    @property
    def stays_for_a_round(self) -> bool:
        """Whether equal counts keep the same filters from one ``start_round`` to the next."""
        return False

    def start_round(self, number: int) -> None:  # noqa: B027 (most policies have no use for it)
        """Forget what lasted for the round before.

        A round is one local training of one device; a short run of a search is one, too.

        Parameters
        ----------
        number
            Of the round, ≥ 0. In federated training that of the server's round, the same on all
            devices; in a short run that of the replicate.
        """

    @abstractmethod
    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        """Choose the filters to keep.

        It is called once per mini-batch that drops anything, after the vector was picked and before
        the sub-network is filled. It must take the same amount of randomness from the generator
        whatever the counts are, so that vectors can be compared under common random numbers.

        Parameters
        ----------
        widths
            Units of each channel group.
        counts
            Units to keep of each group, 1 … width.
        generator
            The only source of randomness, on the CPU.

        Returns
        -------
        Tensor
            Boolean, shape [sum(widths)], true for kept units; ``counts`` of them per group.
        """


class ComposedMasks(MaskPolicy):
    """Masks as prefixes of an order of the units, composed of four choices.

    The policy holds an order of all units of each group. A mini-batch keeps the fixed core and then
    as many units of the order as its counts ask for. So as long as the order lasts, the masks of
    different counts are nested, and a device whose budget changes keeps more or fewer units of the
    same order.

    Parameters
    ----------
    order
        ``"random"``: a permutation, drawn anew in each redraw period. ``"fixed"``: by index.
        ``"rolling"``: by index, beginning one place further in each round and wrapping around
        (unit ``round mod width`` of a group comes first).
    blocks
        0 orders the units of each group on their own. B ≥ 2 orders B blocks, in the same way in all
        groups: block *b* of a group of C units is units ``⌊b·C/B⌋ … ⌊(b+1)·C/B⌋ − 1``, in this
        order. With the rolling order it is then the blocks that move on.
    core
        Share in [0, 1) of the kept count: its first ``round(core · count)`` units are always kept,
        and the order fills up the rest.
    redraw
        Mini-batches that a random order lasts, ≥ 1, or ``"round"``. Only mini-batches that drop
        anything count.

    Raises
    ------
    InputError
        If a choice is none of these, or has no effect together with the others.
    """

    def __init__(
        self, order: str = "random", blocks: int = 0, core: float = 0.0, redraw: int | str = 1
    ) -> None:
        _expect(order in ORDERS, "order", " or ".join(ORDERS), order)
        some = isinstance(blocks, Integral) and (blocks == 0 or blocks >= 2)
        _expect(some, "blocks", "a whole number, 2 or more, or 0 for none", blocks)
        share = isinstance(core, Real) and 0 <= core < 1
        _expect(share, "core", "0 ≤ share < 1 (a core of 1 is the policy 'ordered')", core)
        lasts_a_while = redraw == ROUND or (isinstance(redraw, Integral) and redraw >= 1)
        _expect(lasts_a_while, "redraw", f"1 or more mini-batches, whole ones, or {ROUND}", redraw)
        if order == "fixed":
            _expect(not (blocks or core), "order", "random or rolling with blocks or core", order)
        if order != "random":
            _expect(redraw == 1, "order", "random where there is something to redraw", order)
        self._rule, self._blocks, self._core, self._redraw = order, blocks, float(core), redraw
        # Mini-batches left are counted down to 0, so that -1 lasts until the next round.
        drawn = order == "random" and not isinstance(redraw, str)
        self._period = int(redraw) if drawn else -1
        self.start_round(0)

    @property
    def spec(self) -> str:
        """The shortest text that `make_policy` makes an equal policy of."""
        settings = []
        if self._blocks:
            settings.append(f"blocks={self._blocks}")
        if self._core:
            settings.append(f"core={self._core!r}")
        if self._rule == "fixed":
            name = "ordered"
        elif self._rule == "rolling":
            name = "rolling"
        elif settings:
            name = "blocks" if self._blocks else "core"
        else:
            name = "random-round" if self._redraw == ROUND else "random"
        if self._redraw != 1 and name != "random-round":
            settings.append(f"redraw={self._redraw}")
        return name + (":" if settings else "") + ",".join(settings)

    @property
    def stays_for_a_round(self) -> bool:
        """True but where a random order is drawn anew within the round."""
        return self._period < 0

    def start_round(self, number: int) -> None:
        """Let the window of the rolling order move on, and a random one be drawn anew."""
        self._round = number
        self._order: Units | None = None
        self._ordered: tuple[int, ...] = ()
        self._left = 0

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        """Keep the core and the first units of the order.

        A random order takes one number per unit (per block) from the generator when it is redrawn,
        and nothing else does.
        """
        widths = tuple(widths)
        if self._order is None or not self._left or self._ordered != widths:
            self._order, self._ordered = self._new_order(widths, generator), widths
            self._left = self._period
        self._left -= 1
        order = self._order
        if not self._core:
            kept = np.zeros(len(order), dtype=np.bool_)
            kept[order[_first(widths, counts)]] = True
        else:
            core, first = _core_and_first(widths, counts, self._core)
            kept = core.copy()
            kept[order[~core[order]][first]] = True
        return torch.from_numpy(kept)

    def _new_order(self, widths: tuple[int, ...], generator: torch.Generator) -> Units:
        """Units of the first group in their order, then those of the second, and so on."""
        if self._rule == "fixed":
            return np.arange(sum(widths))
        group, place, length = _places(widths, self._blocks)
        # Keys differ by less than one, so whole numbers keep the groups apart, and one sort orders
        # each of them on its own. Units of one block have one key and stay in the order of indices.
        if self._rule == "rolling":
            keys = group + (place - self._round) % length / length
        else:
            draws = torch.rand(self._blocks or len(group), generator=generator).numpy()
            keys = group - (draws[place] if self._blocks else draws)
        # NumPy sorts several times as fast as PyTorch does on the CPU.
        return keys.argsort(kind="stable" if self._blocks else "quicksort")


class RandomMasks(ComposedMasks):
    """A new uniform draw per mini-batch, independent in every group.

    References
    ----------
    Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
    """

    def __init__(self) -> None:
        super().__init__()


def _expect(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise InputError(f"{name} of a mask policy: expected {expected}, found {found}")


@lru_cache(maxsize=64)
def _places(widths: tuple[int, ...], blocks: int) -> tuple[Floats, Units, Units]:
    """Of each unit: its group; its place (or block) in the group; how many of them there are."""
    group = np.repeat(np.arange(len(widths)), widths)
    place = np.concatenate([np.arange(width) for width in widths])
    length = np.array(widths)[group]
    if blocks:
        # Block b begins at unit ⌊b·C/B⌋, so unit u is in the last block with ⌊b·C/B⌋ ≤ u.
        place = ((place + 1) * blocks - 1) // length
        length = np.full_like(length, blocks)
    # Double, because single precision would round small keys off beside a large number.
    return group.astype(np.float64), place, length


@lru_cache(maxsize=256)
def _first(widths: tuple[int, ...], counts: KeptCounts) -> Units:
    """Places in the order of the first ``count`` units of each group."""
    starts = np.cumsum([0, *widths[:-1]]).tolist()
    return np.concatenate(
        [np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
    )


@lru_cache(maxsize=256)
def _core_and_first(
    widths: tuple[int, ...], counts: KeptCounts, share: float
) -> tuple[npt.NDArray[np.bool_], Units]:
    """The mask of the core, and the places of what is kept beside it in the order without it."""
    cores = [round(share * count) for count in counts]
    core = np.concatenate([np.arange(width) < n for width, n in zip(widths, cores, strict=True)])
    left = tuple(width - n for width, n in zip(widths, cores, strict=True))
    rest = tuple(count - n for count, n in zip(counts, cores, strict=True))
    return core, _first(left, rest)
