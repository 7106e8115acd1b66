"""What comes out of federated training: a device's update, a round's figures.

Reading stored figures must not import PyTorch, so nothing here needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = "Mapping[str, Tensor]"
"""Parameters and buffers of a network by name, as ``state_dict()`` gives them."""


Outcome = Literal["accepted", "late", "partial", "missed", "surplus", "rejected"]
"""What became of an update. Merged: in time; after the deadline; with what was trained by then. Not
merged: the deadline was missed; enough others were faster; it could not be trusted."""

MERGED: tuple[Outcome, ...] = ("accepted", "late", "partial")


@dataclass(frozen=True, eq=False)
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
    masks
        Which units each mini-batch trained, shape [mini-batches, units], on the CPU.
    loss
        Mean training loss over the samples trained; not finite where training diverged.
    seconds
        Virtual seconds from the start of the round until the server has the update.
    complete
        Whether all mini-batches were trained; devices begin none that would miss a deadline.
    training_macs
        Multiply-accumulates of all its mini-batches, forward and backward, all samples.
    cost_shares
        Cost of each mini-batch's vector relative to the full network, in the order trained.
    over_budget
        Mini-batches whose vector cost more than the budget, because none fitted.
    bytes_down, bytes_up
        Size of what was sent to the device and back.
    """

    device: int
    samples: int
    state: State
    masks: Tensor
    loss: float
    seconds: float
    complete: bool
    training_macs: float
    cost_shares: tuple[float, ...]
    over_budget: int
    bytes_down: int
    bytes_up: int

    @property
    def mini_batches(self) -> int:
        """Number of mini-batches trained."""
        return len(self.cost_shares)


@dataclass(frozen=True)
class DeviceRound:
    """Figures of one device in one round; see `Update` and `RoundResult`."""

    device: int
    device_class: str
    outcome: Outcome
    seconds: float
    training_macs: float
    mini_batches: int
    mean_cost_share: float | None
    over_budget: int
    bytes_down: int
    bytes_up: int


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
        Of the global network on held-out data; None in rounds that are not evaluated.
    training_macs
        Multiply-accumulates that the cohort spent in this round, whatever became of the updates.
    mini_batches
        Mini-batches that the cohort trained in this round.
    mean_cost_share
        Mean cost of these relative to the full network; None where there were none.
    over_budget
        How many of these cost more than the budget of their device.
    rejected
        Updates left out of the average because they could not be trusted.
    cohort
        Indices of the devices that took part, ascending.
    wasted_macs
        Multiply-accumulates of devices whose updates were not merged.
    missed
        Devices that missed the deadline and were not waited for.
    bytes_down, bytes_up
        What was sent to the cohort, and back.
    accuracy_by_class
        Accuracy by class of device: the accuracy for each label, weighted as the labels occur in
        the data of the devices of that class. Empty in rounds that are not evaluated.
    devices
        Figures of each device of the cohort; empty in runs that were stored without them.
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
    wasted_macs: float = 0.0
    missed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    accuracy_by_class: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[DeviceRound, ...] = ()


def round_result(
    number: int, virtual_seconds: float, devices: tuple[DeviceRound, ...]
) -> RoundResult:
    """Return the figures of a round without accuracy, summed over its devices."""
    batches = sum(one.mini_batches for one in devices)
    shares = math.fsum((one.mean_cost_share or 0.0) * one.mini_batches for one in devices)
    return RoundResult(
        round=number,
        virtual_seconds=virtual_seconds,
        accuracy=None,
        loss=None,
        training_macs=math.fsum(one.training_macs for one in devices),
        mini_batches=batches,
        mean_cost_share=shares / batches if batches else None,
        over_budget=sum(one.over_budget for one in devices),
        rejected=sum(one.outcome == "rejected" for one in devices),
        cohort=tuple(one.device for one in devices),
        wasted_macs=math.fsum(one.training_macs for one in devices if one.outcome not in MERGED),
        missed=sum(one.outcome == "missed" for one in devices),
        bytes_down=sum(one.bytes_down for one in devices),
        bytes_up=sum(one.bytes_up for one in devices),
        devices=devices,
    )
