"""The trials in the database: Optuna's tables, written one finished trial at a time.

The search runs on an Optuna study in memory; this archive is its durable copy. A trial reaches the
database whole and in one transaction when it is finished (a parameter at a time would cost 2 ms
each on SQLite), so whatever kills the search leaves no trial half written or running.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from distreal_dse.errors import InputError
from distreal_dse.fronts import outlasting_restarts
from distreal_dse.search.ledger._comparable import SAME_LOSS, check_agreement
from distreal_dse.search.ledger._trial_tables import close_trials, open_trials, plain_errors

DIRECTIONS = (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
COST_NAMES = {"macs": "training MACs", "latency": "seconds per mini-batch"}
GAIN_NAME = "validation loss gain"
SETTINGS = "settings"
SNAPSHOT = "snapshot loss"
# What searches stand for that were stored before these settings existed.
IMPLIED: Mapping[str, Any] = {
    "cost": "macs", "masks": "random", "granularity": 1, "clip norm": None,
    "memory": None,
}  # fmt: skip


class TrialArchive:
    """The finished trials of one search.

    Parameters
    ----------
    url
        The database; our own tables are in it already.
    name
        Name of the search, and of its Optuna study.
    settings
        What makes trials comparable. A search is only continued under the same settings.
    attributes
        Further facts for a reader of the study in optuna-dashboard.
    check
        Called before anything is stored; raises if another process took the search over.
    directions, values
        Of the values of a trial, and their names; by default cost and gain.

    Raises
    ------
    InputError
        If the stored search has other settings.
    StorageError
        If the database can't be written.
    """

    @outlasting_restarts
    def __init__(
        self,
        url: str,
        name: str,
        settings: Mapping[str, Any],
        attributes: Mapping[str, Any],
        check: Callable[[], None] = lambda: None,
        directions: Sequence[StudyDirection] = DIRECTIONS,
        values: Sequence[str] = (),
    ) -> None:
        self._name, self._check = name, check
        self._storage = open_trials(url)
        with plain_archive_errors(name):
            study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                directions=directions,
                load_if_exists=True,
            )
            self._study_id = study._study_id
            self._followed = study  # reads again only what is new
            stored = study.user_attrs
            if SETTINGS in stored:
                _check_same(name, stored[SETTINGS], settings)
            elif study.get_trials(deepcopy=False) or tuple(study.directions) != tuple(directions):
                raise InputError(
                    f"study '{name}' in this storage was not made by distreal-dse: expected an "
                    "unused name; choose another with --name"
                )
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    names = values or (COST_NAMES[cost_metric(settings)], GAIN_NAME)
                    study.set_metric_names([*names])
                for key, value in {**attributes, SETTINGS: dict(settings)}.items():
                    study.set_user_attr(key, value)
        self.key = search_key(name, settings)

    @outlasting_restarts
    def check_snapshots(self, losses: Sequence[float]) -> None:
        """Refuse to compare runs from a snapshot with runs from another one.

        The loss of the snapshot stands for all that can't be compared by name: data, loss
        function, model code, versions.

        Raises
        ------
        InputError
            If the search was begun from another snapshot.
        DistrealError
            If the workers disagree.
        """
        check_agreement(losses, f"search '{self._name}'")
        with plain_archive_errors(self._name):
            stored = self._storage.get_study_user_attrs(self._study_id).get(SNAPSHOT)
            if stored is None:
                self._storage.set_study_user_attr(self._study_id, SNAPSHOT, losses[0])
            elif abs(stored - losses[0]) > SAME_LOSS:
                raise InputError(
                    f"search '{self._name}' was begun from a snapshot with validation loss "
                    f"{stored:.4f}, now it is {losses[0]:.4f}: the data, the model, the loss or "
                    "versions have changed; undo that, or start a search of its own with --name"
                )

    @outlasting_restarts
    def recall(self, key: str) -> Any:
        """What was remembered of the search as a whole; None if nothing."""
        with plain_archive_errors(self._name):
            return self._storage.get_study_user_attrs(self._study_id).get(key)

    @outlasting_restarts
    def remember(self, key: str, value: Any) -> Any:
        """Store something of the search as a whole, anything JSON can hold; returns it."""
        self._check()
        with plain_archive_errors(self._name):
            self._storage.set_study_user_attr(self._study_id, key, value)
        return value

    @outlasting_restarts
    def trials(self) -> list[FrozenTrial]:
        """All finished trials, by number."""
        with plain_archive_errors(self._name):
            return self._stored()

    @outlasting_restarts
    def trials_after(self, number: int) -> list[FrozenTrial]:
        """Finished trials behind that of a number, whoever stored them, by number."""
        with plain_archive_errors(self._name):
            states = (TrialState.COMPLETE, TrialState.FAIL)
            stored = self._followed.get_trials(deepcopy=False, states=states)
        return [trial for trial in stored if trial.number > number]

    def add(self, trial: FrozenTrial) -> int:
        """Store a finished trial; returns its number in the database."""
        self._check()
        tried = False

        @outlasting_restarts
        def store() -> int:
            nonlocal tried
            with plain_archive_errors(self._name):
                again, tried = tried, True
                # Where the connection was lost, the trial may be stored or not.
                for stored in self._stored() if again else ():
                    if (stored.datetime_start, stored.params) == (
                        trial.datetime_start,
                        trial.params,
                    ):
                        return stored.number
                trial_id = self._storage.create_new_trial(self._study_id, template_trial=trial)
                return self._storage.get_trial_number_from_id(trial_id)

        return store()

    def _stored(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(
            self._study_id, deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)
        )

    def close(self) -> None:
        """Give the connections back."""
        close_trials(self._storage)


def search_key(name: str, settings: Mapping[str, Any]) -> str:
    """Return what the short runs of a search with these settings are kept under."""
    # Without what is implied, as it was before.
    told = {key: v for key, v in settings.items() if key not in IMPLIED or IMPLIED[key] != v}
    canonical = json.dumps(told, sort_keys=True)
    return f"{name}/{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def cost_metric(settings: Mapping[str, Any]) -> str:
    """The cost metric of a search with these settings."""
    return str(settings.get("cost", IMPLIED["cost"]))


def _check_same(name: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    before, now = {**IMPLIED, **stored}, {**IMPLIED, **json.loads(json.dumps(given))}
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            first, second, same = before.get(key), now.get(key), "use the same"
            if key == "fleet":
                first, second = (one["fleet"] if one else "none" for one in (first, second))
                same = "give --fleet none" if first == "none" else "give --fleet as then, or not"
            raise InputError(
                f"search '{name}' was begun with {key} = {first}, now it is {second}: {same}, or "
                "start a search of its own with --name"
            )


def plain_archive_errors(name: str) -> AbstractContextManager[None]:
    """Turn errors of Optuna's storage into ours, naming the search."""
    return plain_errors(
        f"storage of search '{name}'",
        "; all finished trials are kept, run the same command again to go on",
    )
