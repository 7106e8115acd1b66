"""The device's half of a run on Flower: it has data, front and budget, and picks by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from distreal_dse.cost import LatencySamples, StepTimer
from distreal_dse.data.batches import fetch, size_of
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DataError, FrontError, InputError
from distreal_dse.fronts import Front, find_front
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.client import VirtualTraining, train_locally, virtual_training
from fl.flower.config import AppConfig, NodeConfig
from fl.flower.pieces import pack_bits, put, take
from fl.flower.words import Greeting, Hello, Order, Plan, RefusedError
from fl.live import CpuLoad, LiveBudget
from fl.pacers import LivePacer, Pacer
from fl.planning import begun_plan, mask_draws
from fl.results import State, Update
from fl.store.specs import RunSpec
from fl.world.devices import Device
from fl.world.splits import labels_of, split_dataset

_logger = logging.getLogger("flwr")

Arrays = Mapping[str, npt.NDArray[np.generic]]

OwnData: TypeAlias = Callable[[Study, Data, int, RunSpec], Dataset[Any]]
"""Gives the training data of a device, from the study, its data, the device's index and the run."""

# Steps of the full network that tell how fast a device is, where its front does not.
TIMED_STEPS = 7
# What `front reprice` writes into the settings of a front: from which one it was made.
REPRICED = "repriced from"
REFERENCE = "reference-seconds"


def simulated_data(study: Study, data: Data, device: int, spec: RunSpec) -> Dataset[Any]:
    """Give a device its part of the study's training data, as the run's split deals it."""
    return Subset(data.train, _shards(data, spec)[device].tolist())


@lru_cache(maxsize=1)
def _shards(data: Data, spec: RunSpec) -> list[Tensor]:
    settings = spec.settings()
    classes = [one.device_class for one in settings.population()]
    return split_dataset(settings.split, data.train, classes, spec.seed)


@dataclass(frozen=True, eq=False)
class Equipment:
    """What the devices of a process share: all but data and budgets.

    Parameters
    ----------
    app
        What the app is told, as it holds on these devices.
    study, data, front
        Of the run; a front where the run has one.
    start
        The values that the network starts from.
    training
        Its data set is that of one device.
    """

    app: AppConfig
    study: Study
    data: Data
    front: Front | None
    start: State
    training: VirtualTraining
    devices: list[Device]
    own: dict[int, Dataset[Any]] = field(default_factory=dict)


def equip(app: AppConfig) -> Equipment:
    """Build what devices need for a run.

    Raises
    ------
    DistrealError
        If study, data, front or a setting can't be used.
    """
    spec = app.spec
    study = StudySource(spec.study, spec.options).load()
    front = _own_front(app)
    network, data = prepare(study, spec.seed, spec.device)
    if front is not None:
        front.check_model(network.channels.fingerprint, f"study {study.name}")
    settings = spec.settings()
    strategy = spec.made_strategy(study, network, front)
    training = virtual_training(study, data.train, network, strategy, front, settings)
    start = training.network.copy_state()
    return Equipment(app, study, data, front, start, training, settings.population())


def _own_front(app: AppConfig) -> Front | None:
    if app.spec.front is None:
        return None
    try:
        return find_front(app.storage, app.spec.front)
    except FrontError as error:
        raise FrontError(
            f"{error}; a device has its own copy: give --node-config 'front=\"FILE.json\"' to its "
            "SuperNode, with what `distreal-dse front export` wrote"
        ) from error


@dataclass(frozen=True, eq=False)
class Done:
    """What a device has done in a round.

    Parameters
    ----------
    update
        Its update; the state holds anything in what was not trained.
    packed
        Which units were trained, as `pack_bits` packs them.
    part
        Of its state, that belongs to these.
    """

    update: Update
    packed: bytes
    part: Arrays


class Participant:
    """A device that takes part in a run.

    Parameters
    ----------
    equipment
        What it shares with others of its process.
    node
        What it alone was told.
    own_data
        Gives its data.
    memory
        What its live budget learned before; changed as it learns.

    Raises
    ------
    DistrealError
        If its data can't be used.
    """

    def __init__(
        self,
        equipment: Equipment,
        node: NodeConfig,
        own_data: OwnData = simulated_data,
        memory: dict[str, float] | None = None,
    ) -> None:
        self._equipment, self._node = equipment, node
        self._memory = {} if memory is None else memory
        app, own = equipment.app, equipment.own
        if node.device not in own:
            own[node.device] = own_data(equipment.study, equipment.data, node.device, app.spec)
        dataset = own[node.device]
        if (held := size_of(dataset)) < 1:
            raise DataError(f"data of device {node.device}: expected a sample or more, found none")
        self._training = replace(equipment.training, dataset=dataset, labels=labels_of(dataset))
        self._samples = torch.arange(held)
        self._device = equipment.devices[node.device]
        if app.time == "live":
            self._device = Device(node.device, node.device_class, node.speed)
        self._live: LiveBudget | None = None
        torch.set_num_threads(node.threads)

    @property
    def units(self) -> int:
        """Units of the network that is trained."""
        return sum(self._network.full_counts)

    @property
    def _network(self) -> DroppableNetwork:
        return self._training.network

    def greet(self, hello: Hello) -> Greeting:
        """Say which device it is.

        Raises
        ------
        RefusedError
            If the server trains another network, or with another front.
        """
        study, spec = self._equipment.study, self._equipment.app.spec
        if (model := self._network.channels.fingerprint) != hello.model:
            raise RefusedError(
                f"device {self._device.index} has another model than the server in study "
                f"{study.name} with {spec.strategy}: expected fingerprint {hello.model}, found "
                f"{model}; give it the server's study"
            )
        self._check_front(hello.front_hash, hello.front or "the server's")
        front = self._equipment.front
        if self._equipment.app.time == "live" and (front is None or front.cost_metric == "macs"):
            _logger.warning(
                "budgets of device %d are in MACs, which are not proportional to time, so it takes "
                "smaller vectors than it could; price the front here with `distreal-dse front "
                "reprice`, and give it that one",
                self._device.index,
            )
        training, device = self._training, self._device
        plan = begun_plan(training, device, self._samples, 1, training.clock.reference_cost)
        everything = plan.sent() is None
        return Greeting(device.index, device.device_class, len(self._samples), everything)

    def plan(self, order: Order) -> Plan:
        """Say what it needs for a round.

        Raises
        ------
        RefusedError
            If the server trains with another front.
        """
        self._check_front(order.front_hash)
        budget = self._pacer(order).first_budget()
        training, device, number = self._training, self._device, order.round
        plan = begun_plan(training, device, self._samples, number, budget)
        counts, widths = plan.sent(), self._network.full_counts
        if counts is None:
            return Plan(budget, None)
        if counts == widths:
            return Plan(budget, torch.ones(self.units, dtype=torch.bool))
        # What is sent stays for the round, or holds all that is drawn: so this first mask does.
        draws = mask_draws(training.seed, device, number)
        return Plan(budget, plan.masks.draw(widths, counts, draws))

    def train(self, order: Order, part: Arrays) -> Done:
        """Train a round.

        Parameters
        ----------
        order
            The round.
        part
            Of the global state, as the device said that it needs it.

        Raises
        ------
        RefusedError
            If the server trains with another front.
        InputError
            If the part is none of the state, or the strategy trained more than it said.
        """
        self._check_front(order.front_hash)
        training, channels = self._training, self._network.channels
        everything = torch.ones(self.units, dtype=torch.bool)
        units = None if order.plan is None else order.plan.units
        given = everything if units is None else units
        state = put(part, self._equipment.start, given, channels)
        pacer = self._pacer(order)
        update = train_locally(training, self._device, self._samples, state, order.round, pacer)
        if isinstance(pacer, LivePacer):
            self._tell(order.round, update, pacer)
        trained = update.masks.any(0)
        if bool((trained & ~given).any()):
            raise InputError(
                f"strategy '{training.strategy.name}': expected a plan to train what it sends for "
                f"at most, found {int((trained & ~given).sum())} units beside it; mend the strategy"
            )
        return Done(update, pack_bits(trained), take(update.state, trained, channels))

    def _tell(self, number: int, update: Update, pacer: LivePacer) -> None:
        """Say what a round in the device's own time was like."""
        assert self._live is not None
        shares = update.cost_shares or (0.0,)
        _logger.info(
            "round %d: %d mini-batches of %.1f to %.1f %% of the full cost, %.0f %% of them within "
            "the slot of %.3g s, steps %.2f times as slow as idle",
            number, update.mini_batches, 100 * min(shares), 100 * max(shares),
            100 * pacer.kept_to_slot, self._live.slot_seconds, self._live.slowdown,
        )  # fmt: skip

    def _check_front(self, expected: str, label: str = "the server's") -> None:
        """Refuse another front than the server's, or one that was priced here from that.

        Where a device lives in its own time, the vectors are the server's and the costs its own.
        """
        front = self._equipment.front
        found = front.content_hash if front else ""
        priced_from = front.settings.get(REPRICED) if front else None
        here = isinstance(priced_from, Mapping) and priced_from.get("hash") == expected != ""
        if found == expected or (here and self._equipment.app.time == "live"):
            return
        own = f"{front.label} of hash {found}" if front else "none"
        raise RefusedError(
            f"device {self._device.index} has another front than the server: expected "
            f"{label} of hash {expected or 'none'}, found {own}; give it the server's"
        )

    def _pacer(self, order: Order) -> Pacer:
        """Return what keeps the time of a round that starts now."""
        device, training = self._device, self._training
        if self._equipment.app.time == "virtual":
            return training.pacer(device, order.round, order.start, order.deadline)
        reference = training.clock.reference_cost
        return LivePacer(
            self._live_budget(),
            reference,
            training.study.batch_size,
            order.start,
            within=float(order.deadline - order.start),
            first=None if order.plan is None else order.plan.budget,
        )

    def remember(self) -> None:
        """Keep what the live budget has learned, for the next message to this device."""
        if self._live is not None:
            self._memory.update(self._live.state_dict())

    def _live_budget(self) -> LiveBudget:
        if self._live is None:
            training, node = self._training, self._node
            seconds = self._full_seconds()
            self._live = LiveBudget(
                training.clock.reference_cost,
                reference_seconds=seconds,
                slot_seconds=node.slot or seconds * training.clock.pace,
                load=CpuLoad(node.threads),
            )
            self._live.load_state_dict(self._memory)
        return self._live

    def _full_seconds(self) -> float:
        """Return what a mini-batch of the full network takes on this device when it is idle."""
        front = self._equipment.front
        if front is not None and front.cost_metric == "latency":
            return front.reference_cost
        if REFERENCE not in self._memory:
            study, network = self._training.study, self._network
            inputs, _ = fetch(self._training.dataset, torch.tensor([0]))
            timer = StepTimer(
                study, network, inputs.shape[1:], study.batch_size, self._node.threads
            )
            full = network.full_counts
            samples = LatencySamples(full)
            timer.measure([full], TIMED_STEPS, samples)
            self._memory[REFERENCE] = samples.latencies([full]).full.median
        return self._memory[REFERENCE]
