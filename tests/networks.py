"""Small networks of every kind of wiring that filters are dropped in.

Each takes inputs of shape [N, 3, 8, 8] and gives `CLASSES` outputs. Widths are small and differ
from layer to layer, so that a mixed-up axis shows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5


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


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "biased": Biased,
    "residual": Residual,
    "concatenating": Concatenating,
    "depthwise": Depthwise,
    "squeeze-excite": SqueezeExcite,
    "grouped": Grouped,
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
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None and part.running_var is not None
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
                nn.init.uniform_(part.running_mean, -0.5, 0.5)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network
