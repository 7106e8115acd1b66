"""What comes out of federated training: a device's update, a round's figures.

Reading stored figures must not import PyTorch, so nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = "Mapping[str, Tensor]"
"""Parameters and buffers of a network by name, as ``state_dict()`` gives them."""


@dataclass(frozen=True)
class Update:
    """What one device hands back after its round, and what that took.

    Parameters
    ----------
    device
        Index of the device.
    samples
        Training samples that the device holds: its weight in the average.
    state
        Its network after local training; a copy of its own.
    loss
        Mean training loss over the samples trained; not finite where training diverged.
    seconds
        Virtual seconds from the start of the round until the device was done.
    training_macs
        Multiply-accumulates of all its mini-batches, forward and backward, all samples.
    cost_shares
        Cost of each mini-batch's vector relative to the full network, in the order trained.
    over_budget
        Mini-batches whose vector cost more than the budget, because none fitted.
    """

    device: int
    samples: int
    state: State
    loss: float
    seconds: float
    training_macs: float
    cost_shares: tuple[float, ...]
    over_budget: int

    @property
    def mini_batches(self) -> int:
        """Number of mini-batches trained."""
        return len(self.cost_shares)


@dataclass(frozen=True)
class RoundResult:
    """Figures of one round; round 0 is the untrained network.

    Parameters
    ----------
    round
        Number of the round, from 0.
    virtual_seconds
        Virtual time at the end of the round, since the start of the run.
    accuracy, loss
        Of the full global network on the test data; None in rounds that are not evaluated.
    training_macs
        Multiply-accumulates that the cohort spent in this round, rejected updates included.
    mini_batches
        Mini-batches that the cohort trained in this round.
    mean_cost_share
        Mean cost of these relative to the full network; None where there were none.
    over_budget
        How many of these cost more than the budget of their device.
    rejected
        Updates left out of the average because they were not finite.
    cohort
        Indices of the devices that took part, ascending.
    """

    round: int
    virtual_seconds: float
    accuracy: float | None
    loss: float | None
    training_macs: float = 0.0
    mini_batches: int = 0
    mean_cost_share: float | None = None
    over_budget: int = 0
    rejected: int = 0
    cohort: tuple[int, ...] = ()
