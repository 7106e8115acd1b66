"""Size attributes of layers: what a layer says of its channels beside the shapes of its tensors."""

from __future__ import annotations

from torch import Tensor, nn

from distreal_dse.dropout._tracing import BATCH_NORMS, CONVOLUTIONS


def adopt_sizes(module: nn.Module) -> None:
    """Make the size attributes of a layer agree with its new tensors."""
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
