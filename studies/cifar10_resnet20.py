"""CIFAR-10 with ResNet-20."""

from collections import OrderedDict
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from distreal_dse import ShortRun, Study
from studies import _cifar10


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside an identity or projection shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] → [N, outputs, H / stride, W / stride]."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out = self.relu(out + self.shortcut(x))
        return out


def resnet20(classes: int = 10) -> nn.Module:
    """ResNet-20 for 32×32 images (He et al., CVPR 2016, section 4.2), 0.27 M parameters.

    Shortcuts between stages are 1×1 projections (their option B): padding with zeros (option A)
    would fix channel positions that dropping filters moves.
    """
    network = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 16, 3, padding=1, bias=False), norm=nn.BatchNorm2d(16), relu=nn.ReLU()
        )
    )
    inputs = 16
    for stage, (outputs, first_stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        for number, stride in enumerate((first_stride, 1, 1), start=1):
            network.add_module(f"stage{stage}-{number}", BasicBlock(inputs, outputs, stride))
            inputs = outputs
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(inputs, classes))
    return network


def study(data: Path | None = None, subset: int = 0) -> Study:
    """Options: ``data``, a folder with CIFAR-10; ``subset``, use only so many training images."""
    return Study(
        model=resnet20,
        data=partial(_cifar10.load, data, subset),
        batch_size=32,
        input_shape=(3, 32, 32),
        short_run=ShortRun(warm_up=100, mini_batches=100, replicates=3, verification_replicates=5),
        description="ResNet-20 on CIFAR-10 (options: data, subset)",
    )
