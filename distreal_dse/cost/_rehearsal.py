"""A training step as a device takes it, on a copy of a network: to be looked at, not timed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts, make_policy
from distreal_dse.errors import DistrealError, InputError, StudyError, described
from distreal_dse.study import Study
from distreal_dse.support.seeding import generator, seeded

# The first step of a vector builds its sub-network, and makes the state of the optimiser; the
# second one moves that state to where it stays.
WARM_UP_STEPS = 2


class Rehearsal:
    """Takes steps of `DropoutTrainer` with random mini-batches; the network stays as it is.

    Parameters
    ----------
    study
        Gives the loss, the optimiser and the masks.
    network
        Its network. A copy of it is trained, on the same device.
    input_shape
        Of one sample.
    batch_size
        Samples per mini-batch.
    seed
        Of inputs, targets and masks.

    Raises
    ------
    InputError
        If the batch size is out of range.
    StudyError
        If the study's code fails.
    """

    def __init__(
        self,
        study: Study,
        network: DroppableNetwork,
        input_shape: Sequence[int],
        batch_size: int,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"--batch-size is {batch_size}: expected 1 or more")
        self._study, self._seed = study, seed
        self.network = copy.deepcopy(network)
        shape = (batch_size, *input_shape)
        inputs = torch.randn(shape, generator=generator(seed, "memory inputs"))
        self.inputs = inputs.to(network.example)  # its device, and its type
        with self._told():
            self.optimizer = study.optimizer(self.network.module.parameters())
            self.targets = random_targets(
                study, self.network, self.inputs, generator(seed, "memory targets")
            )
            self._trainer = trainer_of(
                study, self.network, self.optimizer, generator(seed, "memory masks")
            )

    def warm_up(self, counts: KeptCounts) -> None:
        """Take steps until the next one asks for the memory that all later ones do."""
        for _ in range(WARM_UP_STEPS):
            self.step(counts)

    def step(self, counts: KeptCounts, before_forward: Callable[[], None] = lambda: None) -> None:
        """Take one training step with these kept counts.

        Parameters
        ----------
        counts
            The vector.
        before_forward
            Called when the kept filters are in place, and the forward pass begins.

        Raises
        ------
        StudyError
            If the study's code fails.
        """

        def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            before_forward()
            return self._study.loss(module(inputs), targets)

        with self._told():
            self._trainer.step(self.inputs, self.targets, counts, objective)

    def _told(self) -> AbstractContextManager[None]:
        return study_steps(self._study, self.inputs.shape, self._seed, "memory layers")


@contextmanager
def study_steps(study: Study, shape: Sequence[int], seed: int, stream: str) -> Iterator[None]:
    """Let the study's layers draw by a seed, and say of what in it fails that the study does.

    Parameters
    ----------
    study
        Whose steps are taken.
    shape
        Of the inputs, for the message.
    seed, stream
        As for `distreal_dse.support.seeding.seeded`.

    Raises
    ------
    StudyError
        If the study's code fails.
    """
    try:
        with seeded(seed, stream):
            yield
    except DistrealError:
        raise
    except Exception as error:  # the study's model, loss and optimiser may raise anything
        raise StudyError(
            f"a training step of study {study.name} with random inputs of shape {tuple(shape)} "
            f"fails: {described(error)}"
        ) from error


def trainer_of(
    study: Study, network: DroppableNetwork, optimizer: Optimizer, randomness: torch.Generator
) -> DropoutTrainer:
    """Return a trainer as a device has it in a round, its masks drawn by a generator."""
    masks = copy.deepcopy(make_policy(study.masks))
    masks.start_round(0)
    return DropoutTrainer(network, optimizer, study.loss, masks, randomness, study.clip_norm)


@torch.no_grad()
def random_targets(
    study: Study, network: DroppableNetwork, inputs: Tensor, randomness: torch.Generator
) -> Tensor:
    """Draw classes, as many as the network has outputs; shape [N], where the inputs are.

    Raises
    ------
    StudyError
        If the network returns no scores of classes.
    """
    outputs = network.module(inputs)
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise StudyError(
            f"the model of study {study.name} returned no scores of classes for random "
            "inputs: expected a tensor [N, classes]"
        )
    size = (len(inputs),)
    return torch.randint(outputs.shape[1], size, generator=randomness).to(inputs.device)
