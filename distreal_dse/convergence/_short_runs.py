"""Short runs: what training with a vector, or with a whole table, for a few mini-batches gains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from distreal_dse.convergence._fleet_table import FleetTable
from distreal_dse.data.batches import fetch, shuffled_forever, size_of
from distreal_dse.data.evaluation import Score, evaluate
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    kept_counts,
    make_policy,
)
from distreal_dse.errors import DivergedError
from distreal_dse.study import Data, Study
from distreal_dse.support.seeding import generator, seeded


@dataclass(frozen=True)
class Replicate:
    """One short run: how far validation loss fell, and the validation accuracy reached."""

    loss_gain: float
    accuracy: float


@dataclass(frozen=True)
class Convergence:
    """What short runs with one vector gained."""

    replicates: tuple[Replicate, ...]

    @property
    def loss_gain(self) -> float:
        """Mean fall of the validation loss of the full network; larger is better."""
        return fmean(replicate.loss_gain for replicate in self.replicates)

    @property
    def standard_error(self) -> float:
        """Standard error of `loss_gain` over replicates; NaN for a single one."""
        if len(self.replicates) < 2:
            return math.nan
        gains = [replicate.loss_gain for replicate in self.replicates]
        return stdev(gains) / math.sqrt(len(gains))

    @property
    def accuracy(self) -> float:
        """Mean validation accuracy after the short run, in [0, 1]."""
        return fmean(replicate.accuracy for replicate in self.replicates)


class ShortRuns:
    """Short runs of one study, all from the same snapshot.

    Replicate *r* of a stream has the same data order and the same mask randomness for every
    vector (common random numbers), so differences between vectors are less noisy than values.

    To the mask policy a short run is a round, because it stands for the local training of a device:
    replicate *r* is round *r*. The warm-up is as many rounds as short runs fit into it.

    Parameters
    ----------
    study, data
        What to train.
    network
        The study's network; its weights are overwritten by every run.
    seed
        Seed of the search: it decides the snapshot and all replicates.
    device
        Where the network is.
    progress
        Called with (done, total) mini-batches while the snapshot is trained.
    others
        What the other mini-batches train, in the warm-up and in short runs: vectors that a fleet
        looks up in a table. None stands for the full network in short runs, and for that and
        uniform rates, in turn, in the warm-up.

    Raises
    ------
    DivergedError
        If the loss is not finite at the end of the warm-up.
    InputError
        If there is no mask policy as the study names it.
    """

    def __init__(
        self,
        study: Study,
        data: Data,
        network: DroppableNetwork,
        seed: int,
        device: torch.device | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        others: FleetTable | None = None,
    ) -> None:
        self._study, self._network, self._seed, self._others = study, network, seed, others
        self._training = _Training(study, data, network, seed, device)
        self._training.train(self._warm_up_counts(), "warm-up", 0, progress)
        self.snapshot = {
            name: tensor.clone() for name, tensor in network.module.state_dict().items()
        }
        self.before: Score = self._training.validate()
        if not math.isfinite(self.before.loss):
            raise DivergedError(
                f"training of study {study.name} diverged in the warm-up of "
                f"{study.short_run.warm_up} mini-batches (validation loss {self.before.loss}): "
                "lower the learning rate"
            )

    def run(self, counts: KeptCounts, stream: str, replicate: int) -> Replicate:
        """Train one short run with ``counts`` and score the full network.

        ``stream`` names an independent family of replicates, such as "search".

        Raises
        ------
        DivergedError
            If a training loss or the validation loss is not finite.
        """
        settings = self._study.short_run
        share, length = settings.full_share, settings.mini_batches
        others = iter(self._other_counts(length, stream, replicate))
        # The others spread evenly: the integer part of i · share grows at each of them.
        schedule = [
            next(others) if math.floor((i + 1) * share) > math.floor(i * share) else counts
            for i in range(length)
        ]
        self._network.module.load_state_dict(self.snapshot)
        after = self._training.score(schedule, stream, replicate)
        return Replicate(self.before.loss - after.loss, after.accuracy)

    def _other_counts(self, count: int, stream: str, replicate: int) -> list[KeptCounts]:
        if self._others is None:
            return [self._network.full_counts] * count
        random = generator(self._seed, stream, replicate, "budgets")
        return self._others.schedule(count, random)

    def _warm_up_counts(self) -> list[KeptCounts]:
        """The fleet's; else the full network and uniform rates, from [0, max_rate], in turn."""
        length, groups = self._study.short_run.warm_up, self._network.groups
        if self._others is not None:
            return self._others.schedule(length, generator(self._seed, "warm-up budgets"))
        draws = generator(self._seed, "warm-up rates")
        schedule = []
        for i in range(length):
            rate = self._study.max_rate * float(torch.rand((), generator=draws)) * (i % 2)
            schedule.append(kept_counts([rate] * len(groups), groups, self._study.granularity))
        return schedule


class TableRuns:
    """Short runs of whole tables: from an untrained network, as a fleet would train it.

    Each mini-batch draws its budget from the fleet and trains the table's vector for it. The
    vectors of a table train one network together, so they are judged together: by the validation
    loss of the full network at the end. Replicate *r* of a stream has the same initial weights,
    data order, masks and budgets for every table.

    Parameters
    ----------
    study, data, network, seed, device
        As for `ShortRuns`.

    Raises
    ------
    InputError
        If there is no mask policy as the study names it.
    """

    def __init__(
        self,
        study: Study,
        data: Data,
        network: DroppableNetwork,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self._study, self._network, self._seed = study, network, seed
        self._training = _Training(study, data, network, seed, device)

    def run(self, table: FleetTable, stream: str, replicate: int) -> Replicate:
        """Train with a table; the gain is that of the *logarithm* of the loss, from a loss of 1.

        Raises
        ------
        DivergedError
            If a training loss or the validation loss is not finite.
        """
        with seeded(self._seed, stream, replicate, "model"):
            fresh = self._study.model()
        self._network.module.load_state_dict(fresh.state_dict())
        random = generator(self._seed, stream, replicate, "budgets")
        schedule = table.schedule(self._study.short_run.table_mini_batches, random)
        after = self._training.score(schedule, stream, replicate)
        return Replicate(-math.log(max(after.loss, math.ulp(0))), after.accuracy)


class _Training:
    """Trains the network mini-batch by mini-batch, and scores it."""

    def __init__(
        self,
        study: Study,
        data: Data,
        network: DroppableNetwork,
        seed: int,
        device: torch.device | None,
    ) -> None:
        self._study, self._data, self._network = study, data, network
        self._seed, self._device = seed, device
        self._masks = make_policy(study.masks)

    def score(self, schedule: Sequence[KeptCounts], stream: str, replicate: int) -> Score:
        """Train, and score the full network."""
        self.train(schedule, stream, replicate)
        after = self.validate()
        if not math.isfinite(after.loss):
            raise DivergedError(
                f"validation loss is {after.loss} after {len(schedule)} mini-batches"
            )
        return after

    def train(
        self,
        schedule: Sequence[KeptCounts],
        stream: str,
        replicate: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Train a mini-batch with each of the kept counts."""
        key = self._seed, stream, replicate
        masks = copy.deepcopy(self._masks)
        trainer = DropoutTrainer(
            self._network,
            self._study.optimizer(self._network.module.parameters()),
            self._study.loss,
            masks,
            generator(*key, "masks"),
            self._study.clip_norm,
        )
        batches = shuffled_forever(
            torch.arange(size_of(self._data.train)),
            self._study.batch_size,
            generator(*key, "data"),
        )
        length = self._study.short_run.mini_batches
        with seeded(*key, "layers"):
            for done, (counts, indices) in enumerate(zip(schedule, batches, strict=False), start=1):
                before = done - 1
                if before % length == 0:
                    masks.start_round(replicate + before // length)
                inputs, targets = self._batch(indices)
                loss = trainer.step(inputs, targets, counts)
                if not math.isfinite(loss):
                    raise DivergedError(f"training loss is {loss} at mini-batch {done} of {stream}")
                progress(done, len(schedule))

    def validate(self) -> Score:
        """Score the full network on validation data."""
        return evaluate(
            self._network.module,
            self._data.validation,
            self._study.loss,
            self._data.train,
            self._device,
        )

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = fetch(self._data.train, indices)
        return inputs.to(self._device), targets.to(self._device)
