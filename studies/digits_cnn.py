"""Handwritten digits, 8×8 pixels, from scikit-learn: trains in seconds, needs no download."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, ShortRun, Study


def block(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


def model() -> nn.Module:
    """Five convolutions with batch normalisation and a linear classifier, 36 k parameters."""
    return five_convolutions(block)


def five_convolutions(block: Callable[[int, int], nn.Module]) -> nn.Module:
    """Five blocks, each made from its numbers of inputs and outputs, and a linear classifier."""
    return nn.Sequential(
        OrderedDict(
            block1=block(1, 16),
            block2=block(16, 16),
            pool1=nn.MaxPool2d(2),
            block3=block(16, 32),
            block4=block(32, 32),
            pool2=nn.MaxPool2d(2),
            block5=block(32, 64),
            pool3=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(64, 10),
        )
    )


def data() -> Data:
    """1,797 images: 60 % for training, 20 % for validation, 20 % for testing, by class."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype("float32") / 16 - 0.3
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=0.25, random_state=0, stratify=rest_labels
    )
    parts = (train, train_labels), (validation, validation_labels), (test, test_labels)
    return Data(*(TensorDataset(torch.tensor(x), torch.tensor(y)) for x, y in parts))


study = Study(
    model=model,
    data=data,
    batch_size=32,
    input_shape=(1, 8, 8),
    short_run=ShortRun(warm_up=20, mini_batches=40, replicates=4),
    description="5-layer CNN on scikit-learn's 8×8 digits; no download",
)
