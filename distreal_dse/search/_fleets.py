"""The search for a fleet: fit a table, measure some of its vectors, store both as a front."""

from __future__ import annotations

import math
from typing import Any

from optuna.study import StudyDirection

from distreal_dse.convergence import FleetTable
from distreal_dse.dropout import DroppableNetwork, KeptCounts, uniform_rate
from distreal_dse.errors import InputError
from distreal_dse.fronts import PILOT, TABLE, Front, pilot_from, table_setting
from distreal_dse.search._costs import REFERENCE_MACS, Settled, TrialMacs
from distreal_dse.search._fronts import front_of, settings_of, study_attributes
from distreal_dse.search._job import SearchJob
from distreal_dse.search._memory import SearchMemory
from distreal_dse.search._settings import SearchProgress, check_granularity
from distreal_dse.search._tables import GAIN_OVER_ONE_RATE, Fitted, TableFitter
from distreal_dse.search._tried import FLEET
from distreal_dse.search.ledger import comparable_settings
from distreal_dse.search.verdicts import Candidate, verify
from distreal_dse.study import Study
from distreal_dse.study.preparation import prepare

# Vectors of the table, and as many of one rate, that are measured one by one.
POINTS = 10


def find_for_fleet(job: SearchJob) -> Front:
    """Fit a table to the fleet of the settings; go on with a fit that was begun.

    The front's points are vectors of the table, measured one by one among mini-batches of the fleet
    that use the table. Its settings hold the whole table, which devices look up, and what it gains
    over one rate for all layers.

    Parameters
    ----------
    job
        The search; its settings have a fleet.

    Raises
    ------
    InputError
        If the fleet has budgets that no vector fits, or the cost is not counted.
    DistrealError
        As `distreal_dse.search.search` does.
    """
    settings, study, listen = job.settings, job.study, job.listen
    fleet = settings.fleet
    assert fleet is not None
    if settings.cost != "macs":
        raise InputError(
            f"--cost is {settings.cost}: expected macs with --fleet, as every vector of a table "
            "needs an exact cost"
        )
    network, data = prepare(study, settings.seed, settings.device)
    check_granularity(study, network)
    memory = SearchMemory(study, network, data, settings.memory, of_tables=True)
    fitter = TableFitter(settings, study, network, fleet, memory.fits)
    cost = TrialMacs(network)
    comparable = {
        **comparable_settings(study, network, settings.seed, settings.device),
        **memory.comparable,
        FLEET: fitter.budgets.as_json(),
        "table mini-batches": study.short_run.table_mini_batches,
    }
    attributes = {
        **study_attributes(study, network),
        REFERENCE_MACS: cost.reference,
        "read": f"value: {GAIN_OVER_ONE_RATE}, in short runs of whole tables in a fleet",
    }
    directions, values = (StudyDirection.MAXIMIZE,), (GAIN_OVER_ONE_RATE,)
    with job.opened(network, data, comparable, attributes, directions, values) as (archive, ledger):
        fitter.begin(archive, ledger, job.company)
        pilot = None
        if settings.pilot:
            stored = archive.recall(PILOT)
            pilot = pilot_from(stored)
            if stored is None and settings.trials > fitter.starts:
                pilot = fitter.pilot(listen)
                if job.company is not None and (stored := archive.recall(PILOT)) is not None:
                    pilot = pilot_from(stored)  # another driver's: the same, but for its seconds
                archive.remember(PILOT, pilot.as_json() if pilot else {})
        fitter.run(listen, only_starts=pilot is not None and not pilot.is_worth_a_search)
        if job.company is not None:
            # From what is stored, in its order: so that all drivers verify the same curves.
            fitter.begin(archive, ledger)
        fitted = fitter.verified(listen)
        candidates = _points(study, network, cost, fitted, fitter.table(fitter.one_rate))
        verified = verify(
            candidates,
            study.short_run.verification_replicates,
            ledger,
            lambda done, total, failed: listen(SearchProgress("points", done, total, failed)),
            fitted.table,
        )
    told = {
        **comparable,
        **settings_of(settings, fitter.finished),
        **_table_settings(fitted, cost, memory),
        **({PILOT: pilot.as_json()} if pilot else {}),
    }
    settled = memory.told(Settled(verified.points, {}))
    return front_of(job.name, study, network, cost, verified, settled, told, judged_as_a_whole=True)


def _points(
    study: Study, network: DroppableNetwork, cost: TrialMacs, fitted: Fitted, one_rate: FleetTable
) -> list[Candidate]:
    """Some vectors of both tables, evenly spread over the logarithm of the cost."""
    chosen = dict.fromkeys([*_spread(fitted.table), *_spread(one_rate)])
    widths = network.full_counts
    return [
        Candidate(
            tuple(1 - kept / width for kept, width in zip(counts, widths, strict=True)),
            counts,
            cost.cost(counts),
            uniform_rate(counts, widths, study.granularity) is not None,
            None,
        )
        for counts in chosen
    ]


def _spread(table: FleetTable) -> list[KeptCounts]:
    """From the vector for the smallest budget to the full network."""
    low, high = math.log(table.budgets.shares[0]), 0.0
    steps = [low + (high - low) * step / (POINTS - 1) for step in range(POINTS)]
    return [table.pick(math.exp(step) * (1 + 1e-9)) for step in steps]


def _table_settings(fitted: Fitted, cost: TrialMacs, memory: SearchMemory) -> dict[str, Any]:
    vectors = fitted.table.vectors
    low, high = fitted.interval
    return {
        TABLE: table_setting(
            vectors,
            [cost.cost(counts) for counts in vectors],
            memory.peak,
            elasticities=[*fitted.elasticities],
            unused=fitted.table.unused(),
            gains=[*fitted.gains],
            gain=fitted.gain,
            interval=[low, high],
            compared=fitted.compared,
        )
    }
