"""Mask policies: which filters are kept for given kept counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from distreal_dse.dropout._vector import KeptCounts


class MaskPolicy(ABC):
    """Decides which filters a mini-batch keeps.

    ``draw`` is called once per mini-batch that drops anything, after the vector was picked and
    before the sub-network is filled. It must take the same amount of randomness from the generator
    whatever the counts are, so that vectors can be compared under common random numbers.
    """

    @abstractmethod
    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        """Choose the filters to keep.

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


class RandomMasks(MaskPolicy):
    """A new uniform draw per mini-batch, independent in every group.

    References
    ----------
    Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
    """

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        """Keep the first ``count`` units of a random permutation of each group.

        Two vectors with the same generator state get nested masks: less noise between them.
        """
        group_of, first = _layout(tuple(widths), counts)
        # Whole numbers keep the groups apart, so that one sort permutes each of them on its own.
        keys = torch.rand(len(group_of), generator=generator).double()
        kept = torch.zeros(len(group_of), dtype=torch.bool)
        kept[(group_of - keys).argsort()[first]] = True
        return kept


@lru_cache(maxsize=256)
def _layout(widths: tuple[int, ...], counts: KeptCounts) -> tuple[Tensor, Tensor]:
    """The group of each unit, and the places of the first ``count`` units of each group."""
    group_of = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
    starts = torch.tensor([0, *widths]).cumsum(0)[:-1].tolist()
    first = [torch.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
    return group_of, torch.cat(first)
