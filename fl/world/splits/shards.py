"""A few shards of the data sorted by class for each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.splits.base import Owners, Split, by_label, check_enough, gather


@dataclass(frozen=True)
class ShardsSplit(Split):
    """A few classes per device.

    The samples are sorted by label and cut into devices · shards pieces, which are dealt at random.
    Pieces differ in size by one at most, so devices do by ``shards`` at most. Each sample is dealt
    once.

    Parameters
    ----------
    shards
        Pieces per device, ≥ 1; the paper takes 2.

    Raises
    ------
    InputError
        If there are fewer than one.

    References
    ----------
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-Efficient Learning of Deep
    Networks from Decentralized Data, AISTATS 2017, arXiv 1602.05629, section 3.
    """

    shards: int = 2

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise InputError(f"shards of a split: expected 1 or more, found {self.shards}")

    @property
    def spec(self) -> str:
        """Its name and the shards per device."""
        return f"shards:shards={self.shards}"

    def split(
        self, labels: Tensor, device_classes: Sequence[str], owners: Owners | None, seed: int
    ) -> list[Tensor]:
        """Deal each sample once.

        How many samples of each class a device gets follows from the sizes of the classes alone.
        """
        devices = len(device_classes)
        check_enough(len(labels), devices)
        pieces = devices * self.shards
        if len(labels) < pieces:
            raise InputError(
                f"training data has {len(labels)} samples: expected at least one for each of the "
                f"{pieces} shards of {devices} devices; take fewer devices or shards"
            )
        random = generator(seed, "split", "shards")
        order = by_label(labels, random)
        sizes = torch.tensor([len(piece) for piece in order.tensor_split(pieces)])
        holders = torch.randperm(pieces, generator=random) % devices
        return gather(order, holders.repeat_interleave(sizes), devices)
