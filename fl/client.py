"""The device's half of a round: train the global network on local data within the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from distreal_dse.batches import fetch
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork
from distreal_dse.seeding import generator, seeded
from distreal_dse.study import Study
from fl.availability import Availability
from fl.clock import Clock
from fl.devices import Device
from fl.results import State, Update
from fl.strategies.base import Strategy


@dataclass(frozen=True)
class LocalTraining:
    """What is the same for all devices and rounds of a run.

    Parameters
    ----------
    study
        Gives the loss, the optimiser and the batch size.
    dataset
        The training data of all devices.
    network
        Trained in place, one device after the other.
    macs
        Counts the MACs of a vector of ``network``.
    strategy
        Picks the vector of each mini-batch.
    availability
        Free share of a device's compute.
    clock
        Gives budgets and virtual seconds.
    epochs
        Passes of a device over its data per round.
    seed
        Of the run; data order, masks and availability of a device and round derive from it.
    """

    study: Study
    dataset: Dataset[Any]
    network: DroppableNetwork
    macs: MacCost
    strategy: Strategy
    availability: Availability
    clock: Clock
    epochs: int
    seed: int


def train_locally(
    training: LocalTraining,
    device: Device,
    samples: Tensor,
    state: State,
    round_number: int,
    now: float,
) -> Update:
    """Train one round of one device.

    The optimiser starts anew each round, so momentum is the device's own and of this round (our
    own choice). A loss that is not finite ends the round of the device; the update then carries
    it, for the server to reject.

    Parameters
    ----------
    training
        The run's common part; its network is overwritten.
    device
        Who trains.
    samples
        Indices of its samples, shape [N], N ≥ 1.
    state
        The global state that the round starts from; not changed.
    round_number
        Number of the round.
    now
        Virtual seconds since the start of the run.

    Returns
    -------
    Update
        Depends on the arguments alone, not on what was trained before.
    """
    study, network, clock = training.study, training.network, training.clock
    key = (device.index, round_number)
    network.module.load_state_dict(state)  # in place: sub-networks read and write these tensors
    where = next(network.module.parameters()).device
    masks = training.strategy.masks()
    masks.start_round(round_number)
    trainer = DropoutTrainer(
        network,
        study.optimizer(network.module.parameters()),
        study.loss,
        masks,
        generator(training.seed, "masks", *key),
        study.clip_norm,
    )
    free_share = training.availability.begin_round(device, round_number, training.seed)
    order = generator(training.seed, "order", *key)
    seconds = macs = total_loss = 0.0
    trained = over_budget = 0
    cost_shares = []
    # Ordinary dropout layers and random augmentation draw from the global generator.
    with seeded(training.seed, "layers", *key):
        for batch in _mini_batches(samples, study.batch_size, training.epochs, order):
            capacity = device.speed * free_share(now + seconds)
            budget = clock.budget(capacity)
            vector = training.strategy.pick(device, budget)
            inputs, targets = fetch(training.dataset, batch)
            loss = trainer.step(inputs.to(where), targets.to(where), vector.kept_counts)
            seconds += clock.seconds(vector.cost, capacity, len(batch))
            macs += training.macs.training(vector.kept_counts) * len(batch)
            total_loss += loss * len(batch)
            trained += len(batch)
            cost_shares.append(vector.cost / clock.reference_cost)
            over_budget += vector.cost > budget
            if not math.isfinite(loss):
                break
    return Update(
        device=device.index,
        samples=len(samples),
        state=copy_state(network.module),
        loss=total_loss / trained if trained else 0.0,
        seconds=seconds,
        training_macs=macs,
        cost_shares=tuple(cost_shares),
        over_budget=over_budget,
    )


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Copy parameters and buffers by name; what happens to the module later leaves them alone."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


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
