"""The device's half of a round: train the global network on local data within the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts, Proximal
from distreal_dse.fronts import Front
from distreal_dse.study import Study
from distreal_dse.support.seeding import generator, seeded
from fl.learning_rates import scale_learning_rate, set_learning_rate
from fl.masking import masked
from fl.optimizer_settings import set_option
from fl.pacers import Pacer, VirtualPacer
from fl.results import State, Update
from fl.schedules import Constant
from fl.settings import RunSettings
from fl.strategies.base import LocalPlan, Strategy
from fl.strategies.contract import check_begun, trained_network
from fl.world.availability import Availability
from fl.world.clock import Clock, make_clock
from fl.world.devices import Device
from fl.world.exact import Seconds, exact
from fl.world.splits import labels_of
from fl.world.transfer import state_sizes


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What trains, the same for all devices and rounds of a run; a `Pacer` keeps the time.

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
    size_of
        Bytes of a sub-network with these kept counts.
    strategy
        Plans what devices train.
    labels
        Class index of each sample of ``dataset``, shape [N].
    masked_loss
        Whether the loss leaves out the classes that a device has no sample of (see `masked`).
    epochs
        Passes of a device over its data per round.
    seed
        Of the run; data order, masks and availability of a device and round derive from it.
    rate_factor
        Of the learning rate, by round and the seconds at its start (see `fl.schedules`).
    """

    study: Study
    dataset: Dataset[Any]
    network: DroppableNetwork
    macs: MacCost
    size_of: Callable[[KeptCounts], int]
    strategy: Strategy
    labels: Tensor
    masked_loss: bool
    epochs: int
    seed: int
    rate_factor: Callable[[int, Seconds], float] = Constant().over(1, None)


@dataclass(frozen=True, kw_only=True)
class VirtualTraining(LocalTraining):
    """What trains, on devices of which all is known.

    Parameters
    ----------
    availability
        Free share of a device's compute.
    clock
        Gives budgets and virtual seconds.
    """

    availability: Availability
    clock: Clock

    def pacer(
        self, device: Device, round_number: int, now: Seconds, deadline: Seconds = math.inf
    ) -> VirtualPacer:
        """Return what keeps the virtual time of a device in a round; see `VirtualPacer`."""
        slot, start = self.clock.slots(1), exact(now)
        timeline = self.availability.timeline(device, round_number, start, slot, self.seed)
        share = self.availability.mean_share() if self.strategy.chosen == "per run" else None
        return VirtualPacer(self.clock, device, timeline, start, deadline, share)


def virtual_training(
    study: Study,
    dataset: Dataset[Any],
    full: DroppableNetwork,
    strategy: Strategy,
    front: Front | None,
    settings: RunSettings,
) -> VirtualTraining:
    """Return what trains in a run, and its clock.

    Parameters
    ----------
    study, settings
        Of the run.
    dataset
        Training data of the devices that are trained with it.
    full
        The full network.
    strategy
        Of the run; its ``network()`` is called.
    front
        Gives the unit and the cost of the full network; None counts in MACs.

    Raises
    ------
    FrontError
        If latencies of the front were measured with mini-batches of another size.
    InputError
        If the strategy's network, plans or averages can't be used, its schedule does not fit, or
        the optimiser has no setting that it replaces.
    """
    clock = make_clock(front, MacCost(full.channels), study.batch_size, settings.pace)
    network = trained_network(strategy, full)
    schedule = strategy.schedule or settings.schedule
    schedule.check(settings.rounds)
    training = VirtualTraining(
        study=study,
        dataset=dataset,
        network=network,
        macs=MacCost(network.channels),
        size_of=state_sizes(network.module.state_dict(), network.channels),
        strategy=strategy,
        availability=settings.availability,
        clock=clock,
        labels=labels_of(dataset),
        masked_loss=settings.masked_loss,
        epochs=settings.local_epochs,
        seed=settings.seed,
        rate_factor=schedule.over(settings.rounds, settings.until),
    )
    check_begun(strategy, network, clock.reference_cost)
    device_optimizer(study, network, strategy)  # refuses settings that it has not
    return training


def train_virtually(
    training: VirtualTraining,
    device: Device,
    samples: Tensor,
    state: State,
    round_number: int,
    now: Seconds,
    deadline: Seconds = math.inf,
) -> Update:
    """Train one round of one device in virtual time; see `train_locally` and `VirtualPacer`.

    Parameters
    ----------
    training
        The run's common part; its network is overwritten.
    device, samples, state, round_number
        As for `train_locally`.
    now, deadline
        Virtual seconds since the start of the run: when the round starts, and by when the server
        has to have the update.
    """
    pacer = training.pacer(device, round_number, now, deadline)
    return train_locally(training, device, samples, state, round_number, pacer)


def train_locally(
    training: LocalTraining,
    device: Device,
    samples: Tensor,
    state: State,
    round_number: int,
    pacer: Pacer,
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
    pacer
        Says what each mini-batch may cost, and which is the last that is done in time.

    Returns
    -------
    Update
        In virtual time, depends on the arguments alone, not on what was trained before.
    """
    study, network = training.study, training.network
    key = (device.index, round_number)
    network.load_state(state)
    where = next(network.module.parameters()).device
    plan = begun_plan(training, device, samples, round_number, pacer.first_budget())
    optimizer = device_optimizer(study, network, training.strategy)
    scale_learning_rate(optimizer, training.rate_factor(round_number, pacer.start))
    trainer = DropoutTrainer(
        network,
        optimizer,
        plan.loss,
        plan.masks,
        mask_draws(training.seed, device, round_number),
        study.clip_norm,
        Proximal(prox, state) if (prox := training.strategy.proximal) else None,
    )
    order = generator(training.seed, "order", *key)
    size = training.size_of(plan.sent() or network.full_counts)
    pacer.transfers(size)
    macs = total_loss = 0.0
    trained = over_budget = 0
    complete = True
    cost_shares: list[float] = []
    masks = [trainer.last_mask[None][:0]]
    # Ordinary dropout layers and random augmentation draw from the global generator.
    holding = trainer.holding() if plan.only_steps else nullcontext()
    with seeded(training.seed, "layers", *key), holding:
        for batch in _mini_batches(samples, study.batch_size, training.epochs, order):
            budget = pacer.budget()
            if budget is None:
                complete = False
                break
            vector = plan.pick(budget)
            if not pacer.begins(vector.cost, len(batch)):
                complete = False
                break
            inputs, targets = fetch(training.dataset, batch)
            loss = plan.step(trainer, inputs.to(where), targets.to(where), vector)
            pacer.done()
            macs += plan.training_macs(training.macs, vector) * len(batch)
            total_loss += loss * len(batch)
            trained += len(batch)
            cost_shares.append(vector.cost / pacer.reference_cost)
            masks.append(trainer.last_mask[None])
            over_budget += vector.cost > budget
            if not math.isfinite(loss):
                break
    return Update(
        device=device.index,
        samples=len(samples),
        state=network.copy_state(),
        masks=torch.cat(masks),
        loss=total_loss / trained if trained else 0.0,
        seconds=pacer.seconds(),
        complete=complete,
        training_macs=macs,
        cost_shares=tuple(cost_shares),
        over_budget=over_budget,
        bytes_down=size,
        bytes_up=size,
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


def device_optimizer(study: Study, network: DroppableNetwork, strategy: Strategy) -> Optimizer:
    """Make the optimiser of the study, with what the strategy has of its own.

    Raises
    ------
    InputError
        If it has no such setting.
    """
    optimizer = study.optimizer(network.module.parameters())
    if (rate := strategy.learning_rate) is not None:
        set_learning_rate(optimizer, rate)
    for option in ("momentum", "weight_decay"):
        if (value := getattr(strategy, option)) is not None:
            set_option(optimizer, option, value)
    return optimizer


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
