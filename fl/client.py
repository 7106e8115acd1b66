"""The device's half of a round: train the global network on local data within the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from fl.learning_rates import scale_learning_rate, set_learning_rate
from fl.optimizer_settings import set_option
from fl.pacers import Pacer, VirtualPacer
from fl.planning import LocalRound, Step, layer_draws, mask_draws
from fl.results import State, Update
from fl.schedules import Constant
from fl.settings import RunSettings
from fl.strategies.base import Strategy
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
    network.load_state(state)
    where = next(network.module.parameters()).device
    local = LocalRound(training, device, samples, round_number, pacer)
    trainer = DropoutTrainer(
        network,
        round_optimizer(training, round_number, pacer.start),
        local.plan.loss,
        local.plan.masks,
        mask_draws(training.seed, device, round_number),
        study.clip_norm,
        Proximal(prox, state) if (prox := training.strategy.proximal) else None,
    )
    steps: list[Step] = []
    losses: list[float] = []
    masks = [trainer.last_mask[None][:0]]
    holding = trainer.holding() if local.plan.only_steps else nullcontext()
    with layer_draws(training.seed, device, round_number), holding:
        for step in local.steps():
            inputs, targets = fetch(training.dataset, step.batch)
            loss = local.plan.step(trainer, inputs.to(where), targets.to(where), step.vector)
            pacer.done()
            steps.append(step)
            losses.append(loss)
            masks.append(trainer.last_mask[None])
            if not math.isfinite(loss):
                break
    return local.update(network.copy_state(), torch.cat(masks), steps, losses, pacer.seconds())


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


def round_optimizer(training: LocalTraining, round_number: int, start: Seconds) -> Optimizer:
    """Make the optimiser of a device's round, with the learning rate of that round.

    Parameters
    ----------
    training
        The run's common part.
    round_number, start
        Number of the round, and seconds since the start of the run at which it starts.
    """
    optimizer = device_optimizer(training.study, training.network, training.strategy)
    scale_learning_rate(optimizer, training.rate_factor(round_number, start))
    return optimizer
