"""What sub-networks follow of the full network beside its values, and when they can't any more.

Asked before every mini-batch, so each question is a few passes over lists, without a loop in
Python: microseconds beside a training step.
"""

from __future__ import annotations

import operator
from itertools import chain
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from distreal_dse.dropout._operations import LAYERS_WITH_CHANNELS

# Of layers with channels: what follows from the shapes of their tensors, and what is given once.
SIZES = frozenset({
    "affine", "elementwise_affine", "groups", "in_channels", "in_features", "kernel_size",
    "normalized_shape", "num_channels", "num_features", "num_groups", "num_parameters",
    "out_channels", "out_features", "output_padding", "padding_mode", "transposed",
})  # fmt: skip
PLAIN = (bool, int, float, str, type(None), FunctionType, BuiltinFunctionType)

_is_trained = operator.attrgetter("requires_grad")


class Structure:
    """The very layers, parameters and buffers that a network consists of.

    Parameters
    ----------
    network
        The network as it is now.
    """

    def __init__(self, network: nn.Module) -> None:
        self.modules = list(network.modules())
        self._holders: list[dict[str, Any]] = [
            holder
            for module in self.modules
            for holder in (module._parameters, module._buffers, module._modules)
            if holder
        ]
        self._objects = self._held()

    def is_current(self) -> bool:
        """Whether the network still consists of them."""
        held = self._held()
        return len(held) == len(self._objects) and all(map(operator.is_, held, self._objects))

    def _held(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._holders)))


class Settings:
    """What layers do beside their tensors, and which parameters are trained.

    Followed are attributes that hold plain values, such as the rate of an ordinary dropout.

    Parameters
    ----------
    network, copied
        The full network, and the sub-network that is to follow it.
    """

    def __init__(self, network: nn.Module, copied: nn.Module) -> None:
        self._modules = list(zip(network.modules(), copied.modules(), strict=True))
        followed = [
            (vars(module), vars(follower), name)
            for module, follower in self._modules
            for name, value in vars(module).items()
            if _is_plain(value) and not _is_fixed(module, name)
        ]
        self._full = [full for full, _, _ in followed]
        self._small = [small for _, small, _ in followed]
        self._names = [name for _, _, name in followed]
        self._values = self._found()
        self._parameters = list(network.parameters())
        self._followers = list(copied.parameters())
        self._trained = list(map(_is_trained, self._parameters))

    def follow(self) -> None:
        """Take over what has changed since the last time; and in any case the mode of layers."""
        for module, follower in self._modules:
            if follower.training != module.training:
                follower.training = module.training
        found = self._found()
        if not all(map(operator.is_, found, self._values)):
            changes = zip(self._small, self._names, found, self._values, strict=True)
            for small, name, value, known in changes:
                if value is not known and _is_plain(value):
                    small[name] = value
            self._values = found
        trained = list(map(_is_trained, self._parameters))
        if trained != self._trained:
            for parameter, flag in zip(self._followers, trained, strict=True):
                parameter.requires_grad_(flag)
            self._trained = trained

    def _found(self) -> list[Any]:
        return list(map(dict.get, self._full, self._names))


def _is_plain(value: object) -> bool:
    """Whether a value means the same in a copy of its layer."""
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, PLAIN)


def _is_fixed(module: nn.Module, name: str) -> bool:
    own = name.startswith("_") or name == "training"  # the mode is looked at on its own
    return own or (isinstance(module, LAYERS_WITH_CHANNELS) and name in SIZES)
