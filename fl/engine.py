"""Federated training in one process, round by round, on a virtual clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from distreal_dse.data.batches import size_of
from distreal_dse.data.evaluation import evaluate
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front
from distreal_dse.study import Data, Study
from fl.client import virtual_training
from fl.clients import Clients, Task
from fl.cohort import clients_here
from fl.contents import file_hashes, study_hash
from fl.merging import Checkpoint, Held, Merging, device_rounds, limited_rules
from fl.planning import count_mini_batches
from fl.results import MERGED, DeviceRound, Outcome, RoundResult, State, Update, round_result
from fl.server import select_cohort
from fl.server_optimizers import Replace, ServerOptimizer
from fl.settings import RunSettings
from fl.strategies import Strategy
from fl.world.availability import Timeline
from fl.world.devices import Device
from fl.world.exact import Seconds, exact
from fl.world.splits import split_dataset


class FederatedRun:
    """A federated run: devices that train, a server that merges, a clock.

    Same arguments and same initial network on one machine, same results, whether the run went
    through or was resumed, and whoever trains the clients.

    Parameters
    ----------
    study
        Gives the loss, the optimiser and the batch size.
    data
        ``train`` is split over the devices; accuracy and loss are those on ``test``, or on what
        the settings say.
    network
        Starts from the values that it has, such as those that
        `distreal_dse.study.preparation.prepare` gave it.
    strategy
        What devices train and how updates are merged.
    front
        Gives the cost unit and the cost of the full network; None counts in MACs.
    settings
        All else.
    server
        What the server makes of merged updates; None replaces the global state by them.

    Raises
    ------
    InputError
        If the split refuses the training data: there are too few samples, say. If a schedule of
        learning rates does not fit the number of rounds. If the strategy's plans or averages can't
        be used, or the optimiser has no setting that the strategy replaces.
    FrontError
        If the front is for another network.
    """

    def __init__(
        self,
        study: Study,
        data: Data,
        network: DroppableNetwork,
        strategy: Strategy,
        front: Front | None,
        settings: RunSettings,
        server: ServerOptimizer | None = None,
    ) -> None:
        if front is not None:
            front.check_model(network.channels.fingerprint, f"study {study.name}")
        size = size_of(data.train)
        self.front, self.fingerprint = front, network.channels.fingerprint
        server = server or Replace()
        server.schedule.check(settings.rounds)
        parameters = network.module.parameters()
        self.training = virtual_training(study, data.train, network, strategy, front, settings)
        labels, clock = self.training.labels, self.training.clock
        self.contents = {
            "study": study_hash(study, parameters, labels, size_of(data.test)),
            **file_hashes(settings),
        }
        self._data, self.settings = data, settings
        self._server = server
        self._server_factor = server.schedule.over(settings.rounds, settings.until)
        self._devices = settings.population()
        classes = [device.device_class for device in self._devices]
        self._shards = split_dataset(settings.split, data.train, classes, settings.seed)
        self._labels_by_class = self._count_labels(labels)
        self._rules = limited_rules(strategy, settings.rules)
        batches = -(-size // (settings.devices * study.batch_size)) * settings.local_epochs
        deadline = self._rules.deadline
        self._deadline: Seconds = (
            math.inf if deadline is None else clock.slots(exact(deadline) * batches)
        )
        network = self.network
        self._merging = Merging(
            network, strategy, self._rules, settings.cohort, settings.robust, settings.masked_loss
        )
        self._state: Mapping[str, Tensor] = network.copy_state()
        self._now, self._round = 0.0, 0
        self._begin = self._next_begin()

    @property
    def finished(self) -> bool:
        """Whether no round is left."""
        until = self.settings.until
        return self._round >= self.settings.rounds or (until is not None and self._begin >= until)

    @property
    def finished_round(self) -> int:
        """Number of the round that was finished last; 0 before the first."""
        return self._round

    @property
    def network(self) -> DroppableNetwork:
        """The network that is trained; after each round, it holds the global state."""
        return self.training.network

    def checkpoint(self) -> Checkpoint:
        """Return what is needed to go on after the round that was finished last."""
        return Checkpoint(self._round, self._now, self._state, self._server.state_dict())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on after the round of a checkpoint of the same run.

        Raises
        ------
        InputError
            If its state is of another network.
        """
        checkpoint.check(self._state, self.training.study.name)
        where = next(self.network.module.parameters()).device
        self._state = {name: tensor.to(where) for name, tensor in checkpoint.state.items()}
        self.network.load_state(self._state)
        self._server.load_state_dict({n: t.to(where) for n, t in checkpoint.server.items()})
        self._now, self._round = checkpoint.virtual_seconds, checkpoint.round
        self._begin = self._next_begin()

    def rounds(self, clients: Clients | None = None) -> Iterator[RoundResult]:
        """Train the rounds that are left; yields the figures of each when it is done.

        Stopping between or within rounds loses the round at work and no other. A run that begins
        yields round 0 first, before any training. Where no device is available, the next round
        begins as soon as one is.

        Raises
        ------
        InputError
            If rounds are left and no device is ever available again.
        """
        clients = clients or clients_here(self.training)
        if self._round == 0:
            yield self._result([], [], True)
        while not self.finished:
            yield self._next_round(clients)

    def _next_round(self, clients: Clients) -> RoundResult:
        tasks = self._select()
        updates = self._train(tasks, clients)
        held = [len(task.samples) for task in tasks]
        batch_size, epochs = self.training.study.batch_size, self.training.epochs
        due = [count_mini_batches(samples, batch_size, epochs) for samples in held]
        judged = self._merging.judge(self._state, updates, Held(held, due), self._deadline)
        merged = self._merging.merge(self._state, judged, self._labels_of)
        self._step(merged, judged.seconds)
        evaluated = self._round % self.settings.evaluate_every == 0 or self.finished
        return self._result(updates, judged.outcomes, evaluated)

    def _select(self) -> list[Task]:
        """Choose who takes part in the next round, by ascending index.

        Raises
        ------
        InputError
            If nobody can.
        """
        settings, number = self.settings, self._round + 1
        if math.isinf(self._begin):
            raise InputError(
                f"round {number} of {settings.rounds} can't begin: expected a device that is "
                f"available some time after {self._now:g} virtual s, found none; give devices that "
                "come back, or end the run by then with --until"
            )
        cohort = select_cohort(
            self._devices,
            self._rules.begun(settings.cohort),
            number,
            settings.seed,
            self._is_available,
        )
        if not cohort:
            raise InputError(
                f"round {number} can't begin: expected a device that is available at "
                f"{self._begin:g} virtual s, as {type(settings.availability).__name__} said "
                f"at {self._now:g} s, found none; shares of 0 have to follow virtual time alone"
            )
        return [Task(device, self._shards[device.index]) for device in cohort]

    def _train(self, tasks: Sequence[Task], clients: Clients) -> list[Update]:
        """Train the cohort from the global state; return the updates in the order of the tasks."""
        start = exact(self._begin)
        deadline = math.inf if self._rules.late == "wait" else start + self._deadline
        return clients.train(tasks, self._state, self._round + 1, start, deadline)

    def _labels_of(self, device: int) -> Tensor:
        return self.training.labels[self._shards[device]]

    def _step(self, merged: State | None, seconds: float) -> None:
        """Move the global state towards what was merged, and the clock to the round's end."""
        state = self._state
        if merged is not None:
            factor = self._server_factor(self._round + 1, self._begin)
            state = self._server.step(state, merged, factor)
        self.network.load_state(state)
        self._state, self._now, self._round = state, self._begin + seconds, self._round + 1
        self._begin = self._next_begin()

    def _next_begin(self) -> float:
        """Virtual seconds at which some device is available for the next round; maybe infinite."""
        now, first = exact(self._now), math.inf
        for device in self._devices:
            free = self._timeline(device, now).next_free(now)
            if free <= now:
                return self._now
            first = min(first, _rounded_up(free))
        return first

    def _is_available(self, device: Device) -> bool:
        begin = exact(self._begin)
        return self._timeline(device, begin).at(begin)[0] > 0

    def _timeline(self, device: Device, start: Fraction) -> Timeline:
        slot, number = self.training.clock.slots(1), self._round + 1
        return self.settings.availability.timeline(device, number, start, slot, self.settings.seed)

    def _result(
        self, updates: Sequence[Update], outcomes: Sequence[Outcome], evaluated: bool
    ) -> RoundResult:
        devices = device_rounds(updates, outcomes, lambda i: self._devices[i].device_class)
        result = round_result(self._round, self._now, devices)
        if not evaluated:
            return result
        module, data, loss = self.network.module, self._data, self.training.study.loss
        held_out = data.test if self.settings.evaluate_on == "test" else data.validation
        where = next(module.parameters()).device
        score = evaluate(module, held_out, loss, self.calibration(devices), where)
        return replace(
            result,
            accuracy=score.accuracy,
            loss=score.loss,
            accuracy_by_class=self._by_class(score.by_label),
        )

    def calibration(self, devices: Sequence[DeviceRound]) -> Dataset[Any] | None:
        """Return the samples that statistics are measured on after a round of these devices.

        None for the statistics of the state.
        """
        if self.settings.statistics == "averaged":
            return None
        merged = [one.device for one in devices if one.outcome in MERGED]
        asked = merged or [one.device for one in devices]
        if self.settings.statistics == "all" or not asked:
            return self._data.train
        indices = torch.cat([self._shards[device] for device in asked])
        return Subset(self._data.train, indices.tolist())

    def _count_labels(self, labels: Tensor) -> dict[str, Counter[int]]:
        found: dict[str, Counter[int]] = {}
        for device in self._devices:
            counts = found.setdefault(device.device_class, Counter())
            counts.update(labels[self._shards[device.index]].tolist())
        return found

    def _by_class(self, by_label: Mapping[int, float]) -> dict[str, float]:
        """Weight accuracies as labels occur in the data of each class of device."""
        found = {}
        for name, counts in self._labels_by_class.items():
            known = {label: n for label, n in counts.items() if label in by_label}
            total = sum(known.values())
            if total:
                found[name] = sum(n * by_label[label] for label, n in known.items()) / total
        return found


def _rounded_up(seconds: Seconds) -> float:
    """Return the first float that is not before a time."""
    found = float(seconds)
    early = math.isfinite(found) and exact(found) < seconds
    return math.nextafter(found, math.inf) if early else found
