"""A search in a database as `distreal-dse optimize` leaves it, without its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from distreal_dse.fronts import (
    FIXED,
    LAYERS,
    Front,
    FrontGroup,
    FrontPoint,
    non_dominated,
    normalise_url,
    open_database,
    save_front,
)
from distreal_dse.search import SearchSpace

SHORT_RUN = {"warm_up": 10, "mini_batches": 20, "replicates": 2}
DIRECTIONS = ("minimize", "maximize")


def write_search(
    url: str,
    name: str = "made",
    trials: int = 30,
    groups: Sequence[FrontGroup] = (FrontGroup("conv1", 16), FrontGroup("conv2", 32)),
    about: str = "made: up",
    finished: bool = True,
) -> Front | None:
    """Write a study of so many trials, and, where it is finished, the front that came of it."""
    engine = open_database(url)
    space = SearchSpace(groups, 0.85)
    widths = [group.channels for group in groups]
    layers = [
        {
            "name": group.name,
            "macs": 600.0,
            "inputs": {str(index - 1): 1.0} if index else {FIXED: 3.0},
            "outputs": {str(index): 1.0},
        }
        for index, group in enumerate(groups)
    ]

    def cost(counts: Sequence[int]) -> float:
        before = (3, *counts)
        return float(sum(600 * one * two for one, two in zip(before, counts, strict=False)))

    full = cost(widths)
    settings = {
        "study": name, "seed": 0, "model": "0123456789abcdef", "max rate": 0.85,
        "batch size": 32, "short run": SHORT_RUN,
    }  # fmt: skip
    study = optuna.create_study(storage=normalise_url(url), study_name=name, directions=DIRECTIONS)
    for key, value in {
        "study": about,
        "channel groups": {group.name: group.channels for group in groups},
        "reference cost (training MACs)": full,
        "settings": settings,
    }.items():
        study.set_user_attr(key, value)
    random = np.random.default_rng(0)
    start = datetime(2026, 1, 31, tzinfo=UTC).replace(tzinfo=None)
    points, made = [], []
    uniform = space.uniform()
    for number in range(trials):
        params = (
            uniform[number]
            if number < len(uniform)
            else {key: random.uniform(one.low, one.high) for key, one in
                  space.distributions.items()}
        )  # fmt: skip
        rates = space.rates(params)
        counts = tuple(max(1, round(w * (1 - r))) for w, r in zip(widths, rates, strict=True))
        gain = float((cost(counts) / full) ** 0.3 + random.normal(0, 0.03))
        points.append(
            FrontPoint(rates, counts, cost(counts), gain, 0.02, 8, 0.9,
                       number < len(uniform), number)
        )  # fmt: skip
        made.append(
            create_trial(
                params=params,
                distributions=space.distributions,
                values=[cost(counts), gain],
                user_attrs={
                    "kept channels": {g.name: c for g, c in zip(groups, counts, strict=True)},
                    "cost ratio": cost(counts) / full,
                    "standard error": 0.02,
                    "accuracy": 0.9,
                    "loss gains": [gain, gain],
                    "accuracies": [0.9, 0.9],
                    "seconds": 0.1,
                },
                state=TrialState.COMPLETE,
            )
        )
        made[-1].datetime_start = start + timedelta(seconds=number)
        made[-1].datetime_complete = start + timedelta(seconds=number + 0.9)
    study.add_trials(made)
    if not finished:
        return None
    best = [points[i] for i in non_dominated(
        [p.cost for p in points], [p.convergence for p in points]
    )]  # fmt: skip
    family = [
        {"rate": p.rates[0], "cost": p.cost, "convergence": p.convergence,
         "standard_error": 0.02, "replicates": 8, "accuracy": 0.9}
        for p in points if p.uniform
    ]  # fmt: skip
    front = Front(
        name=name,
        study=name,
        model_fingerprint="0123456789abcdef",
        groups=tuple(groups),
        cost_metric="macs",
        device={},
        reference_cost=full,
        settings={**settings, "uniform family": family, LAYERS: layers},
        points=tuple(replace(point) for point in best),
    )
    return save_front(engine, front)
