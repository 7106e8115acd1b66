"""Federated training in one process, round by round, on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from torch import Tensor

from distreal_dse.batches import size_of
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.evaluation import evaluate
from distreal_dse.fronts import Front
from distreal_dse.study import Data, Study
from fl.availability import Availability, MarkovAvailability
from fl.client import LocalTraining, copy_state, train_locally
from fl.clock import make_clock
from fl.devices import DEFAULT_CLASSES, Device, DeviceClass, check_classes, make_devices
from fl.results import RoundResult, Update
from fl.server import is_finite, select_cohort
from fl.splits import split_iid
from fl.strategies import Strategy


@dataclass(frozen=True)
class RunSettings:
    """Settings of a federated run, apart from study, strategy and front.

    Parameters
    ----------
    rounds
        Rounds after round 0, which is the untrained network.
    devices
        Devices in all.
    cohort
        Devices that take part in a round.
    local_epochs
        Passes of a device over its data per round.
    seed
        Of the split, cohorts, data orders, masks and availability.
    evaluate_every
        Rounds from one evaluation on the test data to the next; the last round always has one.
    classes
        The kinds of devices.
    availability
        What share of their compute they have free.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    rounds: int = 30
    devices: int = 30
    cohort: int = 10
    local_epochs: int = 1
    seed: int = 0
    evaluate_every: int = 1
    classes: tuple[DeviceClass, ...] = DEFAULT_CLASSES
    availability: Availability = field(default_factory=MarkovAvailability)

    def __post_init__(self) -> None:
        for name in ("rounds", "devices", "cohort", "local_epochs", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} of the federated run: expected at least 1, found {getattr(self, name)}"
                )
        if self.cohort > self.devices:
            raise InputError(
                f"cohort of the federated run: expected at most the {self.devices} devices that "
                f"there are, found {self.cohort}; take a smaller cohort or more devices"
            )
        check_classes(self.classes)

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; the availability by the name of its class and fields."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        source = self.availability
        described: dict[str, Any] = asdict(source) if is_dataclass(source) else {}
        return own | {
            "classes": [asdict(one) for one in self.classes],
            "availability": {"kind": type(source).__name__, **described},
        }


def run_federated(
    study: Study,
    data: Data,
    network: DroppableNetwork,
    strategy: Strategy,
    front: Front | None,
    settings: RunSettings,
) -> Iterator[RoundResult]:
    """Train federated; yields the figures of each round when it is done.

    Same arguments and same initial network on one machine, same results. Stopping between or
    within rounds loses the round at work and no other.

    Parameters
    ----------
    study
        Gives the loss, the optimiser and the batch size.
    data
        ``train`` is split over the devices; accuracy and loss are those on ``test``.
    network
        Starts from the values that it has, such as those that `distreal_dse.preparation.prepare`
        gave it. Whenever a result is yielded, it holds the global network of that round.
    strategy
        What devices train and how updates are merged.
    front
        Gives the cost unit and the cost of the full network; None counts in MACs.
    settings
        All else.

    Yields
    ------
    RoundResult
        For the rounds 0 (before training) … ``settings.rounds``.

    Raises
    ------
    InputError
        If there are fewer than two training samples per device.
    FrontError
        If the front is for another network.
    """
    if front is not None:
        front.check_model(network.channels.fingerprint, f"study {study.name}")
    size = size_of(data.train)
    if size < 2 * settings.devices:
        raise InputError(
            f"train data of study {study.name} has {size} samples: expected at least two for each "
            f"of the {settings.devices} devices; take fewer devices"
        )
    macs = MacCost(network.channels)
    training = LocalTraining(
        study=study,
        dataset=data.train,
        network=network,
        macs=macs,
        strategy=strategy,
        availability=settings.availability,
        clock=make_clock(front, macs, study.batch_size),
        epochs=settings.local_epochs,
        seed=settings.seed,
    )
    devices = make_devices(settings.devices, settings.classes)
    shards = split_iid(size, settings.devices, settings.seed)
    # The checks above run at the call, not at the first round.
    return _rounds(training, data, devices, shards, settings)


def _rounds(
    training: LocalTraining,
    data: Data,
    devices: list[Device],
    shards: list[Tensor],
    settings: RunSettings,
) -> Iterator[RoundResult]:
    module, strategy = training.network.module, training.strategy
    state = copy_state(module)
    now = 0.0
    yield _result(training, data, 0, now, [], 0, True)
    for number in range(1, settings.rounds + 1):
        cohort = select_cohort(devices, settings.cohort, number, settings.seed)
        updates = [
            train_locally(training, device, shards[device.index], state, number, now)
            for device in cohort
        ]
        accepted = [update for update in updates if is_finite(update)]
        if accepted:
            state = dict(strategy.aggregate(state, accepted))
        module.load_state_dict(state)
        now += max(update.seconds for update in updates)  # the server waits for the slowest
        evaluated = number % settings.evaluate_every == 0 or number == settings.rounds
        rejected = len(updates) - len(accepted)
        yield _result(training, data, number, now, updates, rejected, evaluated)


def _result(
    training: LocalTraining,
    data: Data,
    number: int,
    now: float,
    updates: list[Update],
    rejected: int,
    evaluated: bool,
) -> RoundResult:
    module = training.network.module
    where = next(module.parameters()).device
    score = (
        evaluate(module, data.test, training.study.loss, calibration=data.train, device=where)
        if evaluated
        else None
    )
    shares = [share for update in updates for share in update.cost_shares]
    return RoundResult(
        round=number,
        virtual_seconds=now,
        accuracy=score.accuracy if score else None,
        loss=score.loss if score else None,
        training_macs=sum(update.training_macs for update in updates),
        mini_batches=len(shares),
        mean_cost_share=sum(shares) / len(shares) if shares else None,
        over_budget=sum(update.over_budget for update in updates),
        rejected=rejected,
        cohort=tuple(update.device for update in updates),
    )
