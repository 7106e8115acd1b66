"""How much of its compute a device has free, mini-batch by mini-batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from distreal_dse.errors import InputError
from distreal_dse.seeding import generator
from fl.devices import Device


class Availability(ABC):
    """Says what share of its compute a device has free.

    What it says must follow from the arguments alone, so that a device sees the same whoever else
    is in the cohort, and all strategies are compared under the same conditions.
    """

    @abstractmethod
    def begin_round(self, device: Device, round_number: int, seed: int) -> Callable[[float], float]:
        """Return the source of free shares for one round of one device.

        Called once per device and round, before its first mini-batch.

        Returns
        -------
        callable
            Called before each mini-batch with the virtual seconds since the start of the run;
            returns the share that is free during the mini-batch, in (0, 1].
        """


@dataclass(frozen=True)
class ConstantAvailability(Availability):
    """The same share, in (0, 1], for all devices at all times."""

    share: float = 1.0

    def __post_init__(self) -> None:
        _check_shares((self.share,))

    def begin_round(self, device: Device, round_number: int, seed: int) -> Callable[[float], float]:
        """Return the constant share."""
        return lambda now: self.share


@dataclass(frozen=True)
class MarkovAvailability(Availability):
    """Levels that a Markov chain moves between from mini-batch to mini-batch.

    Synthetic: there is no public trace of free compute at this resolution. Each round starts from
    the chain's stationary distribution, which is uniform as all moves are equally likely. A chain
    that went on over rounds would need its state kept on every device to say nearly the same:
    the correlation over k mini-batches is (stay − (1 − stay) / (levels − 1))ᵏ, with the default
    values 0.04 after ten, and devices sit out many more than that between two rounds.

    Parameters
    ----------
    levels
        Free shares, each in (0, 1]. Our own choice, as is ``stay``.
    stay
        Probability in [0, 1] of keeping the level at the next mini-batch; else it moves to one of
        the others, each equally likely.
    """

    levels: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    stay: float = 0.8

    def __post_init__(self) -> None:
        _check_shares(self.levels)
        if not 0 <= self.stay <= 1:
            raise InputError(f"availability: expected stay in [0, 1], found {self.stay}")

    def begin_round(self, device: Device, round_number: int, seed: int) -> Callable[[float], float]:
        """Return the chain of this device and round."""
        random = generator(seed, "availability", device.index, round_number)
        count = len(self.levels)
        level = _below(count, random)
        started = False

        def share(now: float) -> float:
            nonlocal level, started
            if started and count > 1 and torch.rand((), generator=random).item() >= self.stay:
                level = (level + 1 + _below(count - 1, random)) % count
            started = True
            return self.levels[level]

        return share


def _below(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random).item())


def _check_shares(shares: tuple[float, ...]) -> None:
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"availability: expected free shares in (0, 1], found {shares}")
