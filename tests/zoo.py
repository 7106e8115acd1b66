"""Torchvision's networks and our own for CIFAR-10, with small inputs: what users bring first."""

from __future__ import annotations

import copy
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.compat import torchvision
from networks import randomize

CLASSES = 10


class Entry(NamedTuple):
    """Channel groups and units of a network, worked out from its published structure."""

    groups: int
    units: int
    size: int = 64


ZOO: dict[str, Entry] = {
    # One trunk per stage (the stem is in the first), and the inner convolutions of each block.
    "resnet18": Entry(4 + 8, 64 + 128 + 256 + 512 + 2 * (64 + 128 + 256 + 512)),
    "resnet50": Entry(
        5 + 2 * 16,
        64 + 256 + 512 + 1024 + 2048 + 2 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512),
    ),
    # 32 convolution groups of 4, 8, 16, 32 channels: as many units.
    "resnext50_32x4d": Entry(
        5 + 2 * 16, 64 + 256 + 512 + 1024 + 2048 + 2 * (3 * 4 + 4 * 8 + 6 * 16 + 3 * 32)
    ),
    # Every convolution by itself.
    "densenet121": Entry(1 + 2 * 58 + 3, 64 + 58 * (128 + 32) + 128 + 256 + 512),
    "vgg11_bn": Entry(8, 64 + 128 + 2 * 256 + 4 * 512),
    "googlenet": Entry(57, 7280),
    "googlenet+aux": Entry(59, 7280 + 2 * 128),
    "inception_v3": Entry(94, 17216, size=96),
    # … but the last one, which gives the output.
    "squeezenet1_1": Entry(1 + 3 * 8, 64 + 320 + 2 * 1280),
    # Stem, stages, expansions, gates (squeezed), last convolution.
    "mobilenet_v2": Entry(1 + 7 + 16 + 1, 32 + 712 + 7104 + 1280),
    "mobilenet_v3_small": Entry(1 + 5 + 10 + 9 + 1, 16 + 224 + 2440 + 592 + 576),
    "efficientnet_b0": Entry(1 + 7 + 15 + 16 + 1, 32 + 784 + 8928 + 380 + 1280),
    # Two convolutions per block with 8 channels in each convolution group, and a gate.
    "regnet_y_400mf": Entry(1 + 4 + 3 * 16, 32 + 48 + 104 + 208 + 440 + 16 * 2 * 8 + 960),
    # Stages, and the hidden features of each block (four times its width).
    "convnext_tiny": Entry(4 + 18, 1440 + 4 * (3 * 96 + 3 * 192 + 9 * 384 + 3 * 768)),
    # Stem, one inner group per unit, last convolution; what is split and shuffled stays whole.
    "shufflenet_v2_x0_5": Entry(1 + 16 + 1, 24 + 4 * 24 + 8 * 48 + 4 * 96 + 1024),
    "cifar10-resnet20": Entry(3 + 9, (1 + 3) * (16 + 32 + 64), size=32),
    "cifar10-densenet40": Entry(1 + 3 * 12 + 2, 16 + 36 * 12 + 160 + 304, size=32),
}


def build(name: str) -> nn.Module:
    """A float network in which no two channels are alike, without ordinary dropout."""
    architecture, _, variant = name.partition("+")
    options: dict[str, bool] = {}
    if architecture in ("googlenet", "inception_v3"):
        options = {"aux_logits": variant == "aux", "init_weights": False}
    elif architecture == "vgg11_bn":
        options = {"init_weights": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module
        if name.startswith("cifar10-"):
            model = StudySource(name).load().model()
        else:
            model = torchvision.models.get_model(architecture, num_classes=CLASSES, **options)
        if architecture == "vgg11_bn":  # 100 million weights that make no difference here
            head = [nn.Linear(512 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, CLASSES)]
            model.classifier = nn.Sequential(*head)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0  # would draw differently in networks of another width
            elif not isinstance(part, (nn.Conv2d, nn.Linear)):
                randomize(part)
    return model


def inputs_of(name: str, samples: int = 3, seed: int = 0) -> Tensor:
    """Random inputs, shape [samples, 3, size, size]."""
    size = ZOO[name].size
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, size, size, generator=draws)


@cache
def droppable(name: str) -> DroppableNetwork:
    """The network with its groups, checked numerically; to be read only."""
    return DroppableNetwork(build(name), inputs_of(name, samples=2))


def droppable_to_train(name: str) -> DroppableNetwork:
    """A copy of it, in training mode, to be changed: it takes far less time than to trace anew."""
    network = copy.deepcopy(droppable(name))
    network.module.train()
    return network
