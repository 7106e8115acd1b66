"""The numbers behind the figures, as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dashboards.costs import cost_breakdown, timed_vectors
from dashboards.differences import comparison_finding, differences_of
from dashboards.findings import (
    TrialPoint,
    accuracy_curve,
    accuracy_finding,
    front_finding,
    uniform_family,
)
from dashboards.lines import BUDGETS, by_network, lines_of, seed_of, shared_vectors
from dashboards.progress import search_progress
from dashboards.side_by_side import side_by_side_finding
from dashboards.work import subject_of, vector_use
from distreal_dse.fronts import Front, StoredLatency, utc_now
from fl.compare.summaries import summarise
from fl.store.runs import Run

SCHEMA = "distreal-dse/report/1"


def report_numbers(
    fronts: Sequence[tuple[Front, Sequence[TrialPoint]]],
    runs: Sequence[Run] = (),
    latencies: Sequence[StoredLatency] = (),
) -> dict[str, Any]:
    """All numbers of a report; those that are not known are null.

    Parameters
    ----------
    fronts, runs, latencies
        As for `write_report`.
    """
    names = dict.fromkeys(run.comparison for run in runs if run.comparison is not None)
    alone = [run for run in runs if run.comparison is None]
    value = {
        "schema": SCHEMA,
        "created_at": utc_now(),
        "fronts": [_front(front, trials, latencies) for front, trials in fronts],
        "fronts side by side": [
            _side_by_side(own) for own in by_network([front for front, _ in fronts])
        ],
        "comparisons": [
            _comparison(name, [run for run in runs if run.comparison == name]) for name in names
        ],
        "finding of runs": accuracy_finding(alone) if alone else None,
        "runs": [_run(run) for run in alone],
    }
    known: dict[str, Any] = _known(value)
    return known


def _front(
    front: Front, trials: Sequence[TrialPoint], latencies: Sequence[StoredLatency]
) -> dict[str, Any]:
    breakdown = cost_breakdown(front)
    progress = search_progress(trials, front.reference_cost, front.cost_metric, front.settings)
    return {
        "label": front.label,
        "hash": front.content_hash,
        "finding": front_finding(front),
        "hypervolume": front.hypervolume,
        "hypervolume of one rate": front.uniform_hypervolume,
        "front": front.content(),
        "one rate": [asdict(one) for one in uniform_family(front, trials)],
        "trials": [asdict(one) for one in trials],
        "macs by layer": None
        if breakdown is None
        else dict(zip(breakdown.layers, breakdown.macs, strict=True)),
        "search": None if progress is None else asdict(progress),
        "latencies": [asdict(one) for one in timed_vectors(front, latencies)],
    }


def _side_by_side(fronts: Sequence[Front]) -> dict[str, Any]:
    """Fronts of one network; surfaces are pairs of the share of the full cost and the gain."""
    lines = lines_of(fronts)
    return {
        "model fingerprint": fronts[0].model_fingerprint,
        "finding": side_by_side_finding(lines),
        "lines": [
            {
                "name": line.name,
                "fronts": [front.label for front in line.fronts],
                "hashes": [front.content_hash for front in line.fronts],
                "seeds": [seed_of(front) for front in line.fronts],
                "cost unit": line.fronts[0].cost_unit,
                "device": line.fronts[0].device,
                "median": line.middle,
                "attained by all": line.low,
                "attained by any": line.high,
                "budgets": [
                    {
                        "share": budget / 100,
                        "gain": found.gain,
                        "standard error": found.standard_error,
                        "attained by all": found.low,
                        "attained by any": found.high,
                    }
                    for budget in BUDGETS
                    for found in (line.gain(budget),)
                ],
            }
            for line in lines
        ],
        "same vectors": [
            {"kept counts": one.kept_counts, "shares of the full cost": one.shares}
            for one in shared_vectors(fronts)
        ],
    }


def _comparison(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    evaluated = [run for run in runs if accuracy_curve(run)]
    found: dict[str, Any] = {"name": name, "runs": [_run(run) for run in runs]}
    if evaluated:
        summaries, target = summarise(evaluated)
        found |= {
            "finding": comparison_finding(evaluated),
            "target": target,
            "strategies": [asdict(one) for one in summaries],
            "differences": [
                asdict(one) | {"verdict": one.verdict} for one in differences_of(evaluated)
            ],
            "vectors used": [asdict(one) for one in vector_use(subject_of(evaluated))],
        }
    return found


def _run(run: Run) -> dict[str, Any]:
    """A run without the figures of each device, which `fl export` writes."""
    return {
        **{
            name: getattr(run, name)
            for name in (
                "id", "study", "strategy", "front_label", "front_hash", "model_fingerprint",
                "seed", "settings", "created_at", "finished",
            )
        },
        "curve": [
            {"round": number, "virtual_seconds": seconds, "accuracy": accuracy}
            for number, seconds, accuracy in accuracy_curve(run)
        ],
    }  # fmt: skip


def _known(value: Any) -> Any:
    """A value as JSON can hold it: what is not finite is null."""
    if isinstance(value, dict):
        return {str(key): _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
