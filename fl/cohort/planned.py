"""The rounds of a cohort, planned to their ends: nothing of it needs a trained weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DroppableNetwork, KeptCounts, MaskPolicy, check_inside, wrong_mask
from fl.client import VirtualTraining
from fl.clients import Task
from fl.planning import LocalRound, Step, layer_draws, mask_draws
from fl.results import State, Update
from fl.strategies.base import LocalPlan, Work
from fl.world.exact import Seconds


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """A mini-batch with all that it will be trained with.

    Parameters
    ----------
    step
        Samples and vector.
    work
        What is done with it.
    mask, inner_mask
        Units that are kept, shape [units]; of the inner sub-network, where there is one.
    seconds
        That the round would take the device if this was the last mini-batch.
    fetched
        Inputs and targets, where the data set gives them one by one.
    """

    step: Step
    work: Work
    mask: Tensor
    inner_mask: Tensor | None
    seconds: float
    fetched: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class PlannedRound:
    """What a device trains in a round as long as its losses are finite.

    Parameters
    ----------
    local
        The round.
    steps
        Its mini-batches.
    seconds
        That it takes without any.
    """

    local: LocalRound
    steps: Sequence[PlannedStep]
    seconds: float

    @property
    def fetched_bytes(self) -> int:
        """Of the samples that are kept for it."""
        return sum(one.nbytes for step in self.steps for one in step.fetched or ())

    def update(self, state: State, losses: Sequence[float]) -> Update:
        """Return the update after training; mini-batches after a loss that is not finite are none.

        Parameters
        ----------
        state
            After the last one that counts.
        losses
            Of all mini-batches, as their objectives gave them.
        """
        told = [loss / one.work.parts for loss, one in zip(losses, self.steps, strict=True)]
        diverged = [number for number, loss in enumerate(told) if not math.isfinite(loss)]
        trained = self.steps[: diverged[0] + 1] if diverged else self.steps
        masks = [one.mask[None] for one in trained]
        units = len(trained[0].mask) if trained else self.local.units
        return self.local.update(
            state,
            torch.cat(masks) if masks else torch.ones(0, units, dtype=torch.bool),
            [one.step for one in trained],
            told[: len(trained)],
            trained[-1].seconds if trained else self.seconds,
            # Who diverged ended there, and not for want of time later on.
            complete=True if diverged else None,
        )


def planned_round(
    training: VirtualTraining,
    task: Task,
    round_number: int,
    now: Seconds,
    deadline: Seconds,
    fetching: bool,
) -> PlannedRound | None:
    """Plan the round of a device; None if its plan has steps that can't be said (`LocalPlan.work`).

    Parameters
    ----------
    training
        The run's common part.
    task, round_number, now, deadline
        As for `fl.client.train_virtually`.
    fetching
        Whether to fetch samples: data sets may draw, device after device.
    """
    device, network = task.device, training.network
    pacer = training.pacer(device, round_number, now, deadline)
    local = LocalRound(training, device, task.samples, round_number, pacer)
    if not says_its_work(type(local.plan)):
        return None
    draws = mask_draws(training.seed, device, round_number)
    idle = pacer.seconds()
    steps = []
    with layer_draws(training.seed, device, round_number):
        for step in local.steps():
            work = local.plan.work(step.vector)
            if work is None:
                return None
            masks = _drawn(network, local.plan.masks, work, draws)
            fetched = fetch(training.dataset, step.batch) if fetching else None
            pacer.done()
            steps.append(PlannedStep(step, work, *masks, pacer.seconds(), fetched))
    return PlannedRound(local, steps, idle)


def says_its_work(plan: type) -> bool:
    """Whether ``work`` of a plan's class says what its ``step`` does.

    One that has a ``step`` of its own, and the ``work`` of a class above it, does not. Nor does one
    with a loss of its own: ``work`` is of the study's.
    """
    own = plan.__mro__[: plan.__mro__.index(LocalPlan)]
    if any("loss" in vars(kind) for kind in own):
        return False
    for kind in plan.__mro__:
        if "work" in vars(kind):
            return True
        if "step" in vars(kind):
            return False
    return False


def _drawn(
    network: DroppableNetwork, policy: MaskPolicy, work: Work, draws: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Draw masks as `DropoutTrainer` does."""
    widths = network.channels.widths
    if work.kept_counts == network.full_counts:
        mask = torch.ones(sum(widths), dtype=torch.bool)
    else:
        mask = _checked(policy.draw(widths, work.kept_counts, draws), widths, work.kept_counts)
    if work.inner is None:
        return mask, None
    counts = work.inner.kept_counts
    inner = _checked(policy.draw(widths, counts, draws), widths, counts)
    check_inside(inner, mask, policy)
    return mask, inner


def _checked(mask: Tensor, widths: Sequence[int], counts: KeptCounts) -> Tensor:
    """A copy of a mask, as a policy may change its own."""
    if len(mask) != sum(widths) or tuple(map(int, map(torch.sum, mask.split(widths)))) != counts:
        raise wrong_mask(mask, counts)
    return mask.clone()
