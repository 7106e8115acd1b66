"""One colour language for all figures.

Colours are those of Okabe and Ito, which people with colour vision deficiencies can tell apart;
each meaning also has a marker and a dash of its own, so that a print in grey can be read as well.

References
----------
Okabe, Ito: Color Universal Design, 2008, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

INK, FAINT, GRID, PAPER = "#1f2933", "#5b6770", "#e4e7eb", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Look:
    """Colour, marker symbol and dash of a trace, by their Plotly names."""

    color: str
    symbol: str
    dash: str = "solid"


FRONT = Look("#0072B2", "circle")
UNIFORM = Look("#D55E00", "diamond-open", "dash")
TRIAL = Look("#aab2b9", "x-thin-open")

# From all channels kept to nearly all dropped, through the front's blue: darker is more dropout.
RATE_SCALE = [[0.0, "#f3f8fc"], [0.35, "#9ecae6"], [0.7, FRONT.color], [1.0, "#022a45"]]

# DISTREAL wears the colour of the fronts that it trains with; the others follow in this order.
_STRATEGIES = (
    Look("#D55E00", "square"),
    Look("#009E73", "triangle-up"),
    Look("#CC79A7", "diamond"),
    Look("#56B4E9", "cross"),
    Look("#8a6d00", "star"),  # the yellow of the palette, darkened to show on white
    Look("#000000", "x"),
)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def run_looks(strategies: Iterable[str]) -> list[Look]:
    """One look per run: colour and marker say which strategy, the dash which run of it.

    Parameters
    ----------
    strategies
        Name of the strategy of each run.
    """
    names = list(strategies)
    others = sorted(set(names) - {"distreal"})
    by_name = {name: _STRATEGIES[i % len(_STRATEGIES)] for i, name in enumerate(others)}
    by_name["distreal"] = FRONT
    looks = []
    for index, name in enumerate(names):
        look = by_name[name]
        dash = _DASHES[names[:index].count(name) % len(_DASHES)]
        looks.append(Look(look.color, look.symbol, dash))
    return looks


def template() -> go.layout.Template:
    """The Plotly template of all figures: light, and readable at the width of a phone."""
    axis = {
        "gridcolor": GRID,
        "linecolor": FAINT,
        "zerolinecolor": GRID,
        "ticks": "outside",
        "tickcolor": FAINT,
        "showline": True,
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {
            "x": 0,
            "y": 1,
            "yanchor": "top",
            "pad": {"l": 12, "t": 22},
            "font": {"size": 15},
        },
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 8, "r": 12, "t": 64, "b": 8},
        "xaxis": axis,
        "yaxis": axis,
        # Above the plot, so that a narrow screen keeps its width for the data.
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "font": {"size": 12, "color": INK}, "align": "left"},
    }
    return go.layout.Template(layout=layout)
