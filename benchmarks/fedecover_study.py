"""The CNN and training of FedEcover's comparisons on CIFAR-10, as a study file.

Three 3×3 convolutions with biases and no normalisation, each halved by max pooling, and a linear
classifier on what is left; Adam at 0.001 with weight decay 0.0001, batches of 64 (FedEcover's
published logs). Outputs of dropped layers are scaled by width ÷ kept, as there. Plain SGD takes the
place of Adam where it is asked for.
"""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from distreal_dse import ShortRun, Study
from distreal_dse.errors import InputError
from studies import _cifar10

WIDTHS = (64, 128, 256)


def model(size: int) -> nn.Module:
    """Three convolutions and a classifier: 0.4 M parameters for images of 32 pixels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(WIDTHS[-1] * (size // 8) ** 2, 10)
    return nn.Sequential(layers)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Anew in each round of a device."""
    return torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-4)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent."""
    return torch.optim.SGD(parameters, lr=0.05)


OPTIMIZERS = {"adam": adam, "sgd": sgd}


def study(
    data: Path | None = None,
    subset: int = 0,
    size: int = 32,
    scaling: str = "inverted",
    batch: int = 64,
    optimizer: str = "adam",
) -> Study:
    """Options: ``data``, ``subset`` and ``size`` as for ``cifar10-cnn``; ``optimizer=adam|sgd``."""
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer: expected {' or '.join(OPTIMIZERS)}, found '{optimizer}'")
    return Study(
        name="fedecover-cnn",
        model=partial(model, size),
        data=partial(_cifar10.load, data, subset, size),
        optimizer=OPTIMIZERS[optimizer],
        batch_size=batch,
        input_shape=(3, size, size),
        scaling=scaling,
        short_run=ShortRun(warm_up=200, mini_batches=100, replicates=3),
        description="FedEcover's CNN on CIFAR-10 (options: data, subset, size, scaling, batch, "
        "optimizer)",
    )
