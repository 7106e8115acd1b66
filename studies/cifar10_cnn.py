"""CIFAR-10 with six convolutions; with smaller images, federated comparisons fit a CPU."""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from distreal_dse import ShortRun, Study
from studies import _cifar10
from studies.digits_cnn import block


def model() -> nn.Module:
    """Six convolutions with batch normalisation, a linear classifier: 0.29 M parameters."""
    return nn.Sequential(
        OrderedDict(
            block1=block(3, 32),
            block2=block(32, 32),
            pool1=nn.MaxPool2d(2),
            block3=block(32, 64),
            block4=block(64, 64),
            pool2=nn.MaxPool2d(2),
            block5=block(64, 128),
            block6=block(128, 128),
            pool3=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(128, 10),
        )
    )


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent; momentum has little time in rounds of ten mini-batches."""
    return torch.optim.SGD(parameters, lr=0.1)


def study(data: Path | None = None, subset: int = 0, size: int = 32) -> Study:
    """Options: ``data`` and ``subset`` as in CIFAR-10's others; ``size``, 32, 16 or 8 pixels."""
    return Study(
        model=model,
        data=partial(_cifar10.load, data, subset, size),
        optimizer=sgd,
        batch_size=20,
        input_shape=(3, size, size),
        short_run=ShortRun(warm_up=200, mini_batches=100, replicates=3, verification_replicates=5),
        description="6-layer CNN on CIFAR-10 (options: data, subset, size)",
    )
