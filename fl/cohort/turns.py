"""Which devices train at once: those whose next mini-batch is of the same kind and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl.cohort.planned import PlannedRound, PlannedStep


@dataclass(frozen=True, eq=False)
class Group:
    """Devices that train at once.

    Parameters
    ----------
    turn
        Which of their mini-batches it is, from 0.
    rows
        The devices, by their places among the rounds.
    steps
        Their mini-batches, of equal kept counts, work and size.
    """

    turn: int
    rows: Sequence[int]
    steps: Sequence[PlannedStep]


def groups_of(rounds: Sequence[PlannedRound]) -> list[Group]:
    """Return who trains at once, in an order that keeps that of each device's mini-batches."""
    found: list[Group] = []
    for turn in range(max((len(one.steps) for one in rounds), default=0)):
        alike: dict[object, list[int]] = {}
        for row, one in enumerate(rounds):
            if turn < len(one.steps):
                alike.setdefault(_kind(one.steps[turn]), []).append(row)
        for rows in alike.values():
            found.append(Group(turn, rows, [rounds[row].steps[turn] for row in rows]))
    return found


def _kind(one: PlannedStep) -> object:
    work = one.work
    inner = work.inner and work.inner.kept_counts
    shapes = tuple(tuple(fact.shape) for fact in work.facts)
    return work.kept_counts, inner, work.key, shapes, len(one.step.batch)


class OnDevice:
    """All that the groups of some rounds need, copied to the device of the network at once.

    Parameters
    ----------
    groups
        Of the rounds.
    fetched
        Whether samples were fetched; else there are their indices.
    device
        Where the network is.
    """

    def __init__(self, groups: Sequence[Group], fetched: bool, device: torch.device) -> None:
        rows = [torch.tensor(one.rows) for one in groups]
        batches = [one.step.batch for group in groups for one in group.steps]
        masks = [one.mask for group in groups for one in group.steps]
        inner = [one.inner_mask for g in groups for one in g.steps if one.inner_mask is not None]
        many = [len(group.rows) for group in groups]
        self.rows = torch.cat(rows).to(device).split(many)
        """Rows of each group, shape [K]."""
        self.masks = torch.stack(masks).to(device).split(many)
        """Units that each of them keeps, shape [K, units]."""
        nested = [len(g.rows) if g.steps[0].inner_mask is not None else 0 for g in groups]
        self.inner_masks: Sequence[Tensor] = (
            torch.stack(inner).to(device).split(nested) if inner else ()
        )
        """Those of inner sub-networks, where there are any."""
        sizes = [sum(len(one.step.batch) for one in group.steps) for group in groups]
        self.samples: Sequence[Tensor] = (
            () if fetched else torch.cat(batches).to(device).split(sizes)
        )
        """Indices of all samples of a group, shape [K · N]."""
        self.facts: list[tuple[Tensor, ...]] = []
        """Of the devices of each group, shapes [K, …]."""
        for group in groups:
            facts = zip(*(one.work.facts for one in group.steps), strict=True)
            self.facts.append(tuple(torch.stack(parts).to(device) for parts in facts))
