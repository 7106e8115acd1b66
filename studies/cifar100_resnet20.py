"""CIFAR-100 with ResNet-20."""

from functools import partial
from pathlib import Path

from distreal_dse import ShortRun, Study
from studies._cifar import CIFAR100, load
from studies.cifar10_resnet20 import resnet20


def study(data: Path | None = None, subset: int = 0) -> Study:
    """Options: ``data``, a folder with CIFAR-100; ``subset``, use only so many training images."""
    return Study(
        model=partial(resnet20, 100),
        data=partial(load, CIFAR100, data, subset),
        batch_size=32,
        input_shape=(3, 32, 32),
        short_run=ShortRun(warm_up=100, mini_batches=100, replicates=3, verification_replicates=5),
        description="ResNet-20 on CIFAR-100 (options: data, subset)",
    )
