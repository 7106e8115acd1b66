"""CIFAR-10 with DenseNet-40."""

from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from distreal_dse import ShortRun, Study
from studies import _cifar10


class DenseLayer(nn.Module):
    """Batch normalisation, ReLU, 3×3 convolution; its output is appended to its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] → [N, inputs + growth, H, W]."""
        return torch.cat([x, self.conv(self.relu(self.bn(x)))], 1)


def transition(channels: int) -> nn.Sequential:
    """Batch normalisation, ReLU, 1×1 convolution, 2×2 average pooling."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def densenet40(classes: int = 10, growth: int = 12) -> nn.Module:
    """DenseNet-40 without bottlenecks (Huang et al., CVPR 2017, section 3), 1.0 M parameters."""
    channels = 16
    network = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, channels, 3, padding=1, bias=False)))
    for stage in (1, 2, 3):
        if stage > 1:
            network.add_module(f"transition{stage - 1}", transition(channels))
        for number in range(1, 13):
            network.add_module(f"dense{stage}-{number}", DenseLayer(channels, growth))
            channels += growth
    network.add_module("norm", nn.BatchNorm2d(channels))
    network.add_module("relu", nn.ReLU())
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(channels, classes))
    return network


def study(data: Path | None = None, subset: int = 0) -> Study:
    """Options: ``data``, a folder with CIFAR-10; ``subset``, use only so many training images."""
    return Study(
        model=densenet40,
        data=partial(_cifar10.load, data, subset),
        batch_size=32,
        input_shape=(3, 32, 32),
        short_run=ShortRun(warm_up=100, mini_batches=100, replicates=3, verification_replicates=5),
        description="DenseNet-40 (growth 12) on CIFAR-10 (options: data, subset)",
    )
