"""Classes of samples that live on classes of devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.splits.base import SMALLEST, Owners, Split, by_label, check_enough, gather


@dataclass(frozen=True)
class ByClassSplit(Split):
    """What a device sees goes with what it can afford.

    Each class of devices (strong, medium, weak …) has label classes of its own, as many as its
    share of the devices says but at least one; their samples are dealt to its devices at random and
    evenly. So what only weak devices see must be learned from weak devices. Each sample is dealt
    once. Devices of one class differ in size by two samples at most, those of different classes as
    their label classes do.

    Which label classes go where is drawn by the seed rather than taken in the order of the labels,
    so that no finding hangs on whether the weak devices happen to have the easy ones. Strategies
    that are compared with one seed have the same draw, and `label_classes` tells it.

    The skew is our own choice; `ShardsSplit` gives few classes to single devices, whatever they can
    afford.

    Parameters
    ----------
    mix
        Share in [0, 1] of all samples that is dealt to all devices at random instead; with 1 the
        data are iid.

    Raises
    ------
    InputError
        If mix is out of range.
    """

    mix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1:
            raise InputError(f"mix of a split by class: expected 0 ≤ share ≤ 1, found {self.mix}")

    @property
    def spec(self) -> str:
        """Its name, and mix where there is any."""
        return f"by-class:mix={float(self.mix)!r}" if self.mix else "by-class"

    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal each sample once.

        How many samples of each class a device gets follows from the sizes of the classes alone.
        """
        check_enough(len(labels), len(device_classes))
        random = generator(seed, "split", "by-class")
        order = by_label(labels, random)
        order = order[torch.randperm(len(order), generator=random)]
        mixed = round(self.mix * len(order))
        at_home = order[mixed:]
        holders = torch.empty_like(order)
        holders[:mixed] = torch.arange(mixed) % len(device_classes)
        for name, found in self.label_classes(labels, device_classes, seed).items():
            members = torch.tensor([i for i, one in enumerate(device_classes) if one == name])
            places = mixed + torch.isin(labels[at_home], found).nonzero().flatten()
            holders[places] = members[torch.arange(len(places)) % len(members)]
        shares = gather(order, holders, len(device_classes))
        _check(shares, device_classes)
        return shares

    def label_classes(
        self, labels: Tensor, device_classes: Sequence[str], seed: int
    ) -> dict[str, Tensor]:
        """Tell which label classes each class of devices has in ``split``.

        Returns
        -------
        dict
            By the name of the class of devices: its labels, shape [≥ 1], int64. They are disjoint,
            and together all that occur.

        Raises
        ------
        InputError
            If there are fewer label classes than classes of devices.
        """
        found, devices = labels.unique(), Counter(device_classes)
        if len(found) < len(devices):
            raise InputError(
                f"training data has {len(found)} label classes: expected at least one for each of "
                f"the {len(devices)} classes of devices; take fewer of those or another split"
            )
        random = generator(seed, "split", "by-class", "label classes")
        drawn = found[torch.randperm(len(found), generator=random)]
        numbers = _apportioned(len(found), list(devices.values()))
        parts = drawn.split(numbers)
        return {name: part.sort().values for name, part in zip(devices, parts, strict=True)}


def _apportioned(total: int, sizes: Sequence[int]) -> list[int]:
    """``total`` by ``sizes``, at least 1 each; the first of equal claims."""
    numbers = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        claims = [size * total / sum(sizes) - n for size, n in zip(sizes, numbers, strict=True)]
        numbers[claims.index(max(claims))] += 1
    return numbers


def _check(shares: Sequence[Tensor], device_classes: Sequence[str]) -> None:
    for share, name in zip(shares, device_classes, strict=True):
        if len(share) < SMALLEST:
            raise InputError(
                f"label classes of the {device_classes.count(name)} devices of class {name} have "
                f"too few samples: expected at least two for each, found {len(share)}; take fewer "
                "devices or a larger mix"
            )
