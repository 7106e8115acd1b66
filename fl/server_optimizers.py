"""What the server makes of the merged updates of a round."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from fl.results import State


class ServerOptimizer(ABC):
    """Moves the global state towards what the updates of a round were merged to."""

    @abstractmethod
    def step(self, state: State, merged: State) -> State:
        """Return the new global state; neither argument is changed."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return what has to be kept to go on later, by name."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""


class Replace(ServerOptimizer):
    """Takes the merged state as it is: FedAvg."""

    def step(self, state: State, merged: State) -> State:
        """Return the merged state."""
        return merged

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Do nothing: there is no state."""
