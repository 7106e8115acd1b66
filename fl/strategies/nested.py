"""Nested levels: the small network for everyone, and what stronger devices add to it.

Our own strategy, made of known parts, to have both what the small network for everyone has and
what it leaves unused:

- A *core* of first filters, as large as the slowest device can afford, is trained by every device
  in every mini-batch, on the loss of its own outputs. Later filters don't feed it
  (`distreal_dse.dropout.Nesting`), so on devices that can't afford more it is trained as `small`
  is, and the full network computes with it just what it computes alone.
- Mini-batches with a larger budget train further *levels* as well. Each adds to the outputs of
  those below it and learns what these get wrong, as in boosting: its loss is that of the sum, and
  the outputs below it count as given. The features of the levels between do learn from it.
- What a level adds must not depend on which classes its devices happen to have: few devices train
  it, and no others contradict them. So its loss adjusts logits to the device's own class
  frequencies and leaves classes out that it has no sample of (`fl.masking.adjusted`). With equal
  frequencies it is the ordinary loss.
- On an input of a class that its devices lack, what a level adds is arbitrary. So it is anchored to
  what the core knows (`fl.masking.drift`): it pays for raising logits, which would win there over
  all other classes, and for changing how probable the classes of the device are together, by which
  these would win or lose against all others. It may tell them apart by lowering what is wrong.
- What levels learn does not reach the core's parameters: it is trained as it would be without
  them, if gradients are not clipped. With ``core=taught`` it learns from their losses, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    MaskPolicy,
    Nesting,
    kept_counts,
    make_policy,
)
from distreal_dse.errors import InputError
from distreal_dse.support.specs import number, whole_number
from fl.masking import Loss, adjusted_by, class_offsets, drift
from fl.strategies.base import LocalPlan, PricedVector, Strategy, Vector, Work
from fl.strategies.context import StrategyContext, VectorTable
from fl.strategies.setting import AVERAGING, CHOOSE, Chosen, Setting, as_text
from fl.world.devices import Device

# A device of speed ¼ affords a level of a quarter of the cost, however the product is rounded.
ROUNDING = 1 + 1e-9
# Our own choice; no other weight was tried (docs/strategies.md).
ANCHOR = 1.0


def check_levels(levels: int) -> None:
    """Refuse a number of levels that is none.

    Raises
    ------
    InputError
        If it is less than 2.
    """
    if levels < 2:
        raise InputError(f"levels of strategy nested: expected 2 or more, found {levels}")


def check_anchor(weight: float) -> None:
    """Refuse a weight of the anchor that is none.

    Raises
    ------
    InputError
        If it is no finite number from 0 on.
    """
    if not 0 <= weight < math.inf:
        raise InputError(f"anchor of strategy nested: expected 0 or more, found {weight:g}")


TAUGHT, ALONE = "taught", "alone"


def check_core(core: str) -> None:
    """Refuse what is no way to train the core.

    Raises
    ------
    InputError
        If it is neither ``taught`` nor ``alone``.
    """
    if core not in (TAUGHT, ALONE):
        raise InputError(f"core of strategy nested: expected {TAUGHT} or {ALONE}, found '{core}'")


class Nested(Strategy):
    """The small network, trained by all, inside of larger ones that add to its outputs.

    Parameters
    ----------
    context
        What is known of the run; the network has to fit `Nesting`, and the study's loss is one of
        logits, shape [N, classes], and class indices.
    levels
        Number of nested widths, ≥ 2: that of `small`, the full one, and between them as many with
        equal steps.
    anchor
        Weight, 0 or more, of how far a level drifts from the core, in its loss.
    core
        What the core's parameters learn from: its own loss ``"alone"``, or those of the levels
        above as well (``"taught"``).

    Raises
    ------
    InputError
        If there are fewer levels, the weight is out of range, or there is no such core.
    """

    name = "nested"
    settings = {
        "levels": Setting(whole_number, check_levels),
        "anchor": Setting(number, check_anchor),
        "core": Setting(as_text, check_core),
        "averaging": AVERAGING,
        "choose": CHOOSE,
    }
    chosen: Chosen = "per mini-batch"
    masks = "ordered"
    averaging = "pooled"  # few devices train the higher levels; all train the core in every step

    def __init__(
        self,
        context: StrategyContext,
        levels: int = 4,
        anchor: float = ANCHOR,
        core: str = ALONE,
    ) -> None:
        super().__init__(context)
        check_levels(levels)
        check_anchor(anchor)
        check_core(core)
        self._anchor, self._core = anchor, core
        smallest = context.largest_within(context.weakest_budget).kept_counts
        full = context.full.kept_counts
        shares = [step / (levels - 1) for step in range(levels)]
        rates = [
            [(1 - share) * (1 - small / large) for small, large in zip(smallest, full, strict=True)]
            for share in shares
        ]
        groups, granularity = context.network.groups, context.study.granularity
        # As a dictionary, because levels that are equal after rounding are one.
        counts = dict.fromkeys(kept_counts(one, groups, granularity) for one in rates)
        self._vectors = VectorTable([Vector(one, context.price(one)) for one in counts])
        self._loss = context.study.loss
        self._nesting: Nesting | None = None

    def network(self, full: DroppableNetwork) -> DroppableNetwork:
        """Return a copy of the network that begins as its core.

        Its sub-networks don't scale what they keep: their sums are over all that feeds a filter.
        """
        network = DroppableNetwork(copy.deepcopy(full.module), full.example, scaling="none")
        self._nesting = Nesting(network, [one.kept_counts for one in self._vectors.vectors])
        self._nesting.begin()
        return network

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains the levels that fit the budget of each mini-batch."""
        within = self._vectors.within(ROUNDING * self.context.most(device))
        if self.chosen != "per mini-batch":
            within = (self._vectors.pick(budget),)
        masks = make_policy(self.masks)
        return NestedPlan(
            self._vectors, within, masks, self._nesting, self._loss, self._anchor, self._core
        )


class NestedPlan(LocalPlan):
    """The core in each mini-batch, and the levels above it that its budget allows.

    Parameters
    ----------
    vectors
        Of all levels.
    within
        Those that the device may train in this round, by rising cost; at least one.
    masks
        Which filters are kept; nested.
    nesting
        Of the network that is trained; None if nothing is.
    loss
        Of the study.
    anchor, core
        As for `Nested`.
    """

    def __init__(
        self,
        vectors: VectorTable,
        within: Sequence[Vector],
        masks: MaskPolicy,
        nesting: Nesting | None,
        loss: Loss,
        anchor: float,
        core: str,
    ) -> None:
        super().__init__(masks)
        self._anchor, self._core = anchor, core
        self._within = VectorTable(within)
        self._vectors, self._nesting, self._loss_of_study = vectors, nesting, loss

    def pick(self, budget: float) -> Vector:
        """Return the highest level that fits; the core where none does."""
        return self._within.pick(budget)

    def sent(self) -> KeptCounts:
        """Return the kept counts of the highest level that the device may train."""
        return self._within.vectors[-1].kept_counts

    def step(
        self, trainer: DropoutTrainer, inputs: Tensor, targets: Tensor, vector: PricedVector
    ) -> float:
        """Train all levels of the vector by one step; return the mean of their losses.

        What the anchor costs is part of them.
        """
        counts = vector.kept_counts
        if counts == self._vectors.vectors[0].kept_counts:
            return trainer.step(inputs, targets, counts)
        known, offsets = self._classes

        def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            return self._objective(counts, known, module, inputs, targets, offsets)

        loss = trainer.step(inputs, targets, counts, objective)
        self._levels.hold()
        return loss / self._parts(vector)

    def work(self, vector: PricedVector) -> Work | None:
        """Return what all levels of the vector are."""
        counts = vector.kept_counts
        if counts == self._vectors.vectors[0].kept_counts:
            return Work(counts)
        known, offsets = self._classes
        alone = self._core == ALONE
        return Work(
            counts,
            objective=partial(self._losses if alone else self._objective, counts, known),
            facts=(offsets,),
            key=self._known,
            parts=self._parts(vector),
            hold=self._levels.hold,
            beyond=partial(self._levels.elements_beyond_core, counts) if alone else None,
        )

    @cached_property
    def _known(self) -> tuple[int, ...]:
        """Classes that the device has samples of."""
        return tuple(self._classes[0].tolist())

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor]:
        """The same, and the logarithms of their frequencies, where the network is."""
        known, offsets = class_offsets(self.labels)
        where = self._levels.device
        return known.to(where), offsets.to(where)

    @property
    def _levels(self) -> Nesting:
        assert self._nesting is not None, "Strategy.network() comes before any training"
        return self._nesting

    def _parts(self, vector: PricedVector) -> int:
        """How many levels a vector has."""
        return 1 + [one.kept_counts for one in self._vectors.vectors].index(vector.kept_counts)

    def _objective(
        self,
        counts: KeptCounts,
        known: Tensor,
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        """The loss of all levels; the classes that are known are those of the device."""
        core, *above = self._parts_of_loss(counts, known, module, inputs, targets, offsets)
        if self._core == ALONE:
            above = [self._levels.beyond_core(torch.stack(above).sum(), module, counts)]
        total = core
        for one in above:
            total = total + one
        return total

    def _losses(
        self,
        counts: KeptCounts,
        known: Tensor,
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        offsets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The loss of the core, and that of all levels above it."""
        core, *above = self._parts_of_loss(counts, known, module, inputs, targets, offsets)
        return core, torch.stack(above).sum()

    def _parts_of_loss(
        self,
        counts: KeptCounts,
        known: Tensor,
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        offsets: Tensor,
    ) -> list[Tensor]:
        """The loss of the core; for each level above it, its loss and what its anchor costs."""
        outputs, *more = self._levels.outputs(module, inputs, counts)
        losses, core = [self.loss(outputs, targets)], outputs.detach()
        for part in more:
            outputs = outputs.detach() + part
            losses.append(adjusted_by(self._loss_of_study, outputs, targets, known, offsets))
            losses.append(self._anchor * drift(core, outputs, part, known))
        return losses
