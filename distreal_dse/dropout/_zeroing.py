"""The oracle for sub-networks: the full network in which dropped channels are zeroed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.dropout._policies import RandomMasks
from distreal_dse.dropout._subnetwork import SubNetwork
from distreal_dse.dropout._tracing import CONVOLUTIONS
from distreal_dse.errors import UnsupportedModelError

ORDINARY_DROPOUTS = (
    functional.alpha_dropout, functional.dropout, functional.dropout1d, functional.dropout2d,
    functional.dropout3d, functional.feature_alpha_dropout, torch.dropout,
)  # fmt: skip


def zero_dropped(
    module: nn.Module, channels: ChannelMap, mask: Tensor, scaling: str = "inverted"
) -> list[torch.utils.hooks.RemovableHandle]:
    """Make the full network compute what the sub-network of ``mask`` does, by zeroing.

    The inputs of every layer are multiplied by zero where their channel is dropped, and by
    width ÷ kept of its group (``"inverted"`` scaling) elsewhere. Slow, and the oracle for
    `SubNetwork`.

    Parameters
    ----------
    mask
        Boolean, shape [units], true for kept units.

    Returns
    -------
    list
        Handles whose ``remove()`` ends the zeroing.
    """
    group_of = torch.from_numpy(channels.group_of_unit())
    kept = torch.cat([mask, mask.new_ones(1)]).double()
    share = torch.zeros(len(channels.groups) + 1, dtype=torch.double)
    share.index_add_(0, group_of, kept)
    share /= torch.tensor([*channels.widths, 1])
    factors = kept / share[group_of] if scaling == "inverted" else kept
    handles = []
    for layer in channels.layers:
        target = module.get_submodule(layer.name)
        groups = target.groups if isinstance(target, CONVOLUTIONS) else 1
        trailing = [1] * len(target.kernel_size) if isinstance(target, CONVOLUTIONS) else []
        factor = factors[torch.from_numpy(layer.inputs)].repeat(groups).reshape(-1, *trailing)

        def multiply(
            _: nn.Module, inputs: tuple[Tensor, ...], factor: Tensor = factor
        ) -> tuple[Tensor, ...]:
            return (inputs[0] * factor.to(inputs[0]), *inputs[1:])

        handles.append(target.register_forward_pre_hook(multiply))
    return handles


def check_dropping_equals_zeroing(
    module: nn.Module, channels: ChannelMap, example: Tensor, scaling: str = "inverted"
) -> None:
    """Compare a sub-network of about half the filters with the zeroed full network.

    Outputs are compared in double precision, in training mode (batch normalisation by the
    statistics of the batch) but without ordinary dropout.

    Raises
    ------
    UnsupportedModelError
        If the sub-network does not run or its outputs differ.
    """
    full = copy.deepcopy(module).double().train()
    counts = tuple(max(1, width // 2) for width in channels.widths)
    mask = RandomMasks().draw(channels.widths, counts, torch.Generator().manual_seed(0))
    inputs = torch.randn(
        example.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double
    ).to(example.device)
    small = SubNetwork(full, channels, counts, scaling)
    small.load(small.select(mask))
    with torch.no_grad(), _NoOrdinaryDropout():
        try:
            dropped = _tensors(small.module(inputs))
        except Exception as error:  # the user's forward() may raise anything
            raise UnsupportedModelError(
                f"model {type(module).__name__} does not run with half of its filters: {error}; "
                "is a channel count hard-coded in its forward()?"
            ) from error
        zero_dropped(full, channels, mask, scaling)
        zeroed = _tensors(full(inputs))
    for one, other in zip(dropped, zeroed, strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-6, atol=1e-8):
            raise UnsupportedModelError(
                f"model {type(module).__name__}: dropping filters does not equal zeroing them; "
                "does an operation mix channels in a way that tracing can't see?"
            )


class _NoOrdinaryDropout(TorchFunctionMode):
    """Makes ordinary dropout pass its input on: networks of other size would draw differently."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in ORDINARY_DROPOUTS:
            return args[0] if args else kwargs["input"]
        return function(*args, **kwargs)


def _tensors(outputs: Any) -> list[Tensor]:
    """All tensors of a network's output, whatever it is wrapped in."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [tensor for part in parts if part is not None for tensor in _tensors(part)]
