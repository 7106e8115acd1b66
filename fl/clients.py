"""Who trains the devices of a cohort: this process, or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fl.client import LocalTraining, train_locally
from fl.devices import Device
from fl.results import State, Update


@dataclass(frozen=True, eq=False)
class Task:
    """A device, and the indices of its samples, shape [N]."""

    device: Device
    samples: Tensor


class Clients(ABC):
    """Trains the devices of a cohort; whoever does it, the updates are the same."""

    @abstractmethod
    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: float,
        deadline: float,
    ) -> list[Update]:
        """Return the updates in the order of the tasks; see `fl.client.train_locally`."""


class InProcess(Clients):
    """One device after the other, here.

    Parameters
    ----------
    training
        The run's common part; its network is overwritten.
    """

    def __init__(self, training: LocalTraining) -> None:
        self._training = training

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: float,
        deadline: float,
    ) -> list[Update]:
        """Train one after the other."""
        return [
            train_locally(
                self._training, task.device, task.samples, state, round_number, now, deadline
            )
            for task in tasks
        ]
