"""Small networks of every kind of wiring that filters are dropped in.

Each takes inputs of shape [N, 3, 8, 8] and gives `CLASSES` outputs. Widths are small and differ
from layer to layer, so that a mixed-up axis shows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from distreal_dse.dropout import ChannelMap, DropoutTrainer, DroppableNetwork, RandomMasks

CLASSES = 5
# Of the small tensors that a sub-network is made of, see the fixture ``packed``.
PACKINGS = ("packed", "one by one")


class Plain(nn.Sequential):
    """Convolutions with batch normalisation, pooling, flattening, linear."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 4 * 4, CLASSES),
        )


class Biased(nn.Module):
    """Convolutions with bias and without batch normalisation, a hidden linear layer, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, stride=2)
        self.hidden = nn.Linear(6, 7)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = functional.relu(self.second(functional.relu(self.first(inputs))))
        outputs: Tensor = self.head(torch.relu(self.hidden(maps.mean((2, 3)))))
        return outputs


class Residual(nn.Module):
    """A stem, a block with an identity shortcut, a block with a projection shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 7, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(7)
        self.outer = nn.Conv2d(7, 8, 3, padding=1, bias=False)
        self.outer_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(8, 6, 1, stride=2, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = torch.relu(self.stem_norm(self.stem(inputs)))
        inner = torch.relu(self.inner_norm(self.inner(stem)))
        same = torch.relu(self.outer_norm(self.outer(inner)) + stem)
        half = torch.relu(self.wide_norm(self.wide(same)) + self.shortcut_norm(self.shortcut(same)))
        outputs: Tensor = self.head(torch.flatten(self.pool(half), 1))
        return outputs


class Concatenating(nn.Module):
    """DenseNet-like: each layer sees all maps before it, normalised after concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.grow1 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.grow2 = nn.Conv2d(10, 3, 3, padding=1, bias=False)
        self.last_norm = nn.BatchNorm2d(13)
        self.head = nn.Linear(13 * 2 * 2, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem(inputs)
        first = torch.cat([stem, self.grow1(torch.relu(stem))], 1)
        second = torch.cat([first, self.grow2(torch.relu(self.norm(first)))], dim=1)
        maps = functional.avg_pool2d(torch.relu(self.last_norm(second)), 4)
        outputs: Tensor = self.head(maps.view(maps.size(0), -1))
        return outputs


class Depthwise(nn.Module):
    """MobileNet-like: depthwise convolutions (one with two filters per channel) and pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.depth1 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point1 = nn.Conv2d(8, 6, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.depth2 = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.point2 = nn.Conv2d(12, 5, 1)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.depth1(self.stem(inputs)))
        maps = functional.relu6(self.norm1(self.point1(maps)))
        maps = functional.hardswish(self.norm2(self.depth2(maps)))
        maps = functional.adaptive_avg_pool2d(self.point2(maps), 1)
        outputs: Tensor = self.head(maps.flatten(1))
        return outputs


class SqueezeExcite(nn.Module):
    """A gate per channel, computed from the pooled channels, multiplied onto them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 6, 3, bias=False)
        self.last_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = functional.silu(self.norm(self.conv(inputs)))
        gate = self.excite(functional.relu(self.squeeze(maps.mean([2, 3], keepdim=True))))
        maps = torch.relu(self.last_norm(self.last(torch.sigmoid(gate) * maps)))
        outputs: Tensor = self.head(maps.mean([2, 3]))
        return outputs


class Grouped(nn.Module):
    """A grouped convolution (4 groups) between two ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=4)
        self.last = nn.Conv2d(16, 6, 3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.stem(inputs)))
        maps = torch.relu(self.last(torch.relu(self.grouped(maps))))
        outputs: Tensor = self.head(maps.mean((2, 3)))
        return outputs


class GroupNormed(nn.Module):
    """Group normalisation with many small norm groups, with few large ones, and with one."""

    def __init__(self) -> None:
        super().__init__()
        self.many = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.many_norm = nn.GroupNorm(6, 12)
        self.few = nn.Conv2d(12, 15, 3, padding=1)
        self.few_norm = nn.GroupNorm(3, 15)
        self.one = nn.Conv2d(15, 7, 3, stride=2)
        self.one_norm = nn.GroupNorm(1, 7, affine=False)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.many_norm(self.many(inputs)))
        maps = torch.tanh(self.few_norm(self.few(maps)))
        outputs: Tensor = self.head(torch.relu(self.one_norm(self.one(maps))).mean((2, 3)))
        return outputs


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """Over axis 1, as in ConvNeXt."""

    def forward(self, input: Tensor) -> Tensor:
        maps = functional.layer_norm(
            input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return maps.permute(0, 3, 1, 2)


class LayerNormed(nn.Module):
    """ConvNeXt-like: layer norms, linear layers on channels-last maps, a scale per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, stride=2)
        self.stem_norm = ChannelsFirstLayerNorm(6)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.block_norm = nn.LayerNorm(6, elementwise_affine=False)
        self.widen = nn.Linear(6, 10)
        self.narrow = nn.Linear(10, 6)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.down = nn.Conv2d(6, 7, 2, stride=2)
        self.head_norm = nn.LayerNorm(7)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem_norm(self.stem(inputs))
        last = self.block_norm(self.depth(stem).permute(0, 2, 3, 1))
        last = self.narrow(functional.gelu(self.widen(last)))
        stem = stem + self.scale * last.permute(0, 3, 1, 2)
        maps = self.down(stem).flatten(2).transpose(1, 2)
        outputs: Tensor = self.head(torch.tanh(self.head_norm(maps)).mean(1))
        return outputs


class InstanceNormed(nn.Module):
    """Instance normalisation with and without parameters; PReLU per channel and for all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.first_norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.each = nn.PReLU(8)
        self.second = nn.Conv2d(8, 6, 3, bias=False)
        self.second_norm = nn.InstanceNorm2d(6)
        self.all = nn.PReLU()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.each(self.first_norm(self.first(inputs)))
        maps = self.all(self.second_norm(self.second(maps)))
        outputs: Tensor = self.head(functional.max_pool2d(maps, 2).mean((2, 3)))
        return outputs


class Shuffling(nn.Module):
    """ShuffleNet-like: half of the channels go through a branch, then halves are interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(4, 5, 1)
        self.depth = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.outer = nn.Conv2d(5, 4, 1)
        self.last = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        left, right = torch.relu(self.stem_norm(self.stem(inputs))).chunk(2, dim=1)
        right = self.outer(torch.tanh(self.depth(torch.relu(self.inner(right)))))
        maps = torch.cat((left, right), dim=1)
        samples, channels, height, width = maps.size()
        pairs = maps.view(samples, 2, channels // 2, height, width).transpose(1, 2)
        maps = self.last(pairs.contiguous().view(samples, channels, height, width))
        outputs: Tensor = self.head(torch.relu(maps).mean((2, 3)))
        return outputs


class LinearGate(nn.Module):
    """Squeeze-excitation with linear layers, as it is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.last = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.tanh(self.conv(inputs))
        samples, channels, _, _ = maps.shape
        gate = self.excite(torch.relu(self.squeeze(maps.mean((2, 3)))))
        maps = maps * torch.sigmoid(gate).view(samples, channels, 1, 1).expand_as(maps)
        outputs: Tensor = self.head(torch.relu(self.last(maps)).mean((2, 3)))
        return outputs


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "biased": Biased,
    "residual": Residual,
    "concatenating": Concatenating,
    "depthwise": Depthwise,
    "squeeze-excite": SqueezeExcite,
    "grouped": Grouped,
    "group-norm": GroupNormed,
    "layer-norm": LayerNormed,
    "instance-norm": InstanceNormed,
    "shuffling": Shuffling,
    "linear-gate": LinearGate,
}


def inputs_of(samples: int = 4, seed: int = 0) -> Tensor:
    """Random inputs of the networks, shape [samples, 3, 8, 8], double precision."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, 8, 8, generator=draws, dtype=torch.double)


def targets_of(samples: int = 4, seed: int = 0) -> Tensor:
    """Random class indices, shape [samples]."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(CLASSES, (samples,), generator=draws)


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in double precision in which no two channels and no two statistics are alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make().double()
        for part in network.modules():
            if not isinstance(part, (nn.Conv2d, nn.Linear)):
                randomize(part)
    return network


def randomize(part: nn.Module) -> None:
    """Give the own parameters and statistics of a norm, PReLU or scale values of their own."""
    tensors = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
    for name, tensor in tensors.items():
        if name in ("bias", "running_mean"):
            nn.init.uniform_(tensor, -0.5, 0.5)
        elif tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)


def kept_part(channels: ChannelMap, name: str, mask: Tensor, like: Tensor) -> Tensor:
    """True where ``like`` (a tensor of the full network or its optimiser's) is kept."""
    region = torch.ones_like(like, dtype=torch.bool)
    axes = channels.axes.get(name.split()[0], ())
    if like.dim() < len(axes):  # a step counter
        return region
    kept = torch.cat([mask, mask.new_ones(1)])
    for axis, units in enumerate(axes):
        if units is not None:
            shape = [1] * like.dim()
            shape[axis] = -1
            region &= kept[torch.from_numpy(units)].reshape(shape).to(like.device)
    return region


def trainer_of(network: DroppableNetwork, optimizer: Optimizer, seed: int = 0) -> DropoutTrainer:
    """A trainer with cross-entropy and random masks."""
    masks = torch.Generator().manual_seed(seed)
    return DropoutTrainer(network, optimizer, functional.cross_entropy, RandomMasks(), masks)
