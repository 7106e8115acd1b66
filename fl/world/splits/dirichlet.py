"""Class proportions that each device draws from a Dirichlet distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import derive_seed, generator
from fl.world.splits.base import Owners, Split, by_label, check_enough, gather

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

SMALLEST_FLOAT = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class DirichletSplit(Split):
    """Devices of equal size and unequal class proportions.

    Each device draws its proportions from Dir(alpha · p), where p are the shares of the classes in
    all data and sum to 1, and then its samples one by one by these proportions. A class that has
    run out is left out, and the proportions of the others are scaled up to sum to 1. The devices
    draw in a random order, because the last ones get what is left. Each sample is dealt once, and
    device sizes differ by one at most, so that round times don't differ by the amount of data.

    Parameters
    ----------
    alpha
        Concentration, > 0: towards 0 each device has a single class, with a large one all
        have the shares p. Codes that draw from Dir(a, …, a) with one a per class instead mean
        alpha = a · classes where the classes are equally large.

    Raises
    ------
    InputError
        If alpha is out of range.

    References
    ----------
    Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification, 2019, arXiv 1909.06335, section 3.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise InputError(
                f"alpha of a Dirichlet split: expected a number > 0, found {self.alpha}; for iid "
                "data take the split 'iid'"
            )

    @property
    def spec(self) -> str:
        """Its name and alpha."""
        return f"dirichlet:alpha={float(self.alpha)!r}"

    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal each sample once.

        How many samples of each class a device gets follows from the sizes of the classes alone.
        """
        devices = len(device_classes)
        check_enough(len(labels), devices)
        sizes = labels.unique(return_counts=True)[1].numpy()
        random = np.random.default_rng(derive_seed(seed, "split", "dirichlet"))
        counts = _counts(sizes, devices, self.alpha, random)
        # By class, and within a class by device: as the samples are in the order by label.
        holders = np.repeat(np.tile(np.arange(devices), len(sizes)), counts.T.ravel())
        order = by_label(labels, generator(seed, "split", "dirichlet"))
        return gather(order, torch.from_numpy(holders), devices)


def _counts(sizes: Counts, devices: int, alpha: float, random: np.random.Generator) -> Counts:
    """Samples of each class (of ``sizes``) that each device gets, shape [devices, classes]."""
    total, left = int(sizes.sum()), sizes.copy()
    proportions = random.dirichlet(
        np.maximum(alpha * (sizes / total), SMALLEST_FLOAT), size=devices
    )
    quotas = np.full(devices, total // devices)
    quotas[: total % devices] += 1
    counts = np.zeros((devices, len(sizes)), dtype=np.int64)
    for device in random.permutation(devices):
        counts[device] = _drawn(int(quotas[device]), proportions[device], left, random)
        left -= counts[device]
    return counts


def _drawn(quota: int, shares: Shares, left: Counts, random: np.random.Generator) -> Counts:
    """Draw ``quota`` samples by class, no more than are ``left`` of any.

    Drawing all at once, keeping what there is and drawing the rest again among the other classes
    has the same distribution as drawing one by one: draws of a class that has run out are skipped.
    """
    drawn = np.zeros_like(left)
    while missing := quota - int(drawn.sum()):
        weights = np.where(left > drawn, shares, 0.0)
        if weights.sum() < SMALLEST_FLOAT:
            # With a small alpha the device's shares of all that is left may be 0: take it as it is.
            weights = (left - drawn).astype(np.float64)
        drawn += random.multinomial(missing, weights / weights.sum())
        drawn = np.minimum(drawn, left)
    return drawn
