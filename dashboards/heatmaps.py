"""Heat maps with a number in each cell: what vectors drop, by channel group and by layer.

Plotly draws the numbers of a heat map itself, but however small the cells are, and in #444444 or
white by a rule under which both are hard to read on colours between. Here they are traces of text:
one in near-black, one in white, as large as the cells allow, and none where that can't be read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from dashboards.figures import NAME_WIDTH, figure_title, plotly_text
from dashboards.findings import percent
from dashboards.images import WIDTH
from dashboards.style import DARK_DIGITS, LIGHT_DIGITS, RATE_SCALE, luminance, template
from distreal_dse.fronts import Front, channel_counts

# Of the digits in the cells, in pixels: the least that can be read, and that of the axes' labels
# less two. The report's script, which knows the width of the page, uses these numbers too.
LEAST, MOST = 8, 11
# Width of a digit over the size of its font, in the widest of the usual fonts (DejaVu Sans), and
# pixels between the numbers of neighbouring cells.
DIGIT, APART = 0.64, 6
# Pixels of the labels of columns, and of a colour bar below them.
COLUMN_ROOM, BAR_ROOM = 75, 50
# Columns whose labels can stand beside each other on a phone.
LABELS = 10
# Pixels of a character of a row's name, and beside the plot and the names.
LETTER, SIDES = 7.2, 30


@dataclass(frozen=True)
class Cells:
    """A row of a heat map: its name and, for each column, value, text in the cell and hover text.

    Values are in [0, 1]; names and texts are shown literally, hover texts are for Plotly.
    """

    name: str
    values: Sequence[float]
    texts: Sequence[str]
    hover: Sequence[str]


def rates_figure(front: Front, rows: range | None = None) -> go.Figure:
    """Dropout rate of each channel group at each point of the front, as a heat map.

    Parameters
    ----------
    front
        The front.
    rows
        Which channel groups, all by default.
    """
    labels, channels = column_labels(front), channel_counts(front)
    widths = channels.of([group.channels for group in front.groups])
    vectors = [channels.of(point.kept_counts) for point in front.points]

    def cells(row: int) -> Cells:
        group, width = front.groups[row], widths[row]
        columns = [
            (point.rates[row], kept[row]) for point, kept in zip(front.points, vectors, strict=True)
        ]
        columns += [(0.0, width)] * (len(labels) - len(columns))
        return Cells(
            group.name,
            [rate for rate, _ in columns],
            [str(kept) for _, kept in columns],
            [
                f"<b>{plotly_text(group.name)}</b><br>{kept} of {width} {channels.noun} kept"
                f"<br>dropout rate {rate:.2f}<br>{column_meaning(front, column)}"
                for column, (rate, kept) in enumerate(columns)
            ],
        )

    names = row_names([group.name for group in front.groups])
    rows = range(len(front.groups)) if rows is None else rows
    part = part_of(rows, len(front.groups), "channel groups")
    return heat_map(
        f"What the vectors of {front.label} drop, and how many {channels.noun} they keep{part}",
        [cells(row) for row in rows],
        [names[row] for row in rows],
        labels,
        RATE_SCALE,
        bar={"tickvals": [0, 0.5, 1], "ticktext": ["0", "0.5<br>dropout rate", "1"]},
    )


def heat_map(
    title: str,
    rows: Sequence[Cells],
    names: Sequence[str],
    labels: Sequence[str],
    scale: Sequence[Sequence[Any]],
    largest: float = 1.0,
    bar: dict[str, Any] | None = None,
) -> go.Figure:
    """A heat map, the first row on top; its height grows with its rows.

    Parameters
    ----------
    title
        Of the figure.
    rows, names
        The rows and what they are called on the axis, as `row_names` made it.
    labels
        Of the columns.
    scale, largest
        Plotly's colour scale, and the value of its last colour.
    bar
        Ticks of a colour bar; without them there is none.
    """
    figure = go.Figure(
        go.Heatmap(
            # Numbers, not names: Plotly would merge rows of one name.
            x=list(range(len(labels))),
            y=list(range(len(rows))),
            z=[list(row.values) for row in rows],
            zmin=0,
            zmax=largest,
            colorscale=scale,
            xgap=1,
            ygap=1,
            hovertext=[list(row.hover) for row in rows],
            hoverinfo="text",
            showscale=bar is not None,
            colorbar={
                "orientation": "h",
                # Below the plot, because above it plotly.js 4.1 moves the figure's title out of the
                # picture; named by a tick, because its own title would be drawn across it there.
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "thickness": 10,
                "outlinewidth": 0,
                "len": 0.6,
                "tickangle": 0,
                **(bar or {}),
            },
        )
    )
    _add_digits(figure, rows, scale, largest)
    bottom = COLUMN_ROOM + (BAR_ROOM if bar else 0)
    heading = figure_title(title, 12)
    figure.update_layout(
        template=template(),
        **heading,
        margin_b=bottom,
        height=heading["margin"]["t"] + bottom + max(90, 26 * len(rows)),
        xaxis=_column_axis(labels),
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [plotly_text(name) for name in names],
            # The text in the cells would widen the range that Plotly chooses.
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
    )
    fit_text(figure, WIDTH)
    return figure


def fit_text(figure: go.Figure, width: int) -> None:
    """Make names and numbers of a heat map as large as its rows and cells allow.

    Numbers that could not be read are hidden, all of them.

    Parameters
    ----------
    figure
        With its final height and margins; one that is no heat map stays as it is.
    width
        Of the figure in pixels.
    """
    digits = list(figure.select_traces({"mode": "text"}))
    if not digits:
        return
    layout = figure.layout
    plot = width - LETTER * max(map(len, layout.yaxis.ticktext)) - SIDES
    column = plot / abs(layout.xaxis.range[1] - layout.xaxis.range[0])
    row = (layout.height - layout.margin.t - layout.margin.b) / abs(
        layout.yaxis.range[1] - layout.yaxis.range[0]
    )
    layout.yaxis.tickfont.size = min(layout.template.layout.font.size, math.floor(row - 1))
    longest = max(len(text) for trace in digits for text in trace.text)
    size = math.floor(min(MOST, (column - APART) / (DIGIT * longest), row - 3))
    for trace in digits:
        trace.update(visible=size >= LEAST, textfont_size=max(size, LEAST))


def column_labels(front: Front) -> list[str]:
    """Labels of the columns of all heat maps of a front: its points, and the full network."""
    shares = [percent(point.cost / front.reference_cost) for point in front.points]
    full = tuple(group.channels for group in front.groups)
    return shares if front.points[-1].kept_counts == full else [*shares, "full"]


def column_meaning(front: Front, column: int) -> str:
    """What a column of `column_labels` is, for a hover text."""
    if column == len(front.points):
        return "in the full network"
    return f"at {percent(front.points[column].cost / front.reference_cost)} of the training cost"


def row_names(names: Sequence[str]) -> list[str]:
    """Names of layers that leave room for the data, each a different one.

    What leads to a name that is too long, such as ``features.``, is left out of all that it leads
    to, so that neighbours are written alike: ``…17.conv.0.0`` and ``…17.conv.2``.
    """
    shown = [(name, name) for name in names]  # with and without the mark of what was left out
    while long := {
        rest.split(".", 1)[0] for text, rest in shown if len(text) > NAME_WIDTH and "." in rest
    }:
        shown = [
            (f"…{rest.split('.', 1)[1]}", rest.split(".", 1)[1])
            if "." in rest and rest.split(".", 1)[0] in long
            else (text, rest)
            for text, rest in shown
        ]
    texts = [text if len(text) <= NAME_WIDTH else f"…{text[1 - NAME_WIDTH :]}" for text, _ in shown]
    count = Counter(texts)
    return [
        text if count[text] == 1 else f"{number}: {text}" for number, text in enumerate(texts, 1)
    ]


def part_of(rows: range, count: int, what: str) -> str:
    """Which rows a figure shows, for its title; nothing where it shows all."""
    if len(rows) == count:
        return ""
    return f"; {what} {rows.start + 1} to {rows.stop} of {count}"


def _add_digits(
    figure: go.Figure, rows: Sequence[Cells], scale: Sequence[Sequence[Any]], largest: float
) -> None:
    """Add the texts of the cells in two traces, each in the colour that its cells are read with."""
    cells = [
        (column, row, text, value / largest if largest else 0.0)
        for row, one in enumerate(rows)
        for column, (value, text) in enumerate(zip(one.values, one.texts, strict=True))
    ]
    colors = sample_colorscale(scale, [share for *_, share in cells], colortype="tuple")
    light = luminance(LIGHT_DIGITS)
    dark = luminance(DARK_DIGITS)
    of_color: dict[str, list[tuple[int, int, str]]] = {DARK_DIGITS: [], LIGHT_DIGITS: []}
    for (column, row, text, _), color in zip(cells, colors, strict=True):
        cell = luminance(color)
        on_dark = (light + 0.05) / (cell + 0.05) > (cell + 0.05) / (dark + 0.05)
        of_color[LIGHT_DIGITS if on_dark else DARK_DIGITS].append((column, row, text))
    for color, entries in of_color.items():
        if entries:
            x, y, texts = (list(one) for one in zip(*entries, strict=True))
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, text=texts, mode="text", textfont={"color": color},
                    hoverinfo="skip", showlegend=False,
                )
            )  # fmt: skip


def _column_axis(labels: Sequence[str]) -> dict[str, Any]:
    # Few enough labels that they stand beside each other on a phone; the last is always there.
    step = max(1, math.ceil(len(labels) / LABELS))
    shown = list(range(len(labels) - 1, -1, -step))[::-1]
    return {
        "title": {"text": "training cost (% of the full network)"},
        "tickvals": shown,
        "ticktext": [labels[index] for index in shown],
        "tickangle": -60,
        "range": [-0.5, len(labels) - 0.5],
        "showgrid": False,
        "zeroline": False,
    }
