"""The `Study`: what a user describes so that a front can be searched and trained with.

A study file is a Python file with an object named ``study``: a `Study`, or a function that returns
one. The arguments of such a function are the study's options (``--option NAME=VALUE``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from distreal_dse.errors import StudyError

if TYPE_CHECKING:
    from distreal_dse.dropout import MaskPolicy


@dataclass(frozen=True)
class Data:
    """Map-style data sets of ``(input, target)`` pairs.

    ``train`` is what devices learn from, ``validation`` is what convergence is measured on, and
    ``test`` is what the accuracy of federated training is reported on, and touched by nothing else.

    ``train`` may have an attribute ``owners`` with one owner per sample, all texts or all whole
    numbers, such as who wrote it. Federated training can then make a device of each owner.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    test: Dataset[Any]


@dataclass(frozen=True)
class ShortRun:
    """How the convergence of a dropout vector is measured.

    Parameters
    ----------
    warm_up
        Mini-batches trained once, before the snapshot that every short run starts from. Each one
        trains the full network or a sub-network of a random uniform rate, in turn, because a
        snapshot that has never seen dropout is at first made worse by it.
    mini_batches
        Length of one short run, in mini-batches.
    full_share
        Share in [0, 1) of the mini-batches that train the full network in between: federated
        training always mixes devices that can afford all of it with some that can't.
    replicates
        Repetitions with other data orders and masks; replicate *r* is the same for all vectors.
    verification_replicates
        Repetitions, with fresh seeds, from which the values of the front are taken.
    table_mini_batches
        Length of a short run of a whole table (``optimize --fleet``), in mini-batches: from an
        untrained network to where differences show.
    """

    warm_up: int = 100
    mini_batches: int = 60
    full_share: float = 0.5
    replicates: int = 4
    verification_replicates: int = 8
    table_mini_batches: int = 300

    def __post_init__(self) -> None:
        """Check the ranges."""
        _expect_whole(self, "warm_up", 0)
        _expect_whole(self, "mini_batches", 1)
        _expect_whole(self, "table_mini_batches", 1)
        _expect(0 <= self.full_share < 1, "full_share", "0 ≤ share < 1", self.full_share)
        # A standard error takes at least two values.
        for name in ("replicates", "verification_replicates"):
            _expect_whole(self, name, 2)


def sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Stochastic gradient descent with the default settings of a study."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


@dataclass(frozen=True)
class Study:
    """A network, its data, and how to train it.

    Parameters
    ----------
    model
        Builds the full network, freshly initialised from torch's global generator.
    data
        Loads the data sets; called once per process.
    loss
        Mean loss of a batch from ``(outputs, targets)``.
    optimizer
        Builds an element-wise optimiser from parameters.
    batch_size
        Samples per training mini-batch.
    max_rate
        The largest dropout rate searched, in (0, 1).
    masks
        Which filters a mini-batch keeps: text such as ``"random"`` or ``"blocks:redraw=round"``
        (see `distreal_dse.dropout.make_policy`), or a `distreal_dse.dropout.MaskPolicy`.
    granularity
        Kept counts are multiples of it, or the whole width (see
        `distreal_dse.dropout.kept_counts`); 8 or 16 where the hardware works on so many channels
        at a time.
    scaling
        What is done about layers of a sub-network that sum over fewer inputs: ``"inverted"`` or
        ``"none"`` (see `distreal_dse.dropout.SubNetwork`), or ``"auto"``, which is the first for
        networks with running statistics (batch normalisation's) and the second for others, as
        measured in docs/scaling.md.
    clip_norm
        Largest norm of the gradients of a mini-batch; longer ones are scaled down to it.
    short_run
        How convergence is measured.
    name
        Set by the loader from the file's name where it is left empty.
    description
        One line for ``distreal-dse studies``.
    input_shape
        Of one sample, such as ``(3, 32, 32)``. With it a device can be measured that has no data.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Data]
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = sgd
    batch_size: int = 32
    max_rate: float = 0.85
    masks: str | MaskPolicy = "random"
    granularity: int = 1
    scaling: str = "auto"
    clip_norm: float | None = None
    short_run: ShortRun = field(default_factory=ShortRun)
    name: str = ""
    description: str = ""
    input_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without building the model or loading the data."""
        for name in ("model", "data", "loss", "optimizer"):
            value = getattr(self, name)
            _expect(callable(value), name, "a function", type(value).__name__)
        _expect_whole(self, "batch_size", 1)
        _expect(0 < self.max_rate < 1, "max_rate", "0 < rate < 1", self.max_rate)
        shape = self.input_shape
        sizes = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 1 for n in shape)
        fits = shape is None or (sizes and shape)
        _expect(fits, "input_shape", "sizes such as (3, 32, 32)", shape)
        masks: object = self.masks
        draws = not isinstance(masks, type) and callable(getattr(masks, "draw", None))
        kind = f"the class {masks.__name__}" if isinstance(masks, type) else type(masks).__name__
        _expect(isinstance(masks, str) or draws, "masks", "text or a MaskPolicy", kind)
        _expect_whole(self, "granularity", 1)
        known = self.scaling in ("auto", "inverted", "none")
        _expect(known, "scaling", "auto, inverted or none", repr(self.scaling))
        positive = self.clip_norm is None or self.clip_norm > 0
        _expect(positive, "clip_norm", "a number above 0, or None", self.clip_norm)


def _expect_whole(of: object, name: str, least: int) -> None:
    value = getattr(of, name)
    holds = isinstance(value, Integral) and int(value) >= least
    _expect(holds, name, f"a whole number, {least} or more", value)


def _expect(holds: object, name: str, expected: str, found: object) -> None:
    if not holds:
        raise StudyError(f"{name} of a study: expected {expected}, found {found}")
