"""The figures: pure functions from fronts and runs to Plotly figures.

Plotly reads a little HTML in labels and hover texts, so every name that comes from outside goes
through `plotly_text`; hover texts are built here and never by Plotly's templates.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from dashboards.findings import (
    TrialPoint,
    accuracy_curve,
    accuracy_finding,
    cost_text,
    counted,
    evaluated_on,
    front_finding,
    percent,
    plain,
    run_label,
    uniform_family,
)
from dashboards.style import (
    FRONT,
    PAPER,
    TRIAL,
    UNIFORM,
    Look,
    band,
    run_looks,
    template,
)
from distreal_dse.fronts import ChannelCounts, Front, FrontPoint, channel_counts, memory_text
from fl.store.runs import Run

# From this ratio of the dearest to the cheapest point on, the cost axis is logarithmic.
LOG_FROM = 8.0
# Characters of a title line and of a layer name, for the width of a phone.
TITLE_WIDTH, NAME_WIDTH = 46, 18
# Channel groups that a hover text lists; the heat map shows all.
HOVER_GROUPS = 12
# Pixels of one row of a legend and its distance; more rows make room for themselves.
LEGEND_ROOM = 32


def front_figure(front: Front, trials: Sequence[TrialPoint] = ()) -> go.Figure:
    """Convergence against cost: the verified front, the uniform family, all other trials.

    Parameters
    ----------
    front
        The front; its bars are ± one standard error.
    trials
        What the search tried; those that became points of the front are not drawn again.
    """
    family = uniform_family(front, trials)
    on_front = {point.trial for point in front.points}
    others = [
        trial
        for trial in trials
        if not trial.uniform and (trial.number is None or trial.number not in on_front)
    ]
    figure = go.Figure()
    gains, hidden = _gain_range((*family, *front.points), others)
    if others:
        name = "other trials, not verified" + (f" ({hidden} below the axis)" if hidden else "")
        figure.add_trace(_points(front, others, TRIAL, name, mode="markers"))
        figure.data[0].marker.size = 6
    if family:
        figure.add_trace(
            _points(front, family, UNIFORM, "one rate for all layers", mode="lines+markers")
        )
    figure.add_trace(_points(front, front.points, FRONT, "verified front", mode="lines+markers"))
    # A budget between two points buys the cheaper one.
    figure.data[-1].line.shape = "hv"
    figure.data[-1].error_y = {
        "type": "data",
        "array": [point.standard_error for point in front.points],
        "thickness": 1.2,
        "width": 3,
    }
    if family:
        # Larger than the front's, so that both show where a uniform vector is on the front.
        figure.data[-2].marker.size = 12

    drawn: list[TrialPoint | FrontPoint] = [*others, *family, *front.points]
    shares = [100 * point.cost / front.reference_cost for point in drawn]
    measure = "MACs" if front.cost_metric == "macs" else "time per mini-batch"
    figure.update_layout(
        template=template(),
        **figure_title(front_finding(front), LEGEND_ROOM),
        height=480,
        xaxis={
            "title": {"text": f"training {measure} (% of the full network)"},
            **cost_axis(shares),
        },
        yaxis={
            "title": {"text": "fall of the validation loss in a short run (nats)"},
            "range": gains,
        },
    )
    return figure


def accuracy_figure(runs: Sequence[Run]) -> go.Figure:
    """Accuracy of the full network over virtual time, a line per run."""
    figure = go.Figure()
    for run, look in zip(runs, run_looks(run.strategy for run in runs), strict=True):
        curve = accuracy_curve(run)
        label = plotly_text(run_label(run))
        hover = [
            f"<b>{label}</b><br>round {number}, {seconds:.4g} virtual s<br>accuracy {accuracy:.1%}"
            for number, seconds, accuracy in curve
        ]
        times = [seconds for _, seconds, _ in curve]
        accuracies = [accuracy for _, _, accuracy in curve]
        figure.add_trace(line_trace(label, look, times, accuracies, hover, markers=12))
    figure.update_layout(
        template=template(),
        **figure_title(accuracy_finding(runs), LEGEND_ROOM),
        height=420 + 20 * len(runs),  # each may take a row of the legend
        showlegend=True,
        xaxis={"title": {"text": "virtual time (s)"}, "rangemode": "tozero"},
        yaxis={
            "title": {"text": f"{evaluated_on(runs)} accuracy of the full network"},
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
    )
    return figure


def line_trace(
    label: str,
    look: Look,
    x: Sequence[float],
    y: Sequence[float],
    hover: Sequence[str],
    markers: int = 0,
) -> go.Scatter:
    """A line with markers that the legend names.

    Parameters
    ----------
    label
        Text for Plotly, as `plotly_text` makes it.
    look, x, y, hover
        Of the line, and a text for each of its points.
    markers
        Largest number of markers: enough to tell lines apart, few enough to see the line; 0 for
        one at each point.
    """
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=label,
        legendgroup=label,
        mode="lines+markers",
        line={"color": look.color, "dash": look.dash, "width": 2},
        marker={
            "color": look.color, "symbol": look.symbol, "size": 8,
            **({"maxdisplayed": markers} if markers else {}),
        },
        hovertext=list(hover),
        hoverinfo="text",
    )  # fmt: skip


def band_trace(
    label: str, look: Look, x: Sequence[float], spans: Sequence[tuple[float, float]]
) -> go.Scatter:
    """The area between the lower and upper ends of a line's spans; goes and comes with the line."""
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*(high for _, high in spans), *(low for low, _ in reversed(spans))],
        # Without it, Plotly draws markers where there are few points.
        mode="lines",
        fill="toself",
        fillcolor=band(look.color),
        line={"width": 0},
        legendgroup=label,
        showlegend=False,
        hoverinfo="skip",
    )


def plotly_text(name: str) -> str:
    """A name as Plotly shows it literally, in labels and hover texts."""
    return html.escape(plain(name), quote=False)


def _points(
    front: Front,
    points: Sequence[TrialPoint] | Sequence[FrontPoint],
    look: Look,
    name: str,
    mode: str,
) -> go.Scatter:
    return go.Scatter(
        x=[100 * point.cost / front.reference_cost for point in points],
        y=[point.convergence for point in points],
        name=name,
        mode=mode,
        line={"color": look.color, "dash": look.dash, "width": 2},
        marker={
            "color": look.color,
            "symbol": look.symbol,
            "size": 8,
            # A white rim parts filled markers that touch; those of open symbols have their colour.
            "line": {"width": 1.5, "color": PAPER},
        },
        hovertext=[f"<b>{name}</b><br>{_hover(front, point)}" for point in points],
        hoverinfo="text",
    )


def _hover(front: Front, point: TrialPoint | FrontPoint) -> str:
    lines = [
        f"{cost_text(front, point.cost)} {front.cost_unit}, "
        f"{percent(point.cost / front.reference_cost)} of the full network",
        f"gain {point.convergence:.3f} ± {point.standard_error:.3f}",
    ]
    if point.accuracy is not None:
        lines.append(f"accuracy {point.accuracy:.1%}")
    if isinstance(point, FrontPoint) and point.memory is not None:
        lines.append(f"{memory_text(point.memory)} of memory for a step")
    # Of a thousand trials, the rates would make up a good part of a page.
    groups = front.groups[:HOVER_GROUPS] if isinstance(point, FrontPoint) or point.uniform else ()
    channels = channel_counts(front) if groups else ChannelCounts(None)
    widths = channels.of([group.channels for group in front.groups]) if groups else ()
    for index, group in enumerate(groups):
        kept = ""
        if point.kept_counts:
            kept = f"{channels.of(point.kept_counts)[index]} of {widths[index]}"
        rate = f"rate {point.rates[index]:.2f}" if point.rates else ""
        if kept or rate:
            lines.append(f"{_short(group.name)}: {', '.join(filter(None, (kept, rate)))}")
    if groups and len(front.groups) > HOVER_GROUPS:
        lines.append(f"… and {counted(len(front.groups) - HOVER_GROUPS, 'more channel group')}")
    number = point.trial if isinstance(point, FrontPoint) else point.number
    if number is not None:
        lines.append(f"trial {number}")
    return "<br>".join(lines)


def _gain_range(
    shown: Sequence[TrialPoint | FrontPoint], others: Sequence[TrialPoint]
) -> tuple[list[float], int]:
    """Range of the gain axis, and how many of the other trials fall below it.

    A vector that ruins the network must not press all others flat: below those that have to be
    shown there is room for one time their span.
    """
    low = min(point.convergence - point.standard_error for point in shown)
    high = max(point.convergence + point.standard_error for point in (*shown, *others))
    floor = low - ((high - low) or 1.0)
    seen = [low, *(trial.convergence for trial in others if trial.convergence >= floor)]
    margin = 0.05 * ((high - min(seen)) or 1.0)
    return [min(seen) - margin, high + margin], 1 + len(others) - len(seen)


def cost_axis(shares: Sequence[float]) -> dict[str, Any]:
    """A cost axis in per cent that shows all shares; logarithmic where they span enough."""
    low, high = min(shares), max(shares)
    if low <= 0 or high / low < LOG_FROM or not math.isfinite(high / low):
        return {"rangemode": "tozero", "ticksuffix": "%"}
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)]
    if len(decades) > 4:
        ticks = ticks[::3]
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}%" for tick in ticks],
        "range": [math.log10(low) - 0.06, math.log10(high) + 0.06],
    }


def figure_title(text: str, room: int) -> dict[str, Any]:
    """A title in lines as short as a phone is wide, and room for it and what stands below it."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > TITLE_WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip(" ")
    title = {"text": "<br>".join(map(plotly_text, lines))}
    return {"title": title, "margin": {"t": 20 + 20 * len(lines) + room}}


def _short(name: str) -> str:
    """A layer name that leaves room for the data: its end says most."""
    return plotly_text(name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}")
