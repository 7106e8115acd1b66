"""The layers and functions that tracing knows, by what they do with channels."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS_WITH_STATISTICS = (*BATCH_NORMS, *INSTANCE_NORMS)  # running ones, where asked for
LAYERS_WITH_CHANNELS = (
    *CONVOLUTIONS, *NORMS_WITH_STATISTICS, nn.GroupNorm, nn.LayerNorm, nn.Linear, nn.PReLU,
)  # fmt: skip

# Every element on its own (ordinary dropout: up to its own draw), whatever the axes are.
POINTWISE_MODULES = (
    nn.AlphaDropout, nn.CELU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ELU,
    nn.FeatureAlphaDropout, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU,
    nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    nn.Threshold,
)  # fmt: skip
POINTWISE_FUNCTIONS: frozenset[Any] = frozenset({
    functional.alpha_dropout, functional.celu, functional.dropout, functional.dropout1d,
    functional.dropout2d, functional.dropout3d, functional.elu, functional.feature_alpha_dropout,
    functional.gelu, functional.hardshrink, functional.hardsigmoid, functional.hardswish,
    functional.hardtanh, functional.leaky_relu, functional.logsigmoid, functional.mish,
    functional.relu, functional.relu6, functional.relu_, functional.rrelu, functional.selu,
    functional.sigmoid, functional.silu, functional.softplus, functional.softshrink,
    functional.softsign, functional.tanh, functional.tanhshrink, functional.threshold,
    operator.neg, torch.abs, torch.clamp, torch.clone, torch.exp, torch.neg, torch.relu,
    torch.relu_, torch.rsqrt, torch.sigmoid, torch.sqrt, torch.square, torch.tanh,
    "abs", "clamp", "clone", "contiguous", "exp", "neg", "relu", "relu_", "rsqrt", "sigmoid",
    "sigmoid_", "sqrt", "square", "tanh", "tanh_",
})  # fmt: skip
ELEMENTWISE_FUNCTIONS: frozenset[Any] = frozenset({
    operator.add, operator.iadd, operator.imul, operator.isub, operator.itruediv, operator.mul,
    operator.pow, operator.sub, operator.truediv, torch.add, torch.div, torch.maximum,
    torch.minimum, torch.mul, torch.pow, torch.sub, "add", "add_", "div", "div_", "expand_as",
    "maximum", "minimum", "mul", "mul_", "pow", "sub", "sub_",
})  # fmt: skip

# Every channel on its own, over the last axes: how many of them. (None: all behind axis 1.)
SPATIAL_MODULES: dict[type[nn.Module], int | None] = {
    nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3,
    nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3,
    nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3, nn.CircularPad1d: 1, nn.CircularPad2d: 2,
    nn.CircularPad3d: 3, nn.ConstantPad1d: 1, nn.ConstantPad2d: 2, nn.ConstantPad3d: 3,
    nn.LPPool1d: 1, nn.LPPool2d: 2, nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3,
    nn.ReflectionPad1d: 1, nn.ReflectionPad2d: 2, nn.ReflectionPad3d: 3, nn.ReplicationPad1d: 1,
    nn.ReplicationPad2d: 2, nn.ReplicationPad3d: 3, nn.Upsample: None,
    nn.UpsamplingBilinear2d: 2, nn.UpsamplingNearest2d: 2, nn.ZeroPad1d: 1, nn.ZeroPad2d: 2,
    nn.ZeroPad3d: 3,
}  # fmt: skip
SPATIAL_FUNCTIONS: dict[Any, int | None] = {
    functional.adaptive_avg_pool1d: 1, functional.adaptive_avg_pool2d: 2,
    functional.adaptive_avg_pool3d: 3, functional.adaptive_max_pool1d: 1,
    functional.adaptive_max_pool2d: 2, functional.adaptive_max_pool3d: 3,
    functional.avg_pool1d: 1, functional.avg_pool2d: 2, functional.avg_pool3d: 3,
    functional.interpolate: None, functional.lp_pool1d: 1, functional.lp_pool2d: 2,
    functional.max_pool1d: 1, functional.max_pool2d: 2, functional.max_pool3d: 3,
    torch.adaptive_avg_pool1d: 1, torch.max_pool1d: 1, torch.max_pool2d: 2, torch.max_pool3d: 3,
}  # fmt: skip

# Data movement.
AXIS_FUNCTIONS: frozenset[Any] = frozenset({
    torch.movedim, torch.permute, torch.swapaxes, torch.swapdims, torch.transpose, torch.unsqueeze,
    "movedim", "permute", "swapaxes", "swapdims", "transpose", "unsqueeze",
})  # fmt: skip
SQUEEZES: frozenset[Any] = frozenset({torch.squeeze, "squeeze"})
RESHAPES: frozenset[Any] = frozenset({torch.reshape, "reshape", "view"})
FLATTENINGS: frozenset[Any] = frozenset({torch.flatten, "flatten"})
UNFLATTENINGS: frozenset[Any] = frozenset({torch.unflatten, "unflatten"})
CONCATENATIONS: frozenset[Any] = frozenset(
    {torch.cat, torch.concat, torch.concatenate, torch.stack}
)
# Position of the argument that names the axis.
SPLITS: dict[Any, int] = {
    torch.chunk: 2, torch.split: 2, torch.tensor_split: 2, torch.unbind: 1,
    "chunk": 2, "split": 2, "tensor_split": 2, "unbind": 1,
}  # fmt: skip
# Order or split channels by their count: right only for all of them.
INTERLEAVING_MODULES = (nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle)
INTERLEAVING_FUNCTIONS: frozenset[Any] = frozenset({
    functional.channel_shuffle, functional.pixel_shuffle, functional.pixel_unshuffle,
    torch.channel_shuffle, torch.pixel_shuffle, torch.pixel_unshuffle,
})  # fmt: skip
REDUCTIONS: frozenset[Any] = frozenset({
    torch.amax, torch.amin, torch.mean, torch.sum, "amax", "amin", "mean", "sum",
})  # fmt: skip

# Why a layer is refused, where there is more to say than that it is not known.
REASONS: dict[type[nn.Module], str] = {
    nn.ConvTranspose1d: "transposed convolutions are not supported",
    nn.ConvTranspose2d: "transposed convolutions are not supported",
    nn.ConvTranspose3d: "transposed convolutions are not supported",
    nn.LocalResponseNorm: "it normalises over neighbouring channels",
}


def is_stochastic_depth(target: Any) -> bool:
    """Whether ``target`` is torchvision's function, which drops whole samples of a tensor.

    Known by its name, so that networks without it need no import of torchvision.
    """
    name = getattr(target, "__name__", "")
    return name == "stochastic_depth" and str(target.__module__).startswith("torchvision.")


def has_forward_of_its_kind(module: nn.Module) -> bool:
    """Whether a layer with channels does what its kind in `torch.nn` does."""
    kinds = [kind for kind in LAYERS_WITH_CHANNELS if isinstance(module, kind)]
    return any(type(module).forward is kind.forward for kind in kinds)
