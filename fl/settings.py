"""Settings of a federated run: who trains how long on what, under which rules."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from distreal_dse.errors import InputError
from fl.robust import Defence
from fl.schedules import Constant, Schedule
from fl.world.availability import Availability, MarkovAvailability
from fl.world.deadlines import RoundRules
from fl.world.devices import DEFAULT_CLASSES, Device, DeviceClass, check_classes
from fl.world.populations import make_population
from fl.world.splits import IidSplit, Split

# Data that a run may be evaluated on, and where its statistics may come from.
EVALUATED = ("test", "validation")
STATISTICS = ("all", "cohort", "averaged")


@dataclass(frozen=True)
class RunSettings:
    """Settings of a federated run, apart from study, strategy and front.

    Parameters
    ----------
    rounds
        Rounds after round 0, which is the untrained network; fewer where ``until`` comes first.
    until
        Virtual seconds after which no further round begins; None for no such limit. Waiting for a
        device to be available counts.
    devices
        Devices in all.
    cohort
        Devices whose updates a round needs.
    local_epochs
        Passes of a device over its data per round.
    seed
        Of the split, cohorts, data orders, masks and availability.
    evaluate_every
        Rounds from one evaluation to the next; the last round always has one.
    evaluate_on
        ``"test"``, or ``"validation"`` for runs that settings are chosen by.
    statistics
        Those of batch normalisation in evaluations: measured on samples of ``"all"`` devices,
        which no server can; on samples of those devices of the last ``"cohort"`` whose updates
        were merged, as if they had been asked for them after the round (of the whole cohort where
        none was, of all devices before round 1); or ``"averaged"`` as all else is.
    classes
        The kinds of devices.
    speeds, links
        Files of measured speeds and links that devices draw theirs from, as `make_population` takes
        them; None for the speeds of the classes, and for transfers that take no time.
    availability
        What share of their compute they have free.
    split
        Who holds which samples.
    masked_loss
        Whether devices leave classes that they have no sample of out of the loss, and the rows of
        the output layer are averaged over the devices that hold their class, as HeteroFL does;
        for all strategies.
    schedule
        How the learning rate of devices changes over rounds, where the strategy has no schedule of
        its own.
    robust
        What keeps hostile updates from deciding what is merged, for all strategies; None for
        nothing.
    pace
        Time allotted to a mini-batch, over what the full network takes on an idle device of
        speed 1; > 0. Budgets follow from it.
    rules
        Deadlines, and what becomes of late devices.

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
    evaluate_on: str = "test"
    statistics: str = "all"
    classes: tuple[DeviceClass, ...] = DEFAULT_CLASSES
    speeds: Path | None = None
    links: Path | None = None
    availability: Availability = field(default_factory=MarkovAvailability)
    split: Split = field(default_factory=IidSplit)
    masked_loss: bool = False
    schedule: Schedule = Constant()
    robust: Defence | None = None
    pace: float = 1.0
    rules: RoundRules = RoundRules()
    until: float | None = None

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
        if self.evaluate_on not in EVALUATED:
            raise InputError(
                f"evaluations (--evaluate-on): expected on {' or '.join(EVALUATED)} data, found "
                f"'{self.evaluate_on}'"
            )
        if self.statistics not in STATISTICS:
            raise InputError(
                f"statistics of evaluations (--statistics): expected one of "
                f"{', '.join(STATISTICS)}, found '{self.statistics}'"
            )
        if not 0 < self.pace < math.inf:
            raise InputError(f"pace of the federated run: expected above 0, found {self.pace}")
        if self.until is not None and not 0 < self.until < math.inf:
            raise InputError(
                f"virtual time of the federated run: expected above 0 s, found {self.until}"
            )
        self.schedule.check(self.rounds)
        if self.robust is not None:
            self.robust.check(self.cohort)
        check_classes(self.classes)

    def population(self) -> list[Device]:
        """Return the devices of the run.

        Raises
        ------
        InputError
            If a file of speeds or links can't be used.
        """
        return make_population(self.devices, self.classes, self.seed, self.speeds, self.links)

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; the availability by the name of its class and fields."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        source = self.availability
        described = _fields(source)
        return own | {
            "classes": [asdict(one) for one in self.classes],
            "availability": {"kind": type(source).__name__, **described},
            "split": self.split.spec,
            "schedule": {"kind": type(self.schedule).__name__, **asdict(self.schedule)},
            "robust": self.robust and {"kind": type(self.robust).__name__, **_fields(self.robust)},
            "speeds": str(self.speeds) if self.speeds else None,
            "links": str(self.links) if self.links else None,
            "rules": asdict(self.rules),
        }


def _fields(source: object) -> dict[str, Any]:
    """The fields of a dataclass; nothing of anything else."""
    return asdict(source) if is_dataclass(source) and not isinstance(source, type) else {}
