"""A user's study file that is searched in seconds, and variants of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from distreal_dse import Study
from distreal_dse.fronts import Front
from distreal_dse.search import SearchSettings

STUDY = '''\
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, ShortRun, Study


def model():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )


def data():
    """Three classes: noise around a picture for each."""
    draws = torch.Generator().manual_seed(7)
    pictures = torch.randn(3, 1, 6, 6, generator=draws)

    def part(size):
        labels = torch.randint(3, (size,), generator=draws)
        noise = 0.5 * torch.randn(size, 1, 6, 6, generator=draws)
        return TensorDataset(pictures[labels] + noise, labels)

    return Data(part(100), part(40), part(40))


study = Study(
    model=model,
    data=data,
    batch_size=16,
    short_run=ShortRun(warm_up=2, mini_batches=3, replicates=2, verification_replicates=2),
)
'''


def study_object() -> Study:
    """The study as an object whose functions belong to no module, as those of a notebook."""
    made: dict[str, object] = {}
    exec(STUDY, made)
    found = made["study"]
    assert isinstance(found, Study)
    return replace(found, name="tiny")


# The short runs whose first convolution keeps fewer than three filters fail.
DIVERGES_WHEN_NARROW = """
def poison(layer, inputs, outputs):
    return outputs * float("nan") if outputs.shape[1] < 3 else outputs


def poisoned():
    network = model()
    network[0].register_forward_hook(poison)
    return network


study = replace(study, model=poisoned, short_run=replace(study.short_run, warm_up=0))
"""

DIVERGES_ALWAYS = """
study = replace(
    study,
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30),
    short_run=replace(study.short_run, warm_up=0),
)
"""

# Each training step makes the network worse.
HARMS_ALWAYS = """
study = replace(
    study, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, maximize=True)
)
"""

# Vectors that keep fewer than four filters of the first convolution train it backwards.
HARMS_WHEN_NARROW = """
def reverse(layer, inputs, outputs):
    if outputs.shape[1] < 4 and outputs.requires_grad:
        outputs.register_hook(lambda gradient: -30 * gradient)


def reversing():
    network = model()
    network[0].register_forward_hook(reverse)
    return network


study = replace(
    study,
    model=reversing,
    short_run=replace(study.short_run, warm_up=0, mini_batches=6, full_share=0),
)
"""

# Units of 2 and 4 channels.
NORM_GROUPS = """
def normed():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(6, 12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
    )


study = replace(study, model=normed)
"""

# Training steps that take a while, so that a signal can meet one.
SLOW = """
def wait(layer, inputs, outputs):
    import time

    time.sleep(0.005)


def slow():
    network = model()
    network[0].register_forward_hook(wait)
    return network


study = replace(study, model=slow)
"""

# Training fails wherever a sub-network is trained, as a user's layer may have it.
NO_SUB_NETWORKS = """
def refuse(layer, inputs, outputs):
    if layer.training and outputs.requires_grad and outputs.shape[1] < 6:
        raise ValueError("not so narrow")
    return outputs


def picky():
    network = model()
    network[0].register_forward_hook(refuse)
    return network


study = replace(study, model=picky)
"""


def write_study(folder: Path, name: str = "tiny", change: str = "") -> Path:
    """Write the study to ``folder``, with more lines of Python that change it."""
    path = folder / f"{name}.py"
    path.write_text(STUDY + change)
    return path


@dataclass(frozen=True)
class Finished:
    """A finished search of 20 trials with seed 0."""

    file: Path
    settings: SearchSettings
    front: Front

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def trials(self) -> list[FrozenTrial]:
        return optuna.load_study(study_name="tiny", storage=self.url).get_trials()
