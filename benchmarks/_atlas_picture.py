"""The figure of the atlas: who is how far above the small network, in which cell."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from benchmarks._atlas_cells import Cell
from dashboards.style import GRID, INK, strategy_looks, template
from distreal_dse.support.specs import name_of
from fl.compare.paired import Difference, paired_differences
from fl.compare.summaries import by_strategy
from fl.store.runs import Run

REFERENCE = "small"
ROW = 26  # pixels
LEAST = -15.0  # points; what is less is drawn there, or it would squeeze all else


def above_small(runs: Sequence[Run]) -> list[Difference]:
    """Return how far the others are from `REFERENCE`, intervals for all of them at once."""
    small = next((one for one in by_strategy(runs) if name_of(one) == REFERENCE), "")
    return paired_differences(runs, small)


def picture(found: Sequence[tuple[Cell, Sequence[Run]]], ours: str) -> go.Figure:
    """Draw a row for each cell: settled accuracy above that of the small network, paired by seed.

    Parameters
    ----------
    found
        Cells that are filled and their runs, in the order of the rows.
    ours
        Strategy whose interval is drawn.
    """
    rows = [(cell.told, above_small(runs)) for cell, runs in found]
    names = list(dict.fromkeys(name_of(one.strategy) for _, own in rows for one in own))
    figure = go.Figure(layout={"template": template()})
    for name, look in strategy_looks(names).items():
        points = [
            (row, max(LEAST, 100 * one.settled_accuracy.mean), 100 * one.settled_accuracy.high)
            for row, own in rows
            for one in own
            if name_of(one.strategy) == name
        ]
        figure.add_scatter(
            y=[row for row, _, _ in points],
            x=[mean for _, mean, _ in points],
            error_x={"array": [high - mean for _, mean, high in points], "thickness": 2}
            if name == ours
            else None,
            mode="markers",
            name=name,
            marker={"color": look.color, "symbol": look.symbol, "size": 10},
        )
    figure.add_vline(0, line={"color": INK, "width": 1.5})
    figure.update_layout(
        title=f"Who is above the small network: {ours} with its interval",
        xaxis={
            "title": f"points of settled accuracy above {REFERENCE}, paired by seed; "
            f"{LEAST:.0f} stands for less, too"
        },
        yaxis={"autorange": "reversed", "gridcolor": GRID, "dtick": 1},
        height=150 + ROW * len(rows),
    )
    return figure
