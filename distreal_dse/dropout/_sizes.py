"""Size attributes of layers: what a layer says of its channels beside the shapes of its tensors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.dropout._operations import BATCH_NORMS, CONVOLUTIONS


def adopt_sizes(
    network: nn.Module, channels: ChannelMap, share_of_unit: npt.NDArray[np.float64]
) -> None:
    """Make the size attributes of a sub-network's layers agree with their smaller tensors.

    Parameters
    ----------
    network
        A copy of the full network with tensors of the new sizes; its attributes are changed.
    channels
        The channel map of the full network.
    share_of_unit
        The share of kept units in the group of each unit, and 1 for what is fixed, shape [U+1].
    """
    for module in network.modules():
        _adopt_from_tensors(module)
    for norm in channels.norms:
        layer, kept = network.get_submodule(norm.name), round(share_of_unit[norm.units].sum())
        if isinstance(layer, nn.GroupNorm):
            if norm.groups is None:  # whole norm groups are dropped
                layer.num_groups = kept * layer.num_groups // layer.num_channels
            layer.num_channels = kept
        elif isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = (kept,)
        else:
            layer.num_features = kept


def _adopt_from_tensors(module: nn.Module) -> None:
    if isinstance(module, CONVOLUTIONS):
        multiplier = module.out_channels // module.in_channels
        depthwise = module.groups == module.in_channels > 1
        module.out_channels = module.weight.shape[0]
        if depthwise:
            module.groups = module.out_channels // multiplier
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, BATCH_NORMS):
        for tensor in (module.weight, module.running_mean):
            if isinstance(tensor, Tensor):
                module.num_features = len(tensor)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
