"""How a search went: the quality of what it had found against what its training had cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from dashboards.figures import LEGEND_ROOM, figure_title
from dashboards.findings import TrialPoint, counted, percent, si_prefix
from dashboards.style import FAINT, FRONT, UNIFORM, template
from distreal_dse.fronts import Front, hypervolume, non_dominated

# Of the final hypervolume: what counts as nearly there.
NEARLY = 0.95


@dataclass(frozen=True)
class Progress:
    """Hypervolume of the trials so far, at each trial that trained.

    Parameters
    ----------
    spent
        Cost of all short runs up to and with the trial, in ``unit``.
    hypervolumes
        Of the trials up to and with it.
    unit
        Of ``spent``.
    """

    spent: tuple[float, ...]
    hypervolumes: tuple[float, ...]
    unit: str


def search_progress(
    trials: Sequence[TrialPoint],
    reference_cost: float,
    cost_metric: str,
    settings: Mapping[str, Any],
) -> Progress | None:
    """Follow a search through its trials.

    Vectors that were tried before are not trained again and cost nothing; failed trials are left
    out, as their cost is not known.

    Parameters
    ----------
    trials
        With their numbers; others are left out.
    reference_cost, cost_metric
        As for `Front`.
    settings
        Of the search or its front: how long its short runs are.

    Returns
    -------
    Progress or None
        None where there is nothing to follow or the settings don't tell.
    """
    try:
        run = settings["short run"]
        steps = float(run["mini_batches"]) * float(run["replicates"])
        # MACs are per sample, seconds per mini-batch.
        units = steps * (float(settings["batch size"]) if cost_metric == "macs" else 1.0)
    except (KeyError, TypeError, ValueError):
        return None
    numbered = [(trial.number, trial) for trial in trials if trial.number is not None]
    if not numbered or reference_cost <= 0:
        return None
    spent, areas = [], []
    total, seen = 0.0, set[tuple[int, ...]]()
    best: list[tuple[float, float]] = []
    for _, trial in sorted(numbered, key=lambda pair: pair[0]):
        if trial.kept_counts and trial.kept_counts in seen:
            continue
        seen.add(trial.kept_counts)
        total += trial.cost * units
        pairs = [*best, (trial.cost, trial.convergence)]
        kept = non_dominated([cost for cost, _ in pairs], [gain for _, gain in pairs])
        best = [pairs[index] for index in kept]
        spent.append(total)
        areas.append(hypervolume(best, reference_cost))
    factor, sign = si_prefix(total) if cost_metric == "macs" else (1.0, "")
    unit = f"{sign}MACs" if cost_metric == "macs" else "s"
    return Progress(tuple(one / factor for one in spent), tuple(areas), unit)


def progress_finding(progress: Progress, front: Front | None = None) -> str:
    """When the search was nearly where it ended."""
    end = progress.hypervolumes[-1]
    if front is None:
        return (
            f"The search stands at a hypervolume of {end:.3f} after "
            f"{counted(len(progress.spent), 'vector')}"
        )
    near = next(i for i, area in enumerate(progress.hypervolumes) if area >= NEARLY * end)
    share = progress.spent[near] / progress.spent[-1] if progress.spent[-1] else 1.0
    return (
        f"{percent(NEARLY)} of the final hypervolume was there after {percent(share)} of the "
        f"search's training, {near + 1} of {counted(len(progress.spent), 'vector')}"
    )


def progress_figure(progress: Progress, front: Front | None = None) -> go.Figure:
    """Hypervolume over the training that the search has cost.

    Parameters
    ----------
    progress
        What `search_progress` returned.
    front
        What came of the search, where it is finished: drawn for comparison.
    """
    # A step for each rise, and the end: steps between are straight.
    areas = progress.hypervolumes
    shown = [i for i in range(len(areas)) if i == 0 or areas[i] > areas[i - 1]]
    if shown[-1] != len(areas) - 1:
        shown.append(len(areas) - 1)
    figure = go.Figure(
        go.Scatter(
            x=[progress.spent[i] for i in shown],
            y=[areas[i] for i in shown],
            name="trials so far, not verified",
            mode="lines",
            line={"color": FAINT, "width": 2, "shape": "hv"},
            hovertext=[
                f"{counted(i + 1, 'vector')}, {progress.spent[i]:.4g} {progress.unit}<br>"
                f"hypervolume {areas[i]:.3f}"
                for i in shown
            ],
            hoverinfo="text",
        )
    )
    uniform = front.uniform_hypervolume if front is not None else None
    if uniform is not None:
        figure.add_trace(
            go.Scatter(
                x=[progress.spent[0], progress.spent[-1]],
                y=[uniform, uniform],
                name="curve of one rate for all layers, verified",
                mode="lines",
                line={"color": UNIFORM.color, "dash": UNIFORM.dash, "width": 2},
                hovertext=[f"hypervolume {uniform:.3f}"] * 2,
                hoverinfo="text",
            )
        )
    if front is not None:
        figure.add_trace(
            go.Scatter(
                x=[progress.spent[-1]],
                y=[front.hypervolume],
                name="verified front",
                mode="markers",
                marker={"color": FRONT.color, "symbol": FRONT.symbol, "size": 11},
                hovertext=[f"hypervolume {front.hypervolume:.3f}"],
                hoverinfo="text",
            )
        )
    figure.update_layout(
        template=template(),
        **figure_title(
            progress_finding(progress, front), LEGEND_ROOM + 20 * (len(figure.data) - 1)
        ),
        height=420,
        showlegend=True,
        xaxis={
            "title": {"text": f"training of the search's short runs ({progress.unit})"},
            "rangemode": "tozero",
        },
        yaxis={"title": {"text": "hypervolume (nats)"}, "rangemode": "tozero"},
    )
    return figure
