"""FjORD: ordered dropout of a width that is drawn anew for each mini-batch.

References
----------
Horváth, Laskaridis, Almeida, Leontiadis, Venieris, Lane: FjORD: Fair and accurate federated
learning under heterogeneous targets with ordered dropout, NeurIPS 2021, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DropoutTrainer, KeptCounts, MaskPolicy, make_policy
from distreal_dse.errors import InputError
from distreal_dse.study import Study
from distreal_dse.support.seeding import generator
from distreal_dse.support.specs import number
from fl.masking import keep_classes
from fl.strategies.base import Inner, LocalPlan, PricedVector, Vector, Work
from fl.strategies.context import StrategyContext
from fl.strategies.levels import LevelStrategy
from fl.strategies.setting import Setting
from fl.world.devices import Device

# Five levels, as in the authors' code for images.
LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)


class Fjord(LevelStrategy):
    """Ordered masks; each mini-batch draws its level among those that the device can afford.

    The largest level p_max is the one that fits the budget at the beginning of the round, and each
    mini-batch draws p uniformly from the levels up to it, whatever happens to the budget. Masks
    are nested, so only the sub-network of p_max is sent. Aggregation is the paper's weighted
    average by samples, of each element over the devices that trained it; the paper counts those
    with a p_max that holds the element, which is the same unless such a device never drew a level
    that does.

    The paper keeps batch normalisation statistics of each p; here evaluations measure those of the
    full network again (`distreal_dse.data.evaluation`).
    """

    name = "fjord"
    levels = LEVELS
    chosen = "per mini-batch"  # among those that fitted when the round began
    masks = "ordered"
    averaging = "contributors"

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that draws from the levels up to that of the device."""
        draws = generator(seed, "fjord", device.index, round_number)
        return FjordPlan(self.table.within(budget), draws, make_policy(self.masks))


class FjordPlan(LocalPlan):
    """A level drawn for each mini-batch.

    Parameters
    ----------
    levels
        Those to draw from, by rising cost.
    draws
        Randomness of the device and round.
    masks
        Which filters are kept; nested.
    """

    def __init__(self, levels: Sequence[Vector], draws: torch.Generator, masks: MaskPolicy) -> None:
        super().__init__(masks)
        self._levels, self._draws = levels, draws

    def pick(self, budget: float) -> PricedVector:
        """Return the next level, whatever the budget."""
        return self._draw()

    def sent(self) -> KeptCounts:
        """Return the kept counts of the largest level: all others are parts of it."""
        return self._levels[-1].kept_counts

    def _draw(self) -> Vector:
        return self._levels[int(torch.randint(len(self._levels), (), generator=self._draws))]


def check_alpha(alpha: float) -> None:
    """Refuse a share of the distillation that is none.

    Raises
    ------
    InputError
        If it lies outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha of strategy fjord-kd: expected 0 to 1, found {alpha}")


class FjordDistilled(Fjord):
    """FjORD with self-distillation: the largest level teaches the one that was drawn.

    In one step of the optimiser both are trained: p_max on the targets, and p on
    (1 − α)·loss + α·KL, where KL is the divergence of its class probabilities from those of p_max
    (section 3). Where p is p_max, there is nothing to distil, and it is trained once.

    The paper budgets p alone. The clock charges both, so a mini-batch takes up to twice its slot
    and then counts as over budget.

    Parameters
    ----------
    context
        What is known of the run; the outputs of its network have to be logits of shape
        [N, classes].
    alpha
        Share of the distillation, in [0, 1]. The default is that of the authors' code.
    widths, costs
        As for `Fjord`.

    Raises
    ------
    InputError
        If a share is out of range, or both widths and costs are given.
    """

    name = "fjord-kd"
    settings = {"alpha": Setting(number, check_alpha), **Fjord.settings}

    def __init__(
        self,
        context: StrategyContext,
        alpha: float = 1.0,
        widths: Sequence[float] | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:
        super().__init__(context, widths, costs)
        check_alpha(alpha)
        self._study, self._alpha = context.study, alpha

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains two levels in each mini-batch."""
        draws = generator(seed, "fjord", device.index, round_number)
        levels = self.table.within(budget)
        return DistilledPlan(levels, draws, make_policy(self.masks), self._study, self._alpha)


@dataclass(frozen=True)
class TaughtVector:
    """What a mini-batch trains: a vector, and one inside of it that learns from it.

    The cost is that of both.
    """

    kept_counts: KeptCounts
    cost: float
    pupil: KeptCounts


class DistilledPlan(FjordPlan):
    """A level drawn for each mini-batch, and the largest as its teacher.

    Parameters
    ----------
    levels, draws, masks
        As for `FjordPlan`.
    study
        Gives the loss.
    alpha
        Share of the distillation.
    """

    def __init__(
        self,
        levels: Sequence[Vector],
        draws: torch.Generator,
        masks: MaskPolicy,
        study: Study,
        alpha: float,
    ) -> None:
        super().__init__(levels, draws, masks)
        self._loss, self._alpha = study.loss, alpha

    def pick(self, budget: float) -> TaughtVector:
        """Return the largest level and the next that is drawn, whatever the budget."""
        teacher, drawn = self._levels[-1], self._draw()
        both = drawn.kept_counts != teacher.kept_counts
        cost = teacher.cost + (drawn.cost if both else 0)
        return TaughtVector(teacher.kept_counts, cost, drawn.kept_counts)

    def step(
        self, trainer: DropoutTrainer, inputs: Tensor, targets: Tensor, vector: PricedVector
    ) -> float:
        """Train both by one step of the optimiser; return the loss of the teacher."""
        assert isinstance(vector, TaughtVector)
        return trainer.step_nested(
            inputs, targets, vector.kept_counts, vector.pupil, self._pupil_loss
        )

    def work(self, vector: PricedVector) -> Work:
        """Return what both are, and how the pupil learns."""
        assert isinstance(vector, TaughtVector)
        if vector.pupil == vector.kept_counts:
            return Work(vector.kept_counts)
        return Work(vector.kept_counts, Inner(vector.pupil, self._distilled))

    def training_macs(self, macs: MacCost, vector: PricedVector) -> float:
        """Return the multiply-accumulates of both."""
        assert isinstance(vector, TaughtVector)
        both = vector.pupil != vector.kept_counts
        pupil = macs.training(vector.pupil) if both else 0
        return macs.training(vector.kept_counts) + pupil

    def _pupil_loss(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        if self.masked:
            outputs, teacher = (keep_classes(one, self.labels) for one in (outputs, teacher))
        return self._distilled(outputs, teacher, targets)

    def _distilled(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        # kl_div() of PyTorch, written out, as that is not known to torch.vmap.
        wanted, found = teacher.log_softmax(1), outputs.log_softmax(1)
        divergence = (wanted.exp() * (wanted - found)).sum() / len(outputs)
        return (1 - self._alpha) * self._loss(outputs, targets) + self._alpha * divergence
