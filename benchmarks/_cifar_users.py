"""The workload of `benchmarks.flower`: a thousand users with 50 images of CIFAR-10 each."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from distreal_dse.cost import MacCost
from distreal_dse.study import Data, Study
from distreal_dse.study.preparation import prepare
from distreal_dse.support.compat import torchvision
from fl.client import VirtualTraining
from fl.engine import FederatedRun
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from fl.world.availability import ConstantAvailability
from fl.world.devices import DeviceClass

USERS, IMAGES, COHORT, BATCH, RATE = 1000, 50, 50, 10, 0.1
FOLDER = "DISTREAL_BENCHMARK_IMAGES"
"""Environment variable that tells worker processes where the images lie."""


def model() -> nn.Module:
    """Two 3×3 convolutions, one pooling, two linear layers: 1.6 M parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(64 * 14 * 14, 128),
            relu3=nn.ReLU(),
            classifier=nn.Linear(128, 10),
        )
    )


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent."""
    return torch.optim.SGD(parameters, lr=RATE)


def unpack(images: Path, into: Path) -> None:
    """Decode the training images of class folders into two files that load at once."""
    pixels, labels = [], []
    for image, label in torchvision.datasets.ImageFolder(str(images / "train")):
        pixels.append(np.asarray(image).transpose(2, 0, 1))
        labels.append(label)
    order = np.random.default_rng(0).permutation(len(labels))[: USERS * IMAGES]
    np.save(into / "pixels.npy", np.stack(pixels)[order])
    np.save(into / "labels.npy", np.array(labels)[order])


class Images(TensorDataset):
    """Images kept as bytes; floats in −1 … 1 when they are taken."""

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Image(s), shape [..., 3, 32, 32], and class index(es)."""
        pixels, labels = (tensor[index] for tensor in self.tensors)
        return pixels.float() / 127.5 - 1, labels


def load() -> Data:
    """Load what `unpack` wrote to the folder that the environment names."""
    folder = Path(os.environ[FOLDER])
    pixels, labels = (torch.from_numpy(np.load(folder / f"{n}.npy")) for n in ("pixels", "labels"))
    part = Images(pixels[:100], labels[:100])
    return Data(Images(pixels, labels), part, part)


STUDY = Study(
    model=model, data=load, optimizer=sgd, batch_size=BATCH, input_shape=(3, 32, 32), name="users"
)


def engine(rounds: int) -> FederatedRun:
    """The workload in the engine, evaluated before it begins and after its last round alone."""
    settings = RunSettings(
        rounds=rounds,
        devices=USERS,
        cohort=COHORT,
        evaluate_every=rounds,
        classes=(DeviceClass("all", 1.0, 1.0),),
        availability=ConstantAvailability(),
    )
    network, data = prepare(STUDY, settings.seed)
    macs = MacCost(network.channels)
    strategy = make_strategy("fedavg", StrategyContext(network, None, macs, macs.full, STUDY))
    return FederatedRun(STUDY, data, network, strategy, None, settings)


def local_training(rounds: int) -> VirtualTraining:
    """What a worker process of the engine needs."""
    return engine(rounds).training


def train_user(module: nn.Module, images: Images, samples: Sequence[int] | Tensor) -> None:
    """One epoch over the images of one user in plain PyTorch."""
    optimizer = sgd(module.parameters())
    order = torch.as_tensor(samples)[torch.randperm(len(samples))]
    for batch in order.split(BATCH):
        inputs, targets = images[batch]
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimizer.step()
