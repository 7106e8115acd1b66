"""Reading back what a search has tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from distreal_dse.dropout import uniform_rate
from distreal_dse.fronts import Front, normalise_url
from distreal_dse.search._archive import IMPLIED, SETTINGS, cost_metric, plain_errors
from distreal_dse.search._space import SearchSpace


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with plain_errors(front.name):
        try:
            study = optuna.load_study(study_name=front.name, storage=normalise_url(storage))
        except KeyError:
            return []
        settings = study.user_attrs.get(SETTINGS, {})
        # A front of the same name may be a re-priced one.
        if settings.get("model") != front.model_fingerprint or (
            cost_metric(settings) != front.cost_metric
            or settings.get("measured on") != front.settings.get("measured on")
        ):
            return []
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    granularity = {**IMPLIED, **settings}["granularity"]
    space = SearchSpace(front.groups, settings["max rate"])
    widths = [group.channels for group in front.groups]
    tried = []
    for trial in trials:
        cost, convergence = trial.values
        if front.cost_metric == "latency":  # seconds of then: the machine was faster, or slower
            cost = trial.user_attrs["cost ratio"] * front.reference_cost
        counts = tuple(trial.user_attrs["kept channels"].values())
        tried.append(
            TriedVector(
                number=trial.number,
                rates=space.rates(trial.params),
                kept_counts=counts,
                cost=cost,
                convergence=convergence,
                standard_error=trial.user_attrs["standard error"],
                accuracy=trial.user_attrs["accuracy"],
                uniform=uniform_rate(counts, widths, granularity) is not None,
            )
        )
    return tried
