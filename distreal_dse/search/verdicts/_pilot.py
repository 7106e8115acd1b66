"""The pilot: what a search begins with, so that it can say early that it does not pay.

It tells what a short run costs, how noisy it is, whether it learns at all, and whether the shape of
a vector matters here: whether vectors of equal cost differ in what they gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distreal_dse.convergence import Convergence
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork, KeptCounts, uniform_rate
from distreal_dse.fronts import TablePilot, VectorPilot
from distreal_dse.search._costs import TrialCost
from distreal_dse.search._settings import Listener, SearchProgress
from distreal_dse.search.executors import Task
from distreal_dse.search.ledger import STREAM, Ledger, trial_run
from distreal_dse.search.proposer import CurveSpace, SearchSpace
from distreal_dse.search.verdicts._shapes import Floats, shape_effect
from distreal_dse.study import Study

# Each shape is tried at what these of the one-rate vectors cost.
AT = (2, 4, 6)
# Looks at the data are made after the second, third, … replicate; they share this level.
LEVEL = 0.05


def run_pilot(
    space: SearchSpace,
    uniform: Sequence[Mapping[str, float]],
    shapes: Sequence[Mapping[str, float]],
    study: Study,
    cost: TrialCost,
    ledger: Ledger,
    listen: Listener,
    goes_on: Callable[[], bool],
) -> VectorPilot | None:
    """Measure vectors replicate by replicate, until it is decided whether their shape matters.

    Parameters
    ----------
    space
        What is searched.
    uniform, shapes
        Parameters of one-rate vectors, and of others.
    study, cost, ledger
        What is trained, what it costs, and what does the short runs and keeps them for the search.
    listen
        Hears of each run.
    goes_on
        Asked before each run; once it says no, none is begun any more.

    Returns
    -------
    VectorPilot
        None where too few vectors could be trained to tell anything.
    """
    family = dict.fromkeys(space.counts(params) for params in uniform)
    vectors = [*dict.fromkeys([*family, *(space.counts(params) for params in shapes)])]
    full = space.counts(uniform[0])
    tasks = {trial_run(counts): _task_of(counts) for counts in vectors if not cost.price(counts)}
    most, report = study.short_run.replicates, None
    for replicates in range(2, most + 1):
        found, failures = ledger.measure(
            tasks,
            replicates,
            lambda done, total, failed: listen(SearchProgress("pilot", done, total, failed)),
            goes_on,
        )
        if not goes_on():
            return report
        measured = {
            counts: found[trial_run(counts)] for counts in vectors if trial_run(counts) in found
        }
        known = [counts for counts in measured if counts in family]
        if len(known) < 2 or len(known) == len(measured) or full not in known:
            return None
        tasks = {name: task for name, task in tasks.items() if name not in failures}
        costs = {counts: cost.cost(counts) for counts in measured}
        report = vector_pilot(measured, costs, known, replicates, most, ledger.mean_seconds)
        if report.is_decided:
            break
    return report


def _task_of(counts: KeptCounts) -> Callable[[int], Task]:
    return lambda number: Task(counts, STREAM, (number,))


def pilot_shapes(
    space: SearchSpace, network: DroppableNetwork, granularity: int
) -> list[dict[str, float]]:
    """Parameters of vectors of five shapes at the costs of some one-rate vectors, none dearer.

    The shapes are those that fits of tables begin with: a wide last group, a wide end, a wide
    beginning, wide ends, a wide middle (`CurveSpace.starts`).
    """
    macs = MacCost(network.channels)
    curves = CurveSpace(network.groups, granularity)
    uniform = [space.counts(params) for params in space.uniform()]
    found: dict[KeptCounts, None] = {}
    widths = network.full_counts
    for start in curves.starts()[1:]:
        vectors = np.array(curves.vectors(curves.elasticities(start)))
        vectors = vectors[(space.counts_at(space.points(vectors)) == vectors).all(1)]
        costs = macs.training_many(vectors) if len(vectors) else np.empty(0)
        for target in (macs.training(uniform[index]) for index in AT):
            fitting = np.flatnonzero(costs <= target)
            if len(fitting):
                best = fitting[costs[fitting].argmax()]
                found[tuple(int(kept) for kept in vectors[best])] = None
    return [
        space.params([1 - kept / width for kept, width in zip(counts, widths, strict=True)])
        for counts in found
        if uniform_rate(counts, widths, granularity) is None
    ]


def vector_pilot(
    measured: Mapping[KeptCounts, Convergence],
    costs: Mapping[KeptCounts, float],
    uniform: Sequence[KeptCounts],
    replicates: int,
    most_replicates: int,
    seconds: float,
) -> VectorPilot:
    """Judge what the pilot's short runs came to.

    Parameters
    ----------
    measured
        Of each vector, the first ``replicates`` short runs or more.
    costs
        Of each vector.
    uniform
        Those of one rate, two or more; the others are shapes, one or more.
    replicates, most_replicates
        How many are looked at, and how many there may be in the end: looks share the level.
    seconds
        Of one short run.
    """
    gains = {
        counts: [one.loss_gain for one in convergence.replicates[:replicates]]
        for counts, convergence in measured.items()
    }
    family = sorted((one for one in dict.fromkeys(uniform) if one in gains), key=costs.__getitem__)
    shapes = [counts for counts in gains if counts not in family]
    logs = np.log([costs[counts] for counts in family])
    controls = np.array([gains[counts] for counts in family])
    means = controls.mean(1)
    full = gains[max(family, key=sum)]  # with latencies, it need not be the dearest
    # By regression on the logarithm of the cost, so that no single vector decides; of three vectors
    # at least, where hardly any costs less than half.
    cheap = max(int((logs <= logs[-1] + math.log(0.5)).sum()), min(3, len(family)))
    slope = float(np.polyfit(logs[:cheap], means[:cheap], 1)[0])
    looks = max(most_replicates - 1, 1)
    effect = shape_effect(
        np.array([gains[counts] for counts in shapes]),
        controls,
        _interpolation(np.log([costs[counts] for counts in shapes]), logs),
        1 - LEVEL / looks,
    )
    return VectorPilot(
        seconds=seconds,
        noise=effect.noise,
        gain=float(np.mean(full)),
        gain_error=float(np.std(full, ddof=1)) / math.sqrt(replicates),
        slope=slope,
        spread=effect.spread,
        low=effect.low,
        high=effect.high,
        replicates=replicates,
    )


def table_pilot(
    shaped: Sequence[Convergence], one_rate: Convergence, looks: int, seconds: float
) -> TablePilot:
    """Judge what short runs of tables came to, of several shapes and of one rate.

    Parameters
    ----------
    shaped, one_rate
        With equally many replicates.
    looks
        At the data, that there are in the end: they share the level.
    seconds
        Of one short run.
    """
    gains = np.array([[run.loss_gain for run in one.replicates] for one in (*shaped, one_rate)])
    effect = shape_effect(
        gains[:-1], gains[-1:], np.ones((len(shaped), 1)), 1 - LEVEL / max(looks, 1)
    )
    return TablePilot(
        noise=effect.noise,
        spread=effect.spread,
        low=effect.low,
        high=effect.high,
        replicates=gains.shape[1],
        seconds=seconds,
    )


def _interpolation(at: Floats, nodes: Floats) -> Floats:
    """Weights of nodes, [n, nodes], that interpolate linearly at points, [n]; rows sum to 1."""
    unit = np.eye(len(nodes))
    return np.column_stack([np.interp(at, nodes, column) for column in unit])
