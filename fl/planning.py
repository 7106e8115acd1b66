"""What a device trains in a round, before any of it is trained.

Vectors, masks, mini-batches and times follow from budgets and from randomness by name, and from no
weight. So a round can be planned to its end first, and trained in any order by whoever is fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distreal_dse.support.seeding import generator, seeded
from fl.masking import masked
from fl.pacers import Pacer
from fl.results import State, Update
from fl.strategies.base import LocalPlan, PricedVector
from fl.world.devices import Device

if TYPE_CHECKING:
    from fl.client import LocalTraining


@dataclass(frozen=True, eq=False)
class Step:
    """A mini-batch that a device trains.

    Parameters
    ----------
    batch
        Indices of its samples, shape [N].
    vector
        That was picked for it.
    over_budget
        Whether the vector costs more than the budget.
    """

    batch: Tensor
    vector: PricedVector
    over_budget: bool


class LocalRound:
    """The round of one device: `steps` gives one mini-batch after the other, `update` the end.

    Parameters
    ----------
    training
        The run's common part.
    device, samples, round_number, pacer
        As for `fl.client.train_locally`.
    """

    def __init__(
        self,
        training: LocalTraining,
        device: Device,
        samples: Tensor,
        round_number: int,
        pacer: Pacer,
    ) -> None:
        self._training, self._device, self._samples = training, device, samples
        self._round, self._pacer = round_number, pacer
        self.plan = begun_plan(training, device, samples, round_number, pacer.first_budget())
        """How the device trains."""
        self._size = training.size_of(self.plan.sent() or training.network.full_counts)
        pacer.transfers(self._size)
        self._complete = True

    @property
    def units(self) -> int:
        """Units of the network that is trained."""
        return sum(self._training.network.full_counts)

    def steps(self) -> Iterator[Step]:
        """Give the mini-batches; who trains one tells the pacer that it is done, then asks again.

        To be iterated once.
        """
        training, pacer = self._training, self._pacer
        order = generator(training.seed, "order", self._device.index, self._round)
        size, epochs = training.study.batch_size, training.epochs
        for batch in _mini_batches(self._samples, size, epochs, order):
            budget = pacer.budget()
            if budget is None:
                self._complete = False
                return
            vector = self.plan.pick(budget)
            if not pacer.begins(vector.cost, len(batch)):
                self._complete = False
                return
            yield Step(batch, vector, vector.cost > budget)

    def update(
        self,
        state: State,
        masks: Tensor,
        steps: Sequence[Step],
        losses: Sequence[float],
        seconds: float,
        complete: bool | None = None,
    ) -> Update:
        """Return what the device hands back.

        Parameters
        ----------
        state
            After its last mini-batch.
        masks
            Units that each mini-batch trained, shape [mini-batches, units], on the CPU.
        steps, losses
            Those that were trained, and their losses.
        seconds
            That the round took.
        complete
            Whether nothing was left for want of time; None for what came out as steps were given.
        """
        macs = total_loss = 0.0
        trained = 0
        for step, loss in zip(steps, losses, strict=True):
            macs += self.plan.training_macs(self._training.macs, step.vector) * len(step.batch)
            total_loss += loss * len(step.batch)
            trained += len(step.batch)
        return Update(
            device=self._device.index,
            samples=len(self._samples),
            state=state,
            masks=masks,
            loss=total_loss / trained if trained else 0.0,
            seconds=seconds,
            complete=self._complete if complete is None else complete,
            training_macs=macs,
            cost_shares=tuple(step.vector.cost / self._pacer.reference_cost for step in steps),
            over_budget=sum(step.over_budget for step in steps),
            bytes_down=self._size,
            bytes_up=self._size,
        )


def begun_plan(
    training: LocalTraining, device: Device, samples: Tensor, round_number: int, budget: float
) -> LocalPlan:
    """Return the plan of a device whose round begins with a budget, ready for mini-batches."""
    study = training.study
    plan = training.strategy.plan(device, round_number, budget, training.seed)
    plan.masks.start_round(round_number)
    plan.labels, plan.masked = training.labels[samples], training.masked_loss
    plan.loss = masked(study.loss, plan.labels) if plan.masked else study.loss
    return plan


def mask_draws(seed: int, device: Device, round_number: int) -> torch.Generator:
    """Return the randomness of a device's masks in a round, from its beginning."""
    return generator(seed, "masks", device.index, round_number)


def layer_draws(seed: int, device: Device, round_number: int) -> AbstractContextManager[None]:
    """Seed PyTorch's global generators: ordinary dropout and random augmentation draw from them."""
    return seeded(seed, "layers", device.index, round_number)


def count_mini_batches(samples: int, batch_size: int, epochs: int) -> int:
    """Return how many mini-batches a device of so many samples trains in a round."""
    whole, rest = divmod(samples, batch_size)
    return epochs * (whole + (rest > 1))


def _mini_batches(
    samples: Tensor, batch_size: int, epochs: int, random: torch.Generator
) -> Iterator[Tensor]:
    """All samples once per epoch in a new order; the last batch of an epoch may be smaller."""
    for _ in range(epochs):
        shuffled = samples[torch.randperm(len(samples), generator=random)]
        for batch in torch.split(shuffled, batch_size):
            # Batch normalisation can't train on one sample, so a single left-over is left out.
            if len(batch) > 1 or batch_size == 1:
                yield batch
