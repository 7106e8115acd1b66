"""A federated run as plain values: what is stored, sent to a process, and begun again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, find_front, reopen_database
from distreal_dse.study import Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.given import GivenStudy
from distreal_dse.study.preparation import prepare
from distreal_dse.study.trusted import trusted
from distreal_dse.support.json_types import is_of
from distreal_dse.support.specs import name_of, parse_spec
from fl.client import VirtualTraining
from fl.engine import FederatedRun
from fl.robust import make_defence
from fl.schedules import make_schedule
from fl.server_optimizers import make_server_optimizer
from fl.settings import RunSettings
from fl.strategies import (
    Strategy,
    StrategyContext,
    built_in_strategies,
    check_strategy,
    make_strategy,
    strategy_class,
)
from fl.world.availability import make_availability
from fl.world.deadlines import RoundRules
from fl.world.devices import DEFAULT_CLASSES, DeviceClass
from fl.world.splits import make_split

ON_FLOWER = "flower"
"""Key in the settings of a stored run that says that it is one of `fl.flower`."""


@dataclass(frozen=True)
class RunSpec:
    """All that makes a run, as text and numbers. Equal specs give equal runs on one machine.

    Parameters
    ----------
    study, options
        What `StudySource` takes.
    front
        Label of a front in the database, or the path of an exported one; None where the strategy
        needs none.
    strategy
        One of `fl.strategies.strategy_names`.
    seed, rounds, devices, cohort, local_epochs, evaluate_every, evaluate_on, statistics, classes, \
masked_loss, pace, rules, until
        As in `RunSettings`.
    availability, split, server, schedule, robust
        What `make_availability`, `make_split`, `make_server_optimizer`, `make_schedule` and
        `make_defence` take.
    speeds, links
        Files of measured speeds and links, as `make_population` takes them.
    checkpoint_every
        Rounds from one checkpoint to the next.
    device
        Where it is trained, such as ``"cpu"``.

    Raises
    ------
    InputError
        If there is no such strategy, or it needs a front and has none.
    """

    study: str
    options: tuple[tuple[str, str], ...] = ()
    front: str | None = None
    strategy: str = "distreal"
    seed: int = 0
    rounds: int = 30
    devices: int = 20
    cohort: int = 5
    local_epochs: int = 1
    evaluate_every: int = 1
    evaluate_on: str = "test"
    statistics: str = "all"
    classes: tuple[DeviceClass, ...] = DEFAULT_CLASSES
    availability: str = "markov"
    split: str = "iid"
    server: str = "replace"
    schedule: str = "constant"
    robust: str = "none"
    speeds: str | None = None
    links: str | None = None
    masked_loss: bool = False
    pace: float = 1.0
    rules: RoundRules = field(default_factory=RoundRules)
    until: float | None = None
    checkpoint_every: int = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        _, settings = parse_spec("strategy", self.strategy)
        strategy_class(self.strategy).form(settings, self.front is not None)
        if self.checkpoint_every < 1:
            raise InputError(
                f"rounds between checkpoints: expected at least 1, found {self.checkpoint_every}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; `run_spec` makes an equal spec of them."""
        return asdict(self)

    def settings(self) -> RunSettings:
        """Return the settings of the run, their texts read.

        Raises
        ------
        InputError
            If one of them is out of range, or its text can't be read.
        """
        return RunSettings(
            rounds=self.rounds,
            devices=self.devices,
            cohort=self.cohort,
            local_epochs=self.local_epochs,
            seed=self.seed,
            evaluate_every=self.evaluate_every,
            evaluate_on=self.evaluate_on,
            statistics=self.statistics,
            classes=self.classes,
            availability=make_availability(self.availability),
            split=make_split(self.split),
            speeds=Path(self.speeds) if self.speeds else None,
            links=Path(self.links) if self.links else None,
            masked_loss=self.masked_loss,
            schedule=make_schedule(self.schedule),
            robust=make_defence(self.robust),
            pace=self.pace,
            rules=self.rules,
            until=self.until,
        )

    def check(self) -> None:
        """Refuse what can be seen to be wrong without study, data and database.

        Raises
        ------
        InputError
            If a setting is out of range, or its text can't be read.
        """
        self.settings()
        make_server_optimizer(self.server).schedule.check(self.rounds)
        check_strategy(self.strategy, None, self.rounds, with_front=self.front is not None)

    def rehearse(self, engine: Engine, given: GivenStudy | None = None) -> None:
        """Refuse a strategy of a plug-in that no run could use; built-in ones are not asked.

        Parameters
        ----------
        engine, given
            As for `begin`.

        Raises
        ------
        DistrealError
            As for `begin`.
        """
        if name_of(self.strategy) not in built_in_strategies():
            self.check()
            self.begin(engine, given)

    def source(self, given: GivenStudy | None = None) -> StudySource | GivenStudy:
        """Return where the study comes from: ``given``, where it is an object."""
        return given or StudySource(self.study, self.options)

    def begin(self, engine: Engine, given: GivenStudy | None = None) -> FederatedRun:
        """Build the run, as it is before round 0.

        Parameters
        ----------
        engine
            The opened database.
        given
            The study, where it is an object of this program.

        Raises
        ------
        DistrealError
            If study, data, front or a setting can't be used.
        """
        study = self.source(given).load()
        settings = self.settings()
        server = make_server_optimizer(self.server)
        front = find_front(engine, self.front) if self.front else None
        network, data = prepare(study, self.seed, self.device)
        strategy = self.made_strategy(study, network, front)
        return FederatedRun(study, data, network, strategy, front, settings, server)

    def made_strategy(
        self, study: Study, network: DroppableNetwork, front: Front | None
    ) -> Strategy:
        """Make the strategy of the run.

        Parameters
        ----------
        study
            Of the run.
        network
            Its full network, with the values that it starts from.
        front
            Of the run; None where there is none.

        Raises
        ------
        DistrealError
            If the strategy can't be made of them.
        """
        settings = self.settings()
        slowest = min(device.speed for device in settings.population())
        weakest = slowest * settings.availability.mean_share() * self.pace
        context = StrategyContext(
            network=network,
            front=front,
            macs=MacCost(network.channels),
            weakest_budget=0.0,
            study=study,
            pace=self.pace,
        )
        budget = context.full.cost * min(1.0, weakest)
        return make_strategy(self.strategy, replace(context, weakest_budget=budget))


def run_spec(stored: Mapping[str, Any]) -> RunSpec:
    """Make the spec of what `RunSpec.as_json` gave.

    Raises
    ------
    InputError
        If it holds something else.
    """
    if ON_FLOWER in stored:
        raise InputError(
            "settings of the run are those of one on Flower: expected one of `fl run`; start it "
            "with `flwr run` as before, and it goes on"
        )
    if not is_of(stored, RunSpec):
        raise InputError(
            "settings of the run are not those of a run that can be begun again: it was stored by "
            "another version; start it anew"
        )
    values = dict(stored)
    values["options"] = tuple(map(tuple, values.get("options", ())))
    if "classes" in values:
        values["classes"] = tuple(DeviceClass(**one) for one in values["classes"])
    if "rules" in values:
        values["rules"] = RoundRules(**values["rules"])
    return RunSpec(**values)


def trusted_spec(
    stored: Mapping[str, Any], subject: str, study: str | GivenStudy | None = None
) -> RunSpec:
    """Make the spec of a stored run, such as ``"run 7"``, whose study may be imported.

    ``study`` is what the user names in place of the stored one.

    Raises
    ------
    InputError
        If the stored one is a file that this user never gave here, or was changed since.
    """
    spec = run_spec(stored)
    if isinstance(study, GivenStudy):
        return replace(spec, study=study.spec, options=())
    if study is not None:
        return replace(spec, study=study)
    if StudySource(spec.study).is_file:
        return replace(spec, study=str(trusted(spec.study, subject)))
    return spec


def exact_front(engine: Engine, front: str | None) -> str | None:
    """Return a front's name with its version, so that a later version does not take its place.

    The path of an exported front is made absolute: a run may be resumed from another folder.

    Raises
    ------
    DistrealError
        If there is no such front.
    """
    if front is None:
        return None
    found = find_front(engine, front)
    return str(Path(front).absolute()) if front.lower().endswith(".json") else found.label


def make_training(spec: RunSpec, url: str, given: GivenStudy | None = None) -> VirtualTraining:
    """Build what clients need, in a process of its own."""
    engine = reopen_database(url)
    try:
        return spec.begin(engine, given).training
    finally:
        engine.dispose()
