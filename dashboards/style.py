"""One colour language for all figures.

Colours are those of Okabe and Ito, which people with colour vision deficiencies can tell apart;
each meaning also has a marker and a dash of its own, so that a print in grey can be read as well.

References
----------
Okabe, Ito: Color Universal Design, 2008, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from distreal_dse.support.specs import name_of

INK, FAINT, GRID, PAPER = "#1f2933", "#5b6770", "#e4e7eb", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


# Digits on colours that are light or dark: whichever reads better has a contrast of 4.5 or more to
# every colour (WCAG 2, AA), which no lighter black has.
DARK_DIGITS, LIGHT_DIGITS = "#050505", "#ffffff"

# Opacity of a band around a line.
BAND = 0.15


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

# Of costs, in grey: lighter is less. The blue of rates would say that they are the same.
COST_SCALE = [[0.0, "#fbfbfa"], [0.5, "#b9bdb8"], [1.0, "#4a4f4b"]]

# Classes of devices, the strongest first: shades of violet, which no strategy and no front has.
_CLASSES = (
    Look("#3b1a5c", "circle"),
    Look("#7a4fa3", "square", "dash"),
    Look("#a684c4", "triangle-up", "dot"),
    Look("#5b6770", "diamond", "dashdot"),
)
# Devices that were measured, in turn.
_DEVICES = (
    Look("#3b1a5c", "circle"),
    Look("#7a4fa3", "square-open"),
    Look("#5b6770", "triangle-up"),
    Look("#1f2933", "diamond-open"),
)

# Fronts beside each other, in turn: neither orange, which is one rate for all layers, nor dots.
_FRONTS = (
    FRONT,
    Look("#009E73", "square", "dash"),
    Look("#CC79A7", "diamond", "dashdot"),
    Look("#8a6d00", "triangle-up", "longdash"),
    Look("#000000", "cross", "longdashdot"),
    Look(FRONT.color, "circle-open", "dash"),
    Look("#009E73", "square-open", "dashdot"),
    Look("#CC79A7", "diamond-open"),
)

# Each strategy keeps its look in all figures; DISTREAL wears the colour of the fronts that it
# trains with, and variants of one method share a colour and differ in marker and dash.
_STRATEGIES = {
    "distreal": FRONT,
    "distreal-uniform": Look(FRONT.color, "circle-open", "dash"),
    "small": Look("#D55E00", "square"),
    "heterofl": Look("#009E73", "triangle-up"),
    "fedrolex": Look("#009E73", "triangle-down-open", "dash"),
    "federated-dropout": Look("#CC79A7", "diamond"),
    "fjord": Look("#56B4E9", "cross"),
    "fjord-kd": Look("#56B4E9", "cross-open", "dash"),
    "fedavg": Look("#000000", "x"),
    "fedavg-drop": Look("#000000", "x-open", "dash"),
    "nested": Look("#8a6d00", "star"),  # the yellow of the palette, darkened to show on white
}
# Of strategies that are not known here, in turn.
_OTHERS = (
    Look("#8a6d00", "star-open", "dash"),
    Look("#8a6d00", "asterisk-open", "dot"),
    Look("#5b6770", "hexagon"),
    Look("#5b6770", "hexagon-open", "dash"),
)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


# What a page in the dark draws instead; all other colours show on both.
_DARK = {
    INK: "#e6eaee",
    FAINT: "#9fabb5",
    GRID: "#36414b",
    PAPER: "#1b232a",
    TRIAL.color: "#6b7680",
    "#000000": "#ffffff",
    "#3b1a5c": "#dcc6f0",
    "#7a4fa3": "#b591d6",
    "#a684c4": "#9470b8",
}


# What pages draw whose light is not known when a figure is stored: colours with a contrast of 3 or
# more to both white and the dark cards of optuna-dashboard; text with 4, the most that both allow.
_EITHER = {
    INK: "#767f87",
    FAINT: "#767f87",
    GRID: "rgba(127, 127, 127, 0.3)",
    PAPER: "rgba(0, 0, 0, 0)",
    TRIAL.color: "#8a939b",
    "#000000": "#767f87",
    "#3b1a5c": "#8560b0",
    "#7a4fa3": "#a374d0",
    "#a684c4": "#a684c4",
}


def luminance(color: str | Sequence[float]) -> float:
    """Relative luminance in [0, 1] of ``#rrggbb``, or of red, green and blue in [0, 1].

    References
    ----------
    W3C: Web Content Accessibility Guidelines 2.2, 2023, "relative luminance".
    """
    parts = (
        [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] if isinstance(color, str) else color
    )
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def on_any_page(part: Any) -> Any:
    """The JSON of a figure in colours that can be read on a light and on a dark page."""
    if isinstance(part, dict):
        return {
            # Digits stand on the colours of cells, which are the same on any page.
            key: one if key == "textfont" else on_any_page(one)
            for key, one in part.items()
            if key != "hoverlabel"  # Plotly's own have the colour of what they are of, and fit it
        }
    if isinstance(part, list | tuple):
        return [on_any_page(one) for one in part]
    return _EITHER.get(part, part) if isinstance(part, str) else part


def band(color: str) -> str:
    """A colour of a line for the band around it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {BAND})"


def dark_colors() -> dict[str, str]:
    """The colours of figures, bands included, that others stand for on a dark page."""
    return _DARK | {band(light): band(dark) for light, dark in _DARK.items()}


def strategy_looks(strategies: Iterable[str]) -> dict[str, Look]:
    """The look of each strategy by its name, settings such as ``:averaging=pooled`` included.

    Those of one name with different settings differ in their dashes.
    """
    names = list(dict.fromkeys(strategies))
    ordered = sorted(names)  # the one without settings first
    looks = dict(zip(ordered, run_looks(ordered), strict=True))
    return {name: looks[name] for name in names}


def class_looks(count: int) -> list[Look]:
    """Looks of classes of devices, by falling strength."""
    return [_CLASSES[index % len(_CLASSES)] for index in range(count)]


def device_looks(count: int) -> list[Look]:
    """Looks of devices that latency was measured on."""
    return [_DEVICES[index % len(_DEVICES)] for index in range(count)]


def front_looks(count: int) -> list[Look]:
    """Looks of fronts that are drawn beside each other."""
    return [_FRONTS[index % len(_FRONTS)] for index in range(count)]


def run_looks(strategies: Iterable[str]) -> list[Look]:
    """One look per run: colour and marker say which strategy, the dash which run of it.

    Parameters
    ----------
    strategies
        The strategy of each run; one with other settings is another run of it.
    """
    names = [name_of(strategy) for strategy in strategies]
    others = sorted(set(names) - set(_STRATEGIES))
    known = _STRATEGIES | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    looks = []
    for index, name in enumerate(names):
        look = known[name]
        first, number = _DASHES.index(look.dash), names[:index].count(name)
        looks.append(replace(look, dash=_DASHES[(first + number) % len(_DASHES)]))
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
