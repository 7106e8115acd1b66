"""The base classes of strategies."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from distreal_dse.cost import MacCost
from distreal_dse.dropout import (
    ChannelMap,
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    MaskPolicy,
    make_policy,
)
from distreal_dse.errors import InputError
from fl.averaging import make_averaging
from fl.masking import Loss
from fl.results import State, Update
from fl.schedules import Schedule
from fl.strategies.setting import Chosen, Setting
from fl.world.devices import Device

if TYPE_CHECKING:
    from fl.strategies.context import StrategyContext


class PricedVector(Protocol):
    """A dropout vector and its cost: a front point, or one that a baseline makes up."""

    @property
    def kept_counts(self) -> KeptCounts:
        """Channels kept of each group."""

    @property
    def cost(self) -> float:
        """Cost of a mini-batch in the unit of the run's clock."""


@dataclass(frozen=True, eq=False)
class Inner:
    """A sub-network inside of another one, and what it learns.

    Parameters
    ----------
    kept_counts
        Its channels kept of each group; fewer than those around it.
    loss
        Its mean loss from ``(its outputs, outputs of the outer one, targets)``. With a masked
        loss, outputs come with those of other classes set to zero.
    """

    kept_counts: KeptCounts
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Work:
    """What `LocalPlan.step` does with a vector, said rather than done.

    So mini-batches of several devices can be trained at once. What differs between devices has to
    be among the ``facts``: of devices with the same ``key``, one's functions stand for all.

    Parameters
    ----------
    kept_counts
        Channels kept of each group.
    inner
        Trained in the same step; None for nothing.
    objective
        Takes the place of the loss: from ``(network, inputs, targets, *facts)`` to a scalar. It
        runs under ``torch.vmap``. None for the loss of the outputs.
    facts
        Of the device, of the same shapes for all of the same key.
    key
        Equal for devices that do the same but for their facts.
    parts
        What the objective is divided by to be the loss that is told.
    hold
        Called with the parameters by name, shape [devices + 2, …], after each step, to set what
        must not change. The last two rows are nobody's.
    beyond
        Where it is given, the objective gives two losses, and of each parameter only these elements
        learn from the second: from its name and itself to a mask of its shape, None for no element.
    """

    kept_counts: KeptCounts
    inner: Inner | None = None
    objective: Callable[..., Tensor | tuple[Tensor, Tensor]] | None = None
    facts: tuple[Tensor, ...] = ()
    key: Hashable = None
    parts: int = 1
    hold: Callable[[Mapping[str, Tensor]], None] | None = None
    beyond: Callable[[str, Tensor], Tensor | None] | None = None

    def __post_init__(self) -> None:
        if self.inner is not None and self.inner.kept_counts == self.kept_counts:
            raise InputError("work of a plan: expected an inner network of fewer channels")
        if self.inner is not None and (self.objective or self.facts or self.parts != 1):
            raise InputError("work of a plan: expected an inner network or an objective, not both")
        if self.objective is None and (self.facts or self.beyond or self.parts != 1):
            raise InputError("work of a plan: expected an objective with facts, beyond or parts")


class LocalPlan(ABC):
    """How one device trains in one round. The device has it for itself.

    Parameters
    ----------
    masks
        Which filters are kept; its ``start_round`` is called before the first mini-batch.
    """

    labels: Tensor
    """Labels of the device's samples, shape [N]. The device sets this and the two below before the
    first mini-batch."""

    loss: Loss
    """Mean loss of a mini-batch, as the trainer has it."""

    masked: bool = False
    """Whether the loss leaves out the classes that are not among the labels (see `fl.masking`), as
    losses of a plan's own then should, too."""

    def __init__(self, masks: MaskPolicy) -> None:
        self.masks = masks

    @abstractmethod
    def pick(self, budget: float) -> PricedVector:
        """Choose what the device trains; called before each mini-batch.

        Parameters
        ----------
        budget
            What it can spend on this mini-batch without running over its slot. A vector that
            costs more is trained nevertheless: it takes longer and is counted.
        """

    def step(
        self, trainer: DropoutTrainer, inputs: Tensor, targets: Tensor, vector: PricedVector
    ) -> float:
        """Train a mini-batch with the vector that was picked; return its loss.

        A plan with a step of its own should say what it does by `work` as well, or else its
        devices are trained one after the other, also on a GPU.
        """
        return trainer.step(inputs, targets, vector.kept_counts)

    @property
    def only_steps(self) -> bool:
        """Whether `step` is a step of the trainer and touches the network in no other way."""
        return type(self).step is LocalPlan.step

    def work(self, vector: PricedVector) -> Work | None:
        """Return what `step` does, for many devices at once; None where it can't be said."""
        return Work(vector.kept_counts)

    def training_macs(self, macs: MacCost, vector: PricedVector) -> float:
        """Return the multiply-accumulates that `step` spends on each sample."""
        return macs.training(vector.kept_counts)

    def sent(self) -> KeptCounts | None:
        """Return the kept counts of what travels to the device and back; None for everything.

        Less than everything only where all that the round trains is a part of it: vector and masks
        stay the same, or masks are nested.
        """
        return None


class FixedPlan(LocalPlan):
    """One vector for the whole round, whatever happens to the budget.

    Parameters
    ----------
    vector
        What every mini-batch trains.
    masks
        Which filters are kept.
    """

    def __init__(self, vector: PricedVector, masks: MaskPolicy) -> None:
        super().__init__(masks)
        self._vector = vector

    def pick(self, budget: float) -> PricedVector:
        """Return the vector."""
        return self._vector

    def sent(self) -> KeptCounts | None:
        """Return the kept counts of the vector, where its masks stay for the round."""
        return self._vector.kept_counts if self.masks.stays_for_a_round else None


class BudgetPlan(LocalPlan):
    """A vector for the budget of each mini-batch.

    Parameters
    ----------
    choose
        Budget → vector; the cheapest where none fits.
    masks
        Which filters are kept.
    """

    def __init__(self, choose: Callable[[float], PricedVector], masks: MaskPolicy) -> None:
        super().__init__(masks)
        self._choose = choose

    def pick(self, budget: float) -> PricedVector:
        """Return the vector for this budget."""
        return self._choose(budget)


@dataclass(frozen=True)
class Vector:
    """A vector that no front holds, and its cost."""

    kept_counts: KeptCounts
    cost: float


class Strategy:
    """Decides what devices train and how the server merges it.

    A strategy is a declaration: which vector fits a budget (`pick`), when that is chosen
    (``chosen``), which filters are kept (``masks``), and how updates are averaged (``averaging``).
    What is sent follows: the sub-network of a vector that is chosen per round, else everything. A
    strategy that can't be said like that has a `plan`, a `network` or an `aggregate` of its own.

    The first line of its docstring is what people read of it.

    Parameters
    ----------
    context
        What is known of the run. Further parameters of a constructor are its settings.
    """

    name: ClassVar[str]
    """For people, figures, the database, and text that asks for it."""

    settings: ClassVar[Mapping[str, Setting]] = {}
    """Its own settings, beside those that all take (`fl.strategies.setting.COMMON`)."""

    forms: ClassVar[Sequence[str]] = ()
    """What its setting ``form`` may be; see `form`."""

    takes_front: ClassVar[bool] = False
    """Whether vectors and their costs are a front's; all others price their own, by the context."""

    limited: ClassVar[bool] = True
    """Whether deadlines hold; only an upper bound does without. Over-commitment holds for all."""

    chosen: Chosen = "per mini-batch"
    """When `pick` is asked: before each mini-batch, or by what is free when a round begins.

    ``"per run"`` goes by what a device has free on average, and so gives the same in each round.
    Where costs are seconds, what is chosen for a round or a run costs what a network of its own
    does, and what is chosen for a mini-batch what cutting it out of the full one adds as well.
    """

    masks: str | MaskPolicy = "random"
    """Which filters are kept (see `distreal_dse.dropout.make_policy`)."""

    averaging: str = "plain"
    """How updates are merged (see `fl.averaging.make_averaging`)."""

    learning_rate: float | None = None
    """Of devices (see `fl.learning_rates.set_learning_rate`); None for that of the study."""

    schedule: Schedule | None = None
    """Of that rate over the rounds; None for that of the run."""

    proximal: float = 0.0
    """Weight μ ≥ 0 of FedProx's pull towards the global state (`distreal_dse.dropout.Proximal`)."""

    momentum: float | None = None
    """Of the devices' optimiser (see `fl.optimizer_settings`); None for that of the study."""

    weight_decay: float | None = None
    """Likewise."""

    def __init__(self, context: StrategyContext) -> None:
        self.context = context

    @classmethod
    def make(cls, context: StrategyContext, **settings: Any) -> Strategy:
        """Make the strategy with its own settings, read and checked; called once per run."""
        return cls(context, **settings)

    @classmethod
    def form(
        cls, settings: Mapping[str, str], with_front: bool
    ) -> tuple[type[Strategy], Mapping[str, str]]:
        """Return which class carries these settings out, and those that are for it.

        Itself and all of them, unless a strategy has several forms.

        Parameters
        ----------
        settings
            As text, by name.
        with_front
            Whether the run has a front.

        Raises
        ------
        InputError
            If there is no such form, or it takes a front and there is none.
        """
        if cls.takes_front and not with_front:
            raise InputError(
                f"strategy '{cls.name}': expected a front to look vectors up in, found none; "
                "search one with `distreal-dse optimize`, and name it with --front"
            )
        return cls, settings

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that don't go together; each by itself was checked.

        Raises
        ------
        InputError
            If they don't.
        """

    def network(self, full: DroppableNetwork) -> DroppableNetwork:
        """Return the network that is trained; called once per run, before all else."""
        return full

    def pick(self, budget: float) -> PricedVector:
        """Return the vector for a budget, the cheapest where none fits; called by `plan`."""
        raise NotImplementedError(f"{type(self).__name__} has neither pick() nor plan()")

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Decide how a device trains in a round; called once per device and round.

        It runs on a device: it may use what the device knows, and nothing of the server or of
        other devices.

        Parameters
        ----------
        device, round_number
            Who, and in which round.
        budget
            What the device can spend on a mini-batch when the round begins, or on average where
            vectors are chosen per run.
        seed
            Of the run, for randomness that a plan needs.
        """
        # No two devices share the state of a policy; from text, a new one is made.
        masks = (
            make_policy(self.masks) if isinstance(self.masks, str) else copy.deepcopy(self.masks)
        )
        if self.chosen != "per mini-batch":
            return FixedPlan(self.pick(budget), masks)
        return BudgetPlan(self.pick, masks)

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Merge the updates of a round; called once per round, on the server.

        With a masked loss, also called for the tensors of the output layer alone and those devices
        that hold the same classes (see `fl.averaging.average_classes`).

        Parameters
        ----------
        state
            The global state that the round started from; not to be changed.
        updates
            At least one, by ascending index of the device, all finite.
        channels
            Of the network that is trained.

        Returns
        -------
        mapping
            The new global state, with the names, shapes and types of the old one.
        """
        return make_averaging(self.averaging)(state, updates, channels)
