"""One small network for all: the baseline that training parts of a large one has to beat.

References
----------
Pfeiffer, Rapp, Khalili, Henkel: CoCoFL, TMLR 2023, and Pfeiffer, Khalili, Henkel: Aggregating
capacity in FL through successive layer training, NeurIPS 2023 (both compare with a network small
enough for every device, and find it hard to beat).

He, Zhang, Ren, Sun: Delving deep into rectifiers, ICCV 2015, section 2.2 (variance of initial
weights over the number of inputs).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from distreal_dse.dropout import DroppableNetwork, KeptCounts, extracted, make_policy
from distreal_dse.errors import InputError
from distreal_dse.support.specs import number
from fl.strategies.base import Strategy, Vector
from fl.strategies.context import StrategyContext
from fl.strategies.setting import Setting


def check_share(share: float) -> None:
    """Refuse a share of the full cost that is none.

    Raises
    ------
    InputError
        If it lies outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share of strategy small: expected above 0 and at most 1, found {share}")


class Small(Strategy):
    """The largest network of one width for all layers that the slowest device can afford.

    It is a network of its own and not a part of the full one: it is what the run evaluates, too.
    Every device trains all of it, so plain averaging is element-wise averaging.

    Parameters
    ----------
    context
        What is known of the run.
    share
        Cost of the network over that of the full one, in (0, 1]; None for what the slowest device
        affords. With more, slow devices miss deadlines, and what all others train is larger.

    Raises
    ------
    InputError
        If the share is out of range.
    """

    name = "small"
    settings = {"share": Setting(number, check_share)}
    chosen = "per round"
    masks = "ordered"  # nothing is dropped

    def __init__(self, context: StrategyContext, share: float | None = None) -> None:
        super().__init__(context)
        if share is not None:
            check_share(share)
        budget = context.weakest_budget if share is None else share * context.full.cost
        self._vector = context.largest_within(budget)

    def network(self, full: DroppableNetwork) -> DroppableNetwork:
        """Return the small network, initialised by `small_copy`."""
        if self._vector.kept_counts == full.full_counts:
            return full
        small = DroppableNetwork(
            small_copy(full, self._vector.kept_counts), full.example, full.scaling
        )
        # Its counts may be of other groups: a depthwise convolution of one channel is an
        # ordinary one.
        self._vector = Vector(small.full_counts, self._vector.cost)
        return small

    def pick(self, budget: float) -> Vector:
        """Return all of the small network."""
        return self._vector


@torch.no_grad()
def small_copy(full: DroppableNetwork, counts: KeptCounts) -> nn.Module:
    """Build a network of the first filters of each group, independent of the full one.

    Initial weights are drawn with a variance of 1 / inputs, as PyTorch's defaults and He's rule
    for the forward pass do. So the weights of a layer are those of the full network times
    √(inputs of the full layer / kept inputs): then they spread as if they had been initialised for
    this width. Biases and normalisations are taken as they are.

    Parameters
    ----------
    full
        The full network, untrained; not changed.
    counts
        Filters to keep of each group.
    """
    channels, module = full.channels, extracted(full, counts)
    mask = make_policy("ordered").draw(channels.widths, counts, torch.Generator())
    kept = torch.cat([mask, mask.new_ones(1)])
    for layer in channels.layers:
        inputs = torch.from_numpy(layer.inputs)
        wider = len(inputs) / int(kept[inputs].sum())
        module.get_submodule(layer.name).get_parameter("weight").mul_(math.sqrt(wider))
    return module
