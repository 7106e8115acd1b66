"""A pull of parameters towards the values that they started from.

References
----------
Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated optimization in heterogeneous networks,
MLSys 2020, equation 2 (FedProx: the local objective plus μ/2 ‖w − w_t‖²).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.errors import InputError


class Proximal:
    """Adds the gradient of μ/2 ‖w − w_t‖², μ (w − w_t), to those of a mini-batch.

    A sub-network is pulled as far as it goes: dropped filters have no part in the mini-batch.

    Parameters
    ----------
    weight
        μ ≥ 0.
    start
        w_t: values of the full network by name, parameters among them; not changed.

    Raises
    ------
    InputError
        If the weight is out of range.
    """

    def __init__(self, weight: float, start: Mapping[str, Tensor]) -> None:
        check_proximal(weight)
        self._weight, self._start = weight, start

    @torch.no_grad()
    def add(self, module: nn.Module, mask: Tensor, channels: ChannelMap) -> None:
        """Add it to the gradients that there are.

        Parameters
        ----------
        module
            The full network, or the sub-network of the mask, after back-propagation.
        mask
            Units that it keeps, shape [units], on the CPU.
        channels
            Of the full network.
        """
        if not self._weight:
            return
        kept = torch.cat([mask, mask.new_ones(1)])
        for name, parameter in module.named_parameters():
            if parameter.grad is None:
                continue
            start = self._start[name].to(parameter.device)
            if start.shape != parameter.shape:
                for axis, units in enumerate(channels.axes.get(name, ())):
                    if units is not None:
                        places = kept[units].nonzero().flatten().to(parameter.device)
                        start = start.index_select(axis, places)
            parameter.grad.add_(parameter - start, alpha=self._weight)


def check_proximal(weight: float) -> None:
    """Refuse a weight of the proximal term that is none.

    Raises
    ------
    InputError
        If it is below 0 or not finite.
    """
    if not 0 <= weight < math.inf:
        raise InputError(
            "weight of the proximal term (prox): expected 0 or more, such as 0.01, found "
            f"{weight:g}"
        )
