"""Mask policies: which filters are kept for given kept counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

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
        keys = torch.rand(sum(widths), generator=generator)
        kept = torch.zeros(len(keys), dtype=torch.bool)
        start = 0
        for width, count in zip(widths, counts, strict=True):
            group = slice(start, start + width)
            if count == width:
                kept[group] = True
            else:
                kept[start + torch.topk(keys[group], count, sorted=False).indices] = True
            start += width
        return kept
