"""Timing real training steps, vectors in turn with the full network."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from distreal_dse.cost._latency import LatencySamples
from distreal_dse.cost._rehearsal import random_targets, study_steps, trainer_of
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    extracted,
)
from distreal_dse.errors import InputError
from distreal_dse.study import Study
from distreal_dse.support.seeding import derive_seed, generator

# Vectors that take turns; fewer than the sub-networks that a network keeps built, so that none is
# built anew within a timed step.
TOGETHER = 24
# One step of the full network is timed among so many steps of vectors.
BLOCK = 4
# The first steps build the sub-network and its optimiser, and fill caches.
WARM_UP_STEPS = 3

Progress = Callable[[int, int], None]
Step = Callable[[], object]
Timed = tuple[KeptCounts, bool]
"""Kept counts, and whether they are those of a network of its own."""


class StepTimer:
    """Times training steps as a device does them.

    A step is `DropoutTrainer.step` with new masks: drawing, gathering, forward, backward, optimiser
    and scattering. Inputs are random, because values don't change what is computed; targets are
    random classes. Parameters, buffers, gradients, the number of threads and the global generators
    are as before when a measurement ends, however it ends.

    Parameters
    ----------
    study
        Gives the loss and the optimiser.
    network
        Its network, on the device to be measured.
    input_shape
        Of one sample.
    batch_size
        Samples per mini-batch.
    threads
        Threads of PyTorch.
    seed
        Of inputs, masks and the order of steps.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    def __init__(
        self,
        study: Study,
        network: DroppableNetwork,
        input_shape: Sequence[int],
        batch_size: int,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        cores = os.cpu_count() or 1
        if batch_size < 1:
            raise InputError(f"--batch-size is {batch_size}: expected 1 or more")
        if not 1 <= threads <= cores:
            raise InputError(f"--threads is {threads}: expected 1 to {cores}, the cores there are")
        self._study, self._network, self._threads, self._seed = study, network, threads, seed
        self._where = next(network.module.parameters()).device
        shape = (batch_size, *input_shape)
        self._inputs = torch.randn(shape, generator=generator(seed, "latency inputs"))
        self._inputs = self._inputs.to(self._where)

    def measure(
        self,
        vectors: Sequence[KeptCounts],
        repetitions: int,
        samples: LatencySamples,
        progress: Progress = lambda done, total: None,
        alone: Sequence[KeptCounts] = (),
    ) -> None:
        """Time every vector ``repetitions`` times.

        In each round every vector is timed once, in a new order; with every few of them (`BLOCK`)
        the full network is timed too, at a random place among them, and the ratio is taken to
        that step. More than `TOGETHER` vectors are timed in groups of about equal size.

        Parameters
        ----------
        vectors
            Distinct kept counts. The full network, among them or not, is timed in any case.
        repetitions
            Rounds, 1 or more.
        samples
            Gets what is timed as soon as it is, so that an interrupted measurement is not lost.
        progress
            Called with (done, total) rounds.
        alone
            Distinct kept counts of networks of their own, which are timed in turn with the vectors:
            nothing is cut out of the full network in their steps.

        Raises
        ------
        InputError
            If the number of repetitions is out of range.
        StudyError
            If the study's code fails in a step.
        """
        if repetitions < 1:
            raise InputError(f"--repetitions is {repetitions}: expected 1 or more")
        full = self._network.full_counts
        timed = [(counts, False) for counts in vectors] + [(counts, True) for counts in alone]
        groups = _equal_groups([one for one in timed if one[0] != full])
        order = random.Random(derive_seed(self._seed, "latency order"))
        done, total = 0, repetitions * len(groups)
        with self._unharmed() as restore:
            trainer = self._trainer()
            targets = random_targets(
                self._study,
                self._network,
                self._inputs,
                generator(self._seed, "latency targets"),
            )
            for group in groups:
                own = {one[0]: self._own_network(one[0]) for one in group if one[1]}
                steps = {
                    one: partial(
                        own[one[0]].step if one[1] else partial(trainer.step, counts=one[0]),
                        self._inputs,
                        targets,
                    )
                    for one in ((full, False), *group)
                }
                for step in steps.values():
                    for _ in range(WARM_UP_STEPS):
                        self._seconds(step)
                for _ in range(repetitions):
                    # Training that goes on for long would end in zeros, denormal or not finite
                    # numbers, which take other times than those of a device that has just begun.
                    restore()
                    for network in own.values():
                        network.restore()
                    self._round(steps, order.sample(group, len(group)), order, samples)
                    done += 1
                    progress(done, total)

    def _round(
        self,
        steps: Mapping[Timed, Step],
        timed: Sequence[Timed],
        order: random.Random,
        samples: LatencySamples,
    ) -> None:
        full = (self._network.full_counts, False)
        for start in range(0, max(1, len(timed)), BLOCK):
            block = [*timed[start : start + BLOCK], full]
            block.insert(order.randrange(len(block)), block.pop())
            seconds = {one: self._seconds(steps[one]) for one in block}
            full_seconds = seconds.pop(full)
            samples.add_full(full_seconds)
            for (counts, alone), own in seconds.items():
                samples.add(counts, own, full_seconds, alone)

    def _seconds(self, step: Step) -> float:
        """Wall time of one step."""
        self._finish()
        start = time.perf_counter()
        step()
        self._finish()
        return time.perf_counter() - start

    def _finish(self) -> None:
        """Wait for the GPU, which works beside the program."""
        if self._where.type == "cuda":
            torch.cuda.synchronize(self._where)

    def _trainer(self) -> DropoutTrainer:
        optimizer = self._study.optimizer(self._network.module.parameters())
        masks = generator(self._seed, "latency masks")
        return trainer_of(self._study, self._network, optimizer, masks)

    def _own_network(self, counts: KeptCounts) -> _OwnNetwork:
        return _OwnNetwork(self._study, extracted(self._network, counts))

    @contextmanager
    def _unharmed(self) -> Iterator[Callable[[], None]]:
        """Give a function that puts all values back as they were; call it at the end too."""
        module = self._network.module
        tensors = [*module.parameters(), *module.buffers()]
        before = [tensor.detach().clone() for tensor in tensors]
        gradients = [parameter.grad for parameter in module.parameters()]
        threads = torch.get_num_threads()

        @torch.no_grad()
        def restore() -> None:
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)

        torch.set_num_threads(self._threads)
        try:
            with study_steps(self._study, self._inputs.shape, self._seed, "latency layers"):
                yield restore
        finally:
            restore()
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient
            torch.set_num_threads(threads)


class _OwnNetwork:
    """A network that is trained as it is, by the steps that `DropoutTrainer` takes with a full one.

    Parameters
    ----------
    study
        Gives the loss and the optimiser.
    module
        The network.
    """

    def __init__(self, study: Study, module: nn.Module) -> None:
        self._study, self._module = study, module
        self._optimizer = study.optimizer(module.parameters())
        self._before = copy.deepcopy(module.state_dict())

    def restore(self) -> None:
        """Put all values back as they were."""
        self._module.load_state_dict(self._before)

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train one mini-batch; return its loss."""
        loss = self._study.loss(self._module(inputs), targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._study.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._module.parameters(), self._study.clip_norm)
        self._optimizer.step()
        return loss.item()


def _equal_groups(timed: Sequence[Timed]) -> list[list[Timed]]:
    """At least one group, of at most `TOGETHER`; cheap and dear ones in each."""
    groups = -(-len(timed) // TOGETHER) or 1
    return [list(timed[first::groups]) for first in range(groups)]
