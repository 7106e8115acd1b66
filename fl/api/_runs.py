"""Federated runs from Python; ``distreal-dse fl run`` and ``fl resume`` call the same."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from torch import nn

from distreal_dse.data.evaluation import measure_statistics
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front
from distreal_dse.study.given import GivenStudy, source_of
from distreal_dse.support.progress import console, progress_bar
from distreal_dse.support.tables import make_table
from distreal_dse.support.workers import one_thread
from fl.api._opening import opened
from fl.cohort import check_clients
from fl.compare.export import device_rows, round_rows
from fl.engine import FederatedRun
from fl.results import RoundResult
from fl.store.asked import spec_arguments
from fl.store.execution import begin_run, carry_out
from fl.store.runs import Run, load_run
from fl.store.specs import RunSpec
from fl.tracking import check_trackers, tracked

if TYPE_CHECKING:
    from distreal_dse.study import Study
    from fl.world.devices import DeviceClass
    from fl.world.fleet import Fleet

Listener = Callable[[RoundResult], None]
Shown = Callable[[Run], AbstractContextManager[Listener]]
"""From the stored run to a context that gives what hears of its rounds."""


@dataclass(frozen=True)
class FederatedResult:
    """What came out of a federated run.

    Parameters
    ----------
    run
        As it is stored: settings, and the figures of each round.
    trained
        The trained network; None where the run was finished before, as the database keeps figures
        and no networks.
    """

    run: Run
    trained: nn.Module | None = field(default=None, repr=False)

    @property
    def network(self) -> nn.Module:
        """The full network as it was trained, in evaluation mode, a copy of its own.

        Its running statistics are those that its last accuracy was measured with.

        Raises
        ------
        InputError
            If the run was finished before, by another call.
        """
        if self.trained is None:
            raise InputError(
                f"network of run {self.run.id}: expected a run that this call trained, found one "
                "that was finished before, and the database keeps its figures alone; run it anew"
            )
        return self.trained

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the last round that was evaluated, in [0, 1]."""
        return self.run.accuracy

    @property
    def rounds(self) -> Any:
        """The figures of each round, as a `pandas.DataFrame` or `distreal_dse.support.tables.Rows`.

        Columns are those of `fl.results.RoundResult` that are numbers, and ``accuracy of CLASS``
        for each class of device.
        """
        return make_table(round_rows([self.run]))

    @property
    def devices(self) -> Any:
        """The figures of each device in each round, likewise; see `fl.results.DeviceRound`."""
        return make_table(device_rows([self.run]))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self.rounds._repr_html_())


def run(
    study: Study | str | os.PathLike[str],
    *,
    front: Front | str | os.PathLike[str] | None = None,
    strategy: str = "distreal",
    rounds: int = 30,
    devices: int = 20,
    cohort: int = 5,
    fleet: Fleet | str | None = None,
    split: str = "iid",
    storage: str | os.PathLike[str] | None = None,
    workers: int = 1,
    clients: str = "auto",
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    epochs: int = 1,
    evaluate_every: int = 1,
    evaluate_on: str = "test",
    statistics: str = "all",
    availability: str = "markov",
    classes: str | tuple[DeviceClass, ...] | None = None,
    speeds: str | None = None,
    links: str | None = None,
    pace: float = 1.0,
    until: float | None = None,
    deadline: float | None = None,
    late: str = "drop",
    overcommit: float = 0.0,
    server: str = "replace",
    schedule: str = "constant",
    robust: str = "none",
    masked_loss: bool = False,
    checkpoint_every: int = 10,
    track: str = "",
    progress: bool | Shown = True,
    listen: Listener | None = None,
) -> FederatedResult:
    """Train on devices whose free compute changes: by vectors of a front, or in nested levels.

    Every round is in the database when it is done. A run that is interrupted goes on with
    `resume`.

    Parameters
    ----------
    study
        A `Study`, which needs a name; or the name of a shipped study; or the path of a study file.
    front
        A `Front`, its label, or the path of an exported one. None where the strategy needs none.
    strategy
        What devices train; ``distreal-dse fl strategies`` lists them.
    rounds, devices, cohort
        Rounds of training, devices that hold the data, and devices whose updates a round needs.
    fleet
        A `Fleet`, a name such as ``"extreme"``, or its text: classes, availability and pace.
    split
        Who holds which samples: ``"iid"``, ``"dirichlet:alpha=0.3"``, ``"shards"``, …
    storage
        URL of the database, or a `pathlib.Path` of an SQLite file; None for
        ``$DISTREAL_STORAGE``, else ``sqlite:///distreal.db`` in the working folder.
    workers
        Processes that train at the same time; 1 trains here. A `Study` object is copied to them,
        with the functions that it refers to.
    clients
        How devices of a cohort are trained where ``workers`` is 1: ``"one-by-one"``, or
        ``"batched"``, all at once; ``"auto"`` batches on a GPU. Results are the same to rounding
        errors.
    seed
        Of all randomness; equal arguments give equal runs on one machine.
    device
        ``"cpu"`` or ``"cuda"``.
    options
        Of a study that is a function, by name.
    epochs
        Passes of a device over its data per round.
    evaluate_every, evaluate_on, statistics, availability, speeds, links, pace, until, server, \
schedule, robust, masked_loss
        As in `fl.store.specs.RunSpec`.
    classes
        Classes of devices, or text such as ``"strong=0.3@1,weak=0.7@1/4"``.
    deadline, late, overcommit
        As in `fl.world.deadlines.RoundRules`.
    checkpoint_every
        Rounds from one checkpoint to the next.
    track
        Who hears of each round as well: ``"tensorboard:FOLDER"``, ``"mlflow:ADDRESS"``,
        ``"wandb:PROJECT"``, or several, with commas.
    progress
        Whether to show how far it is: a bar in a terminal, lines elsewhere. Or what shows it: a
        function of the stored run that returns a context, which gives what hears of rounds.
    listen
        Hears of every round in place of what is shown.

    Returns
    -------
    FederatedResult
        Rounds as a table, and the trained network.

    Raises
    ------
    InputError
        If an argument, the study, its model, its data or the front can't be used.
    StorageError
        If the database can't be written.

    Warns
    -----
    TrackingWarning
        If a tracker fails; the run goes on without it.
    BatchingWarning
        If devices can't be trained all at once; they are one by one.
    """
    check_trackers(track)
    check_clients(clients, workers)
    source = source_of(study, options, workers=workers)
    with opened(storage) as engine, one_thread():
        arguments = spec_arguments(
            source,
            engine,
            front,
            device,
            rounds=rounds,
            until=until,
            devices=devices,
            cohort=cohort,
            epochs=epochs,
            evaluate_every=evaluate_every,
            evaluate_on=evaluate_on,
            statistics=statistics,
            split=split,
            fleet=fleet,
            availability=availability,
            classes=classes,
            speeds=speeds,
            links=links,
            pace=pace,
            deadline=deadline,
            late=late,
            overcommit=overcommit,
            server=server,
            schedule=schedule,
            robust=robust,
            masked_loss=masked_loss,
        )
        spec = RunSpec(**arguments, strategy=strategy, seed=seed, checkpoint_every=checkpoint_every)
        given = source if isinstance(source, GivenStudy) else None
        run_id, begun = begin_run(engine, spec, given=given)
        return _go_on(
            engine, run_id, begun, given, workers, clients, track, _shown(progress, listen)
        )


def resume(
    run_id: int,
    *,
    study: Study | str | os.PathLike[str] | None = None,
    storage: str | os.PathLike[str] | None = None,
    workers: int = 1,
    clients: str = "auto",
    track: str = "",
    progress: bool | Shown = True,
    listen: Listener | None = None,
) -> FederatedResult:
    """Go on with a run from its newest checkpoint; the result is as if it had never stopped.

    Parameters
    ----------
    run_id
        Of a run that stopped; ``result.run.id`` of one that did not.
    study
        The `Study` object that it was begun with, where it was one, or its file, where that has
        changed or lies elsewhere now.
    storage, workers, clients, track, progress, listen
        As for `run`.

    Raises
    ------
    InputError
        If there is no such run, or study, front or data are not those that it was begun with.
    StorageError
        If the database can't be used.
    """
    check_trackers(track)
    check_clients(clients, workers)
    given: str | GivenStudy | None = None
    if study is not None:
        source = source_of(study, workers=workers)
        given = source if isinstance(source, GivenStudy) else source.spec
    with opened(storage) as engine, one_thread():
        return _go_on(
            engine, run_id, None, given, workers, clients, track, _shown(progress, listen)
        )


def _go_on(
    engine: Engine,
    run_id: int,
    begun: FederatedRun | None,
    study: str | GivenStudy | None,
    workers: int,
    clients: str,
    track: str,
    shown: Shown,
) -> FederatedResult:
    stored = load_run(engine, run_id)
    with shown(stored) as listen, tracked(track, stored, listen) as hear:
        federated = carry_out(engine, run_id, begun, hear, workers, study, clients)
        stored = load_run(engine, run_id)
    return FederatedResult(stored, None if federated is None else _trained(federated, stored))


def _trained(federated: FederatedRun, stored: Run) -> nn.Module:
    """A copy of the network, with statistics as for the evaluation of its last round."""
    module = copy.deepcopy(federated.network).module
    where = next(module.parameters()).device
    measure_statistics(module, federated.calibration(stored.rounds[-1].devices), where)
    return module


def _shown(progress: bool | Shown, listen: Listener | None) -> Shown:
    if listen is not None:
        return lambda stored: nullcontext(listen)
    if callable(progress):
        return progress
    return shown_rounds if progress else lambda stored: nullcontext(lambda result: None)


@contextmanager
def shown_rounds(stored: Run) -> Iterator[Listener]:
    """Show a run's rounds as they are done: a bar in a terminal, lines elsewhere."""
    rounds = stored.settings.get("rounds")
    with progress_bar(console()) as bar:
        yield lambda result: bar.show("rounds", result.round, rounds, _note(result))


def _note(result: RoundResult) -> str:
    accuracy = "" if result.accuracy is None else f"accuracy {result.accuracy:.1%}, "
    share = "" if result.mean_cost_share is None else f", mean cost {result.mean_cost_share:.0%}"
    return f"{accuracy}virtual {result.virtual_seconds:.3g} s{share}"
