"""Federated training in one process, round by round, on a virtual clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from distreal_dse.batches import size_of
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.evaluation import evaluate
from distreal_dse.fronts import Front
from distreal_dse.study import Data, Study
from fl.averaging import average_classes
from fl.client import LocalTraining, count_mini_batches, device_optimizer
from fl.clients import Clients, InProcess, Task
from fl.contents import file_hashes, study_hash
from fl.masking import output_tensors
from fl.results import MERGED, DeviceRound, Outcome, RoundResult, State, Update, round_result
from fl.robust import defended
from fl.server import faults_of, select_cohort
from fl.server_optimizers import Replace, ServerOptimizer
from fl.settings import RunSettings
from fl.strategies import Strategy
from fl.strategies.contract import check_begun, trained_network
from fl.world.availability import Timeline
from fl.world.clock import make_clock
from fl.world.deadlines import RoundRules, arrived, settle
from fl.world.devices import Device
from fl.world.exact import Seconds, exact
from fl.world.splits import labels_of, split_dataset
from fl.world.transfer import state_sizes


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a run needs to go on after a round, beside its settings.

    ``server`` is the state of the server's optimiser.
    """

    round: int
    virtual_seconds: float
    state: Mapping[str, Tensor]
    server: Mapping[str, Tensor]


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
        Starts from the values that it has, such as those that `distreal_dse.preparation.prepare`
        gave it.
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
        labels = labels_of(data.train)
        parameters, tested = network.module.parameters(), size_of(data.test)
        self.contents = {
            "study": study_hash(study, parameters, labels, tested),
            **file_hashes(settings),
        }
        clock = make_clock(front, MacCost(network.channels), study.batch_size, settings.pace)
        network = trained_network(strategy, network)
        schedule = strategy.schedule or settings.schedule
        server = server or Replace()
        for one in (schedule, server.schedule):
            one.check(settings.rounds)
        self.training = LocalTraining(
            study=study,
            dataset=data.train,
            network=network,
            macs=MacCost(network.channels),
            size_of=state_sizes(network.module.state_dict(), network.channels),
            strategy=strategy,
            availability=settings.availability,
            clock=clock,
            labels=labels,
            masked_loss=settings.masked_loss,
            epochs=settings.local_epochs,
            seed=settings.seed,
            rate_factor=schedule.over(settings.rounds, settings.until),
        )
        check_begun(strategy, network, clock.reference_cost)
        device_optimizer(study, network, strategy)  # refuses settings that it has not
        self._data, self.settings = data, settings
        self._server = server
        self._server_factor = server.schedule.over(settings.rounds, settings.until)
        self._devices = settings.population()
        classes = [device.device_class for device in self._devices]
        self._shards = split_dataset(settings.split, data.train, classes, settings.seed)
        self._labels_by_class = self._count_labels(labels)
        self._rules = settings.rules
        if not strategy.limited:
            self._rules = RoundRules(overcommit=settings.rules.overcommit)
        batches = -(-size // (settings.devices * study.batch_size)) * settings.local_epochs
        deadline = self._rules.deadline
        self._deadline: Seconds = (
            math.inf if deadline is None else clock.slots(exact(deadline) * batches)
        )
        self._rows: list[str] = []  # of classes, where averaging has to heed who holds them
        if settings.masked_loss:
            self._rows = output_tensors(network.module, network.example)
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
        expected = {name: (one.shape, one.dtype) for name, one in self._state.items()}
        found = {name: (one.shape, one.dtype) for name, one in checkpoint.state.items()}
        if expected != found:
            raise InputError(
                f"checkpoint of round {checkpoint.round} is of another network than study "
                f"{self.training.study.name}: expected the run's own; was the study changed?"
            )
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
        clients = clients or InProcess(self.training)
        if self._round == 0:
            yield self._result([], [], True)
        while not self.finished:
            yield self._next_round(clients)

    def _next_round(self, clients: Clients) -> RoundResult:
        tasks = self._select()
        updates = self._train(tasks, clients)
        outcomes, seconds = self._settle(tasks, updates)
        screened, outcomes = self._defend(updates, outcomes)
        merged = self._merge(screened, outcomes)
        self._step(merged, seconds)
        evaluated = self._round % self.settings.evaluate_every == 0 or self.finished
        return self._result(updates, outcomes, evaluated)

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

    def _settle(
        self, tasks: Sequence[Task], updates: Sequence[Update]
    ) -> tuple[list[Outcome], float]:
        """Judge the updates; return what becomes of each, and how long the round took."""
        training, rules = self.training, self._rules
        held = [len(task.samples) for task in tasks]
        due = [
            count_mini_batches(samples, training.study.batch_size, training.epochs)
            for samples in held
        ]
        judged = [i for i, update in enumerate(updates) if arrived(update, rules.late)]
        faults = faults_of(
            [updates[i] for i in judged],
            self._state,
            sum(self.network.full_counts),
            held=[held[i] for i in judged],
            due=[due[i] for i in judged],
        )
        refused = {i for i, fault in zip(judged, faults, strict=True) if fault is not None}
        trusted = [i not in refused for i in range(len(updates))]
        deadline = float(self._deadline)
        return settle(updates, trusted, due, self.settings.cohort, deadline, rules.late)

    def _defend(
        self, updates: list[Update], outcomes: list[Outcome]
    ) -> tuple[list[Update], list[Outcome]]:
        """Let the defence judge the updates that count; return what it makes of all."""
        defence = self.settings.robust
        places = [i for i, outcome in enumerate(outcomes) if outcome in MERGED]
        if defence is None or not places:
            return updates, outcomes
        counted = [updates[i] for i in places]
        screened, judged = list(updates), list(outcomes)
        for i, one in zip(
            places, defence.screen(self._state, counted, self.network.channels), strict=True
        ):
            if one is None:
                judged[i] = "rejected"
            else:
                screened[i] = one
        return screened, judged

    def _merge(self, updates: Sequence[Update], outcomes: Sequence[Outcome]) -> State | None:
        """Average the updates that count; None where there are none."""
        merged = [u for u, outcome in zip(updates, outcomes, strict=True) if outcome in MERGED]
        if not merged:
            return None
        aggregate = defended(self.settings.robust, self.training.strategy.aggregate)
        channels = self.network.channels
        if not self._rows:
            return aggregate(self._state, merged, channels)
        classes = len(self._state[self._rows[0]])
        labels = [self.training.labels[self._shards[update.device]] for update in merged]
        holds = torch.stack([own.bincount(minlength=classes) > 0 for own in labels])
        return average_classes(aggregate, self._state, merged, channels, self._rows, holds)

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
        self, updates: list[Update], outcomes: list[Outcome], evaluated: bool
    ) -> RoundResult:
        devices = tuple(
            DeviceRound(
                device=update.device,
                device_class=self._devices[update.device].device_class,
                outcome=outcome,
                seconds=update.seconds,
                training_macs=update.training_macs,
                mini_batches=update.mini_batches,
                mean_cost_share=(
                    sum(update.cost_shares) / update.mini_batches if update.mini_batches else None
                ),
                over_budget=update.over_budget,
                bytes_down=update.bytes_down,
                bytes_up=0 if outcome == "missed" else update.bytes_up,
            )
            for update, outcome in zip(updates, outcomes, strict=True)
        )
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
