"""The base class of strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from distreal_dse.dropout import KeptCounts, MaskPolicy, RandomMasks
from fl.devices import Device
from fl.results import State, Update


class PricedVector(Protocol):
    """A dropout vector and its cost: a front point, or one that a baseline makes up."""

    @property
    def kept_counts(self) -> KeptCounts:
        """Channels kept of each group."""

    @property
    def cost(self) -> float:
        """Cost in the unit of the run's clock."""


class Strategy(ABC):
    """Decides what devices train and how the server merges it.

    The methods are called in the order in which they stand here. All but the last run on a device:
    they may use what the device knows, and nothing of the server or of other devices.
    """

    name: ClassVar[str]
    """For people, figures and the database."""

    def masks(self) -> MaskPolicy:
        """Return the mask policy; called once per device and round, before its first mini-batch.

        The device has it for itself, and its ``start_round`` is called with the number of the
        round.
        """
        return RandomMasks()

    @abstractmethod
    def pick(self, device: Device, budget: float) -> PricedVector:
        """Choose what the device trains; called before each mini-batch.

        Parameters
        ----------
        device
            The device that asks.
        budget
            What it can spend on this mini-batch without running over its slot. A vector that
            costs more is trained nevertheless: it takes longer and is counted.
        """

    @abstractmethod
    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Merge the updates of a round; called once per round, on the server.

        Parameters
        ----------
        state
            The global state that the round started from; not to be changed.
        updates
            At least one, by ascending index of the device, all finite.

        Returns
        -------
        mapping
            The new global state, with the names, shapes and types of the old one.
        """
