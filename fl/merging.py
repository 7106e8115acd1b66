"""From the updates of a round to the state that the next one starts from.

What the server does once it has the updates, whoever brought them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from fl.averaging import average_classes
from fl.masking import output_tensors
from fl.results import MERGED, DeviceRound, Outcome, State, Update
from fl.robust import Defence, defended
from fl.server import faults_of
from fl.strategies.base import Strategy
from fl.world.deadlines import RoundRules, arrived, settle
from fl.world.exact import Seconds


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a run needs to go on after a round, beside its settings.

    ``server`` is the state of the server's optimiser.
    """

    round: int
    virtual_seconds: float
    state: Mapping[str, Tensor]
    server: Mapping[str, Tensor]

    def check(self, expected: State, study: str) -> None:
        """Refuse it for a run whose states have other names, shapes or types.

        Raises
        ------
        InputError
            If it is of another network.
        """
        own = {name: (one.shape, one.dtype) for name, one in self.state.items()}
        if own != {name: (one.shape, one.dtype) for name, one in expected.items()}:
            raise InputError(
                f"checkpoint of round {self.round} is of another network than study {study}: "
                "expected the run's own; was the study changed?"
            )


@dataclass(frozen=True, eq=False)
class Held:
    """What the devices of a round hold, in the order of their updates.

    Parameters
    ----------
    samples
        Of each device.
    due
        Mini-batches that each has to train, ≥ 1.
    """

    samples: Sequence[int]
    due: Sequence[int]


@dataclass(frozen=True, eq=False)
class Judged:
    """Updates as they may be merged, and what becomes of each.

    Parameters
    ----------
    updates
        As they came, or as a defence left them.
    outcomes
        In the same order.
    faults
        Why an update was not trusted; None where it was, and where a defence rejected it.
    seconds
        How long the round took.
    """

    updates: Sequence[Update]
    outcomes: Sequence[Outcome]
    faults: Sequence[str | None]
    seconds: float

    @property
    def counted(self) -> list[Update]:
        """The updates that are merged."""
        pairs = zip(self.updates, self.outcomes, strict=True)
        return [update for update, outcome in pairs if outcome in MERGED]


@dataclass(frozen=True, eq=False)
class Merging:
    """How updates become a new state; the same for all rounds of a run.

    Parameters
    ----------
    network
        That is trained.
    strategy
        Averages.
    rules
        Deadlines, and what becomes of late devices.
    cohort
        Updates that a round needs.
    defence
        Against hostile updates; None for none.
    masked_loss
        Whether rows of classes are averaged over the devices that hold the class.
    """

    network: DroppableNetwork
    strategy: Strategy
    rules: RoundRules
    cohort: int
    defence: Defence | None = None
    masked_loss: bool = False
    _rows: list[str] = field(init=False)

    def __post_init__(self) -> None:
        # Of classes, where averaging has to heed who holds them.
        rows = []
        if self.masked_loss:
            rows = output_tensors(self.network.module, self.network.example)
        object.__setattr__(self, "_rows", rows)

    def judge(
        self, state: State, updates: Sequence[Update], held: Held, deadline: Seconds
    ) -> Judged:
        """Say what becomes of updates.

        Parameters
        ----------
        state
            That the round started from.
        updates
            Of all devices that took part, by ascending index.
        held
            What they hold.
        deadline
            Seconds since the start of the round; infinite for none.
        """
        rules = self.rules
        judged = [i for i, update in enumerate(updates) if arrived(update, rules.late)]
        found = faults_of(
            [updates[i] for i in judged],
            state,
            sum(self.network.full_counts),
            held=[held.samples[i] for i in judged],
            due=[held.due[i] for i in judged],
        )
        faults: list[str | None] = [None] * len(updates)
        for i, fault in zip(judged, found, strict=True):
            faults[i] = fault
        trusted = [fault is None for fault in faults]
        outcomes, seconds = settle(
            updates, trusted, held.due, self.cohort, float(deadline), rules.late
        )
        return self._screened(state, Judged(updates, outcomes, faults, seconds))

    def _screened(self, state: State, judged: Judged) -> Judged:
        """Let the defence judge the updates that count."""
        places = [i for i, outcome in enumerate(judged.outcomes) if outcome in MERGED]
        if self.defence is None or not places:
            return judged
        screened = self.defence.screen(state, judged.counted, self.network.channels)
        updates, outcomes = list(judged.updates), list(judged.outcomes)
        for i, one in zip(places, screened, strict=True):
            if one is None:
                outcomes[i] = "rejected"
            else:
                updates[i] = one
        return Judged(updates, outcomes, judged.faults, judged.seconds)

    def merge(
        self, state: State, judged: Judged, labels_of: Callable[[int], Tensor] | None = None
    ) -> State | None:
        """Average the updates that count; None where there are none.

        Parameters
        ----------
        state
            That the round started from.
        judged
            What became of its updates.
        labels_of
            Labels of the samples of a device; only asked where the loss is masked.
        """
        merged = judged.counted
        if not merged:
            return None
        aggregate = defended(self.defence, self.strategy.aggregate)
        channels = self.network.channels
        if not self._rows:
            return aggregate(state, merged, channels)
        assert labels_of is not None, "a masked loss needs to know who holds which classes"
        classes = len(state[self._rows[0]])
        labels = [labels_of(update.device) for update in merged]
        holds = torch.stack([own.bincount(minlength=classes) > 0 for own in labels])
        return average_classes(aggregate, state, merged, channels, self._rows, holds)


def limited_rules(strategy: Strategy, rules: RoundRules) -> RoundRules:
    """Return the rules that hold for a strategy: an upper bound has no deadlines."""
    return rules if strategy.limited else RoundRules(overcommit=rules.overcommit)


def device_rounds(
    updates: Sequence[Update], outcomes: Sequence[Outcome], class_of: Callable[[int], str]
) -> tuple[DeviceRound, ...]:
    """Return the figures of the devices of a round.

    Parameters
    ----------
    updates, outcomes
        Of each, in the same order.
    class_of
        Name of the class of a device.
    """
    return tuple(
        DeviceRound(
            device=update.device,
            device_class=class_of(update.device),
            outcome=outcome,
            seconds=update.seconds,
            training_macs=update.training_macs,
            mini_batches=update.mini_batches,
            mean_cost_share=(
                sum(update.cost_shares) / update.mini_batches if update.mini_batches else None
            ),
            over_budget=update.over_budget,
            bytes_down=update.bytes_down,
            bytes_up=0 if outcome == "missed" else update.bytes_up,
        )
        for update, outcome in zip(updates, outcomes, strict=True)
    )
