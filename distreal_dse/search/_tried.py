"""Reading back what a search has tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import TrialState

from distreal_dse.dropout import uniform_rate
from distreal_dse.fronts import ChannelCounts, Front, FrontGroup
from distreal_dse.search._costs import REFERENCE, REFERENCE_MACS
from distreal_dse.search._memory import MEMORY
from distreal_dse.search.ledger import (
    IMPLIED,
    SETTINGS,
    close_trials,
    cost_metric,
    open_trials,
    plain_errors,
)
from distreal_dse.search.proposer import SearchSpace

CHANNELS_OF_A_UNIT = "channels of a unit"
FLEET = "fleet"


@dataclass(frozen=True)
class TriedVector:
    """A finished trial: a vector, its cost, and what its short runs gained (see `FrontPoint`)."""

    number: int
    rates: tuple[float, ...]
    kept_counts: tuple[int, ...]
    cost: float
    convergence: float
    standard_error: float
    accuracy: float
    uniform: bool


@dataclass(frozen=True)
class StoredSearch:
    """A search as the database has it, finished or not.

    Parameters
    ----------
    name
        Of the search, of its Optuna study and of its fronts.
    about
        Name and description of what is searched.
    groups
        The channel groups of the network.
    cost_metric, reference_cost
        As for `Front`; the reference is 0 where it is not known yet.
    settings
        What makes its trials comparable.
    tried
        The trials that ended well, by number; none of a search for a fleet, whose trials are
        curves.
    failed
        How many others there are.
    channels
        What kept counts are in channels; searches of earlier versions don't tell.
    curves
        Trials that ended well of a search for a fleet.
    """

    name: str
    about: str
    groups: tuple[FrontGroup, ...]
    cost_metric: str
    reference_cost: float
    settings: Mapping[str, Any] = field(hash=False)
    tried: tuple[TriedVector, ...]
    failed: int
    channels: ChannelCounts = ChannelCounts(None)
    curves: int = 0

    @property
    def fleet(self) -> str:
        """What the fleet is that a table was fitted to; empty where none was."""
        return str(self.settings.get(FLEET, {}).get("fleet", ""))

    def made(self, front: Front) -> bool:
        """Whether a front can have come of this search, by name, model and cost."""
        return (
            front.name == self.name
            and front.model_fingerprint == self.settings.get("model")
            # A front of the same name may be a re-priced one.
            and front.cost_metric == self.cost_metric
            and front.settings.get("measured on") == self.settings.get("measured on")
        )

    def tried_for(self, front: Front) -> tuple[TriedVector, ...]:
        """The trials, with costs in proportion to those of a front that came of this search."""
        if self.cost_metric == "macs" or not self.reference_cost:
            return self.tried
        # Seconds of then: the machine was faster, or slower.
        return tuple(
            replace(one, cost=one.cost / self.reference_cost * front.reference_cost)
            for one in self.tried
        )


def stored_search(study: optuna.Study) -> StoredSearch | None:
    """Read a search from its Optuna study; None for a study that no search of ours made.

    Raises
    ------
    StorageError
        If the database can't be read.
    """
    with plain_errors(f"storage of search '{study.study_name}'"):
        attributes = study.user_attrs
        settings = attributes.get(SETTINGS)
        if settings is None or "channel groups" not in attributes:
            return None
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    groups = tuple(FrontGroup(*item) for item in attributes["channel groups"].items())
    sizes = attributes.get(CHANNELS_OF_A_UNIT)
    granularity = {**IMPLIED, **settings}["granularity"]
    space = SearchSpace(groups, settings["max rate"], granularity)
    limit = settings.get(MEMORY)  # under which parameters stand for smaller vectors
    widths = [group.channels for group in groups]
    metric = cost_metric(settings)
    reference = float(attributes.get(REFERENCE_MACS if metric == "macs" else REFERENCE, 0.0))
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    tried = []
    curves = len(complete) if FLEET in settings else 0
    for trial in complete if not curves else ():
        cost, convergence = trial.values
        if metric == "latency":
            cost = trial.user_attrs["cost ratio"] * reference
        counts = tuple(trial.user_attrs["kept channels"].values())
        tried.append(
            TriedVector(
                number=trial.number,
                rates=space.rates(trial.params) if limit is None else _rates(counts, widths),
                kept_counts=counts,
                cost=cost,
                convergence=convergence,
                standard_error=trial.user_attrs["standard error"],
                accuracy=trial.user_attrs["accuracy"],
                uniform=uniform_rate(counts, widths, granularity) is not None,
            )
        )
    return StoredSearch(
        name=study.study_name,
        about=str(attributes.get("study", settings.get("study", ""))),
        groups=groups,
        cost_metric=metric,
        reference_cost=reference,
        settings=settings,
        tried=tuple(tried),
        failed=len(finished) - len(complete),
        channels=ChannelCounts(tuple(sizes.values()) if sizes else None),
        curves=curves,
    )


def _rates(counts: Sequence[int], widths: Sequence[int]) -> tuple[float, ...]:
    return tuple(1 - kept / width for kept, width in zip(counts, widths, strict=True))


def tried_vectors(storage: str, front: Front) -> Sequence[TriedVector]:
    """The trials of the search that a front came of.

    Parameters
    ----------
    storage
        URL of the database.
    front
        The front. Empty where the storage holds no search of its name, model and cost, as for a
        front that was imported or re-priced.

    Raises
    ------
    StorageError
        If the database can't be read.
    """
    trials = open_trials(storage)
    try:
        with plain_errors(f"storage of search '{front.name}'"):
            try:
                study = optuna.load_study(study_name=front.name, storage=trials)
            except KeyError:
                return []
        search = stored_search(study)
    finally:
        close_trials(trials)
    return search.tried_for(front) if search is not None and search.made(front) else []
