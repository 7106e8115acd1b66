"""The oracle for sub-networks: the full network in which dropped channels are zeroed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from distreal_dse.dropout._channels import ChannelMap, NormLayer
from distreal_dse.dropout._copying import copied
from distreal_dse.dropout._graph import device_indices
from distreal_dse.dropout._operations import CONVOLUTIONS
from distreal_dse.dropout._policies import RandomMasks
from distreal_dse.dropout._subnetwork import SubNetwork
from distreal_dse.errors import UnsupportedModelError, described

ORDINARY_DROPOUTS = (
    functional.alpha_dropout, functional.dropout, functional.dropout1d, functional.dropout2d,
    functional.dropout3d, functional.feature_alpha_dropout, torch.dropout,
)  # fmt: skip


def zero_dropped(
    module: nn.Module, channels: ChannelMap, mask: Tensor, scaling: str = "inverted"
) -> list[torch.utils.hooks.RemovableHandle]:
    """Make the full network compute what the sub-network of ``mask`` does, by zeroing.

    The inputs of every layer are multiplied by zero where their channel is dropped, and by
    width ÷ kept of its group (``"inverted"`` scaling) elsewhere. Norm layers that take statistics
    over several channels take them over the kept ones. Slow, and the oracle for `SubNetwork`.

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
    for norm in channels.norms:
        if norm.groups is not None:
            hook = _masked_norm(norm, kept[torch.from_numpy(norm.units)])
            handles.append(module.get_submodule(norm.name).register_forward_hook(hook))
    return handles


def _masked_norm(norm: NormLayer, kept: Tensor) -> Callable[..., Tensor]:
    """A hook that gives the output of ``norm`` with statistics over the kept channels.

    Written out from the definition (Ba et al., Layer Normalization, 2016; Wu & He, Group
    Normalization, 2018) and not by PyTorch's functions, which it is to be compared with.
    ``kept`` is 1 or 0 for each channel, shape [channels].
    """

    def normalize(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(layer, (nn.GroupNorm, nn.LayerNorm)) and norm.groups is not None
        values = inputs[0].movedim(norm.axis, 1).unflatten(1, (norm.groups, -1))
        weights = kept.to(values).reshape(norm.groups, -1, *[1] * (values.dim() - 3))
        # Layer normalisation has statistics of its own at every position.
        axes = list(range(2, values.dim())) if isinstance(layer, nn.GroupNorm) else [2]
        weights = weights.expand_as(values)
        count = weights.sum(axes, keepdim=True)
        centred = values - (weights * values).sum(axes, keepdim=True) / count
        variance = (weights * centred**2).sum(axes, keepdim=True) / count
        outputs: Tensor = (centred / torch.sqrt(variance + layer.eps)).flatten(1, 2)
        for tensor, apply in ((layer.weight, torch.mul), (layer.bias, torch.add)):
            if isinstance(tensor, Tensor):
                outputs = apply(outputs, tensor.reshape(-1, *[1] * (outputs.dim() - 2)))
        return outputs.movedim(1, norm.axis)

    return normalize


def check_dropping_equals_zeroing(
    module: nn.Module, channels: ChannelMap, example: Tensor, scaling: str = "inverted"
) -> None:
    """Compare a sub-network of about half the filters with the zeroed full network.

    Outputs are compared in double precision, in training mode (batch normalisation by the
    statistics of the batch) and in evaluation mode, without ordinary dropout. Biases and scales per
    channel get random values: initial ones are alike, and branches that begin with a scale of
    (almost) zero would not be checked at all.

    Raises
    ------
    UnsupportedModelError
        If the sub-network does not run or its outputs differ.
    """
    full = copied(module).double()
    _tell_channels_apart(full)
    counts = tuple(max(1, width // 2) for width in channels.widths)
    mask = RandomMasks().draw(channels.widths, counts, torch.Generator().manual_seed(0))
    inputs = torch.randn(
        example.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double
    ).to(example.device)
    small = SubNetwork(full, channels, counts, scaling)
    selected = small.select(mask)
    for training in (True, False):
        small.load(selected)
        try:
            dropped = _outputs(small.module.train(training), inputs)
        except UnsupportedModelError:
            raise
        except Exception as error:  # the user's forward() may raise anything
            raise UnsupportedModelError(
                f"model {type(module).__name__} does not run with half of its filters: "
                f"{described(error)}; is a channel count hard-coded in its forward()?"
            ) from error
        handles = zero_dropped(full, channels, mask, scaling)
        zeroed = _outputs(full.train(training), inputs)
        for handle in handles:
            handle.remove()
        if not zeroed:
            raise UnsupportedModelError(
                f"model {type(module).__name__} returns no tensor: expected the scores that it is "
                "trained by; return them from forward()"
            )
        for one, other in zip(dropped, zeroed, strict=True):
            if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-6, atol=1e-8):
                raise UnsupportedModelError(
                    f"model {type(module).__name__}: dropping filters does not equal zeroing them "
                    f"in {'training' if training else 'evaluation'} mode; does an operation mix "
                    "channels in a way that tracing can't see?"
                )


@torch.no_grad()
def _tell_channels_apart(module: nn.Module) -> None:
    """Draw the parameters that have at most one axis of more than one element."""
    draws = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        if sum(size > 1 for size in parameter.shape) <= 1:
            values = torch.rand(parameter.shape, generator=draws, dtype=torch.double)
            parameter.copy_(0.5 + values)


@torch.no_grad()
def _outputs(module: nn.Module, inputs: Tensor) -> list[Tensor]:
    """All outputs, with the same draws for every module (stochastic depth) but for dropout."""
    with torch.random.fork_rng(device_indices(inputs.device)), _NoOrdinaryDropout():
        torch.manual_seed(0)
        return _tensors(module(inputs), type(module).__name__)


class _NoOrdinaryDropout(TorchFunctionMode):
    """Makes ordinary dropout pass its input on: networks of other size would draw differently."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in ORDINARY_DROPOUTS:
            return args[0] if args else kwargs["input"]
        if function is functional.rrelu:  # which draws its slopes, too
            return functional.leaky_relu(args[0] if args else kwargs["input"])
        return function(*args, **kwargs)


def _tensors(outputs: Any, model: str) -> list[Tensor]:
    """All tensors of a network's output, whatever it is wrapped in; numbers and text are left out.

    Raises
    ------
    UnsupportedModelError
        If there may be others that can't be found.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, (Mapping, list, tuple)):
        parts = outputs.values() if isinstance(outputs, Mapping) else outputs
        return [tensor for part in parts for tensor in _tensors(part, model)]
    if outputs is None or isinstance(outputs, (int, float, str)):
        return []
    raise UnsupportedModelError(
        f"model {model} returns a {type(outputs).__name__}: expected a tensor, or a tuple, list or "
        "dictionary of tensors; return one of these from forward()"
    )
