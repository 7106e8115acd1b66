"""CIFAR-10 for the studies."""

from functools import partial

from studies._cifar import CIFAR10
from studies._cifar import load as load_cifar

load = partial(load_cifar, CIFAR10)
