"""Timing real training steps, vectors in turn with the full network."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from distreal_dse.cost._latency import LatencySamples
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts, make_policy
from distreal_dse.errors import DistrealError, InputError, StudyError, described
from distreal_dse.seeding import derive_seed, generator, seeded
from distreal_dse.study import Study

# Vectors that take turns; fewer than the sub-networks that a network keeps built, so that none is
# built anew within a timed step.
TOGETHER = 24
# One step of the full network is timed among so many steps of vectors.
BLOCK = 4
# The first steps build the sub-network and its optimiser, and fill caches.
WARM_UP_STEPS = 3

Progress = Callable[[int, int], None]


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
        groups = _equal_groups([counts for counts in vectors if counts != full])
        order = random.Random(derive_seed(self._seed, "latency order"))
        done, total = 0, repetitions * len(groups)
        with self._unharmed() as restore:
            trainer, targets = self._trainer(), self._targets()
            for group in groups:
                for counts in (full, *group):
                    for _ in range(WARM_UP_STEPS):
                        self._seconds(trainer, targets, counts)
                for _ in range(repetitions):
                    # Training that goes on for long would end in zeros, denormal or not finite
                    # numbers, which take other times than those of a device that has just begun.
                    restore()
                    self._round(trainer, targets, order.sample(group, len(group)), order, samples)
                    done += 1
                    progress(done, total)

    def _round(
        self,
        trainer: DropoutTrainer,
        targets: Tensor,
        vectors: Sequence[KeptCounts],
        order: random.Random,
        samples: LatencySamples,
    ) -> None:
        full = self._network.full_counts
        for start in range(0, max(1, len(vectors)), BLOCK):
            block = [*vectors[start : start + BLOCK], full]
            block.insert(order.randrange(len(block)), block.pop())
            seconds = {counts: self._seconds(trainer, targets, counts) for counts in block}
            full_seconds = seconds.pop(full)
            samples.add_full(full_seconds)
            for counts, own in seconds.items():
                samples.add(counts, own, full_seconds)

    def _seconds(self, trainer: DropoutTrainer, targets: Tensor, counts: KeptCounts) -> float:
        """Wall time of one step."""
        self._finish()
        start = time.perf_counter()
        trainer.step(self._inputs, targets, counts)
        self._finish()
        return time.perf_counter() - start

    def _finish(self) -> None:
        """Wait for the GPU, which works beside the program."""
        if self._where.type == "cuda":
            torch.cuda.synchronize(self._where)

    def _trainer(self) -> DropoutTrainer:
        masks = copy.deepcopy(make_policy(self._study.masks))
        masks.start_round(0)
        return DropoutTrainer(
            self._network,
            self._study.optimizer(self._network.module.parameters()),
            self._study.loss,
            masks,
            generator(self._seed, "latency masks"),
            self._study.clip_norm,
        )

    @torch.no_grad()
    def _targets(self) -> Tensor:
        """Random classes, as many as the network has outputs."""
        outputs = self._network.module(self._inputs)
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            raise StudyError(
                f"the model of study {self._study.name} returned no scores of classes for random "
                "inputs: expected a tensor [N, classes]"
            )
        random_classes = generator(self._seed, "latency targets")
        size = (len(self._inputs),)
        return torch.randint(outputs.shape[1], size, generator=random_classes).to(self._where)

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
            with seeded(self._seed, "latency layers"):
                yield restore
        except DistrealError:
            raise
        except Exception as error:  # the study's model, loss and optimiser may raise anything
            raise StudyError(
                f"a training step of study {self._study.name} with random inputs of shape "
                f"{tuple(self._inputs.shape)} fails: {described(error)}"
            ) from error
        finally:
            restore()
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient
            torch.set_num_threads(threads)


def _equal_groups(vectors: Sequence[KeptCounts]) -> list[list[KeptCounts]]:
    """At least one group, of at most `TOGETHER` vectors; cheap and dear ones in each."""
    groups = -(-len(vectors) // TOGETHER) or 1
    return [list(vectors[first::groups]) for first in range(groups)]
