"""All devices of a cohort at once: what `InProcess` gives, to rounding errors, in fewer calls."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor, nn

from distreal_dse.dropout import (
    Batch,
    Part,
    StackedObjective,
    StackedSubNetworks,
    StackedTrainer,
)
from distreal_dse.errors import (
    DistrealWarning,
    UnsupportedModelError,
    UnsupportedOptimizerError,
)
from fl.client import VirtualTraining, round_optimizer
from fl.clients import Clients, InProcess, Task
from fl.cohort.memory import CohortMemory, chunks
from fl.cohort.planned import PlannedRound, planned_round
from fl.cohort.samples import Samples
from fl.cohort.turns import Group, OnDevice, groups_of
from fl.masking import class_row, output_tensors
from fl.results import State, Update
from fl.strategies.base import Work
from fl.world.exact import Seconds, exact


class BatchingWarning(DistrealWarning):
    """Devices are trained one after the other where all at once was meant; says why."""


class NotAtOnceError(Exception):
    """A cohort can't be trained at once; says why."""


class Batched(Clients):
    """All devices at once, here: those whose mini-batches have the same kept counts and size.

    A round is planned to its end first. Then, turn by turn, the kept parts of all devices are
    stacked and trained as one network of K. Nothing waits for the device of the network before the
    end of the round. Updates equal those of `InProcess` but for rounding errors.

    What can't be trained so is trained one by one, and a `BatchingWarning` says so once.

    Parameters
    ----------
    training
        The run's common part; its network's layers are used, and not its values.
    memory
        Bytes that a cohort may take; a larger one is split. None for what is free on a GPU, and no
        limit on a CPU.
    """

    def __init__(self, training: VirtualTraining, memory: int | None = None) -> None:
        self._training = training
        self._one_by_one = InProcess(training)
        self._device = next(training.network.module.parameters()).device
        self._samples: Samples | None = None
        self._memory = CohortMemory(training, memory)
        self._small = StackedSubNetworks(training.network)
        self._refused = False
        self._most = sys.maxsize  # devices at once that the memory has been enough for
        self._classes: str | None = None  # a parameter that has a row for each
        self.sizes: tuple[int, ...] = ()
        """How many devices were trained at once in the last round, part by part."""

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Train them at once, or else one after the other."""
        # A single device has nobody to share its steps with.
        if not self._refused and len(tasks) > 1:
            try:
                rounds = self._planned(tasks, round_number, now, deadline)
                return self._at_once(rounds, state, round_number, now)
            except (NotAtOnceError, UnsupportedModelError, UnsupportedOptimizerError) as error:
                self._refused = True
                warnings.warn(
                    f"devices are trained one by one, not all at once: {error}",
                    BatchingWarning,
                    stacklevel=2,
                )
        self.sizes = (1,) * len(tasks)
        return self._one_by_one.train(tasks, state, round_number, now, deadline)

    def predicted(
        self, tasks: Sequence[Task], round_number: int, now: Seconds, deadline: Seconds
    ) -> int:
        """Return the bytes that a round is expected to take, all at once; as for `train`."""
        return self._memory.of_cohort(self._planned(tasks, round_number, now, deadline))

    def _planned(
        self, tasks: Sequence[Task], round_number: int, now: Seconds, deadline: Seconds
    ) -> list[PlannedRound]:
        training = self._training
        if self._samples is None:
            free = self._memory.free()
            # The other half is for training.
            most = None if free is None else free // 2
            self._samples = Samples(training.dataset, self._device, most)
        rounds = []
        room = psutil.virtual_memory().available // 4
        for task in tasks:
            one = planned_round(training, task, round_number, now, deadline, self._samples.fetching)
            if one is None:
                raise NotAtOnceError(
                    f"strategy {training.strategy.name} has steps that it does not describe"
                )
            rounds.append(one)
            room -= one.fetched_bytes
            if room < 0:
                raise NotAtOnceError("samples of a cohort take more than a quarter of the memory")
        return rounds

    def _at_once(
        self, rounds: Sequence[PlannedRound], state: State, round_number: int, now: Seconds
    ) -> list[Update]:
        size = min(self._memory.fitting(rounds), self._most)
        while size > 1:
            updates: list[Update] = []
            sizes = chunks(len(rounds), size)
            try:
                for many in sizes:
                    some = rounds[len(updates) : len(updates) + many]
                    updates += self._carry_out(some, state, round_number, now)
            except torch.OutOfMemoryError:  # more than was predicted
                self._most = size = size // 2
            else:
                self.sizes = tuple(sizes)
                return updates
        raise NotAtOnceError(f"two devices need more memory than {self._memory.said()}")

    def _carry_out(
        self, rounds: Sequence[PlannedRound], state: State, round_number: int, now: Seconds
    ) -> list[Update]:
        """Train some rounds at once."""
        training = self._training
        trainer = StackedTrainer(
            training.network,
            round_optimizer(training, round_number, exact(now)),
            state,
            len(rounds),
            training.study.clip_norm,
            training.strategy.proximal,
            self._small,
        )
        groups = groups_of(rounds)
        losses = torch.empty(0)
        if groups:
            losses = self._trained(trainer, rounds, groups)
        found: list[list[float]] = [[] for _ in rounds]
        told = iter(losses.tolist())
        for group in groups:
            for row in group.rows:
                found[row].append(next(told))
        states = trainer.states()
        return [one.update(states[row], found[row]) for row, one in enumerate(rounds)]

    def _trained(
        self, trainer: StackedTrainer, rounds: Sequence[PlannedRound], groups: Sequence[Group]
    ) -> Tensor:
        """Train groups one after the other; return all losses in their order, on the CPU."""
        samples = self._samples
        assert samples is not None
        known = self._known_classes(rounds)
        given = OnDevice(groups, samples.fetching, self._device)
        losses = []
        for number, group in enumerate(groups):
            part = Part(group.rows, given.rows[number])
            inputs, targets = samples.of(group, None if samples.fetching else given.samples[number])
            work, masks = group.steps[0].work, given.masks[number]
            facts = given.facts[number]
            if known is not None and work.objective is None:
                facts = (known.index_select(0, part.index), *facts)
            batch = Batch(inputs, targets, facts)
            if work.inner is None:
                objective = self._objective(work)
                found = trainer.step(part, batch, work.kept_counts, masks, objective, work.beyond)
            else:
                counts = work.kept_counts, work.inner.kept_counts
                both = masks, given.inner_masks[number]
                learns = self._loss, self._inner_loss(work.inner.loss)
                found = trainer.step_nested(part, batch, counts, both, learns)
            if work.hold is not None:
                work.hold(trainer.parameters())
            losses.append(found)
        return torch.cat(losses).cpu()

    def _known_classes(self, rounds: Sequence[PlannedRound]) -> Tensor | None:
        """Rows of 1 for each class that a device has samples of, where the loss is masked."""
        if not self._training.masked_loss:
            return None
        network = self._training.network
        if self._classes is None:
            self._classes = output_tensors(network.module, network.example)[0]
        like = network.module.get_parameter(self._classes)
        labels = [one.local.plan.labels.unique() for one in rounds]
        return torch.stack([class_row(one, len(like), like) for one in labels])

    def _objective(self, work: Work) -> StackedObjective:
        if work.objective is not None:
            return work.objective

        def objective(module: nn.Module, inputs: Tensor, *given: Tensor) -> Tensor:
            return self._loss(module(inputs), *given)

        return objective

    def _loss(self, outputs: Tensor, targets: Tensor, *known: Tensor) -> Tensor:
        """The study's, of the classes that a device has samples of."""
        return self._training.study.loss(outputs * known[0] if known else outputs, targets)

    def _inner_loss(
        self, loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Callable[..., Tensor]:
        def of_inner(outputs: Tensor, outer: Tensor, targets: Tensor, *known: Tensor) -> Tensor:
            if known:
                outputs, outer = outputs * known[0], outer * known[0]
            return loss(outputs, outer, targets)

        return of_inner
