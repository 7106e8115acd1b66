"""What the devices of federated runs did: the vectors that each class trained with, wasted work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboards.figures import LEGEND_ROOM, band_trace, figure_title, line_trace, plotly_text
from dashboards.findings import percent, si_prefix
from dashboards.style import class_looks, strategy_looks, template
from distreal_dse.support.specs import name_of
from fl.compare.summaries import Summary, by_strategy
from fl.results import DeviceRound
from fl.store.runs import Run

# Intervals of virtual time that mini-batches are gathered in.
BINS = 24
# The strategy whose vectors a comparison is about.
SUBJECT = "distreal"


@dataclass(frozen=True)
class ClassUse:
    """The vectors that a class of devices trained with.

    Costs are relative to the full network and weighted by mini-batches.

    Parameters
    ----------
    name
        Of the class.
    seconds, shares, low, high
        By interval of virtual time: its end, the mean cost, and the quartiles of the devices'
        means in a round.
    mean
        Over all time.
    mini_batches, over_budget
        How many, and those whose vector cost more than the budget.
    """

    name: str
    seconds: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: float
    mini_batches: int
    over_budget: int


def subject_of(runs: Sequence[Run]) -> list[Run]:
    """The runs whose vectors a figure is worth: DISTREAL's, else of the first that varies them."""
    groups = by_strategy(runs)
    # Its own variants come first, such as with another averaging, and then those of its kind.
    for name in sorted(
        groups, key=lambda name: (name_of(name) != SUBJECT, not name.startswith(SUBJECT))
    ):
        shares = {
            one.mean_cost_share
            for run in groups[name]
            for result in run.rounds
            for one in result.devices
            if one.mean_cost_share is not None
        }
        if len(shares) > 1:
            return groups[name]
    return []


def vector_use(runs: Sequence[Run]) -> list[ClassUse]:
    """The vectors used over virtual time by class of device, the dearest class first.

    Parameters
    ----------
    runs
        Of one strategy. Empty without figures of devices.
    """
    end = max((run.rounds[-1].virtual_seconds for run in runs if run.rounds), default=0.0)
    found: dict[str, list[tuple[float, DeviceRound]]] = {}
    for run in runs:
        for result in run.rounds:
            for one in result.devices:
                if one.mini_batches and one.mean_cost_share is not None:
                    entry = (result.virtual_seconds, one)
                    found.setdefault(one.device_class, []).append(entry)
    if end <= 0:
        return []
    uses = [_use(name, entries, end) for name, entries in found.items()]
    return sorted(uses, key=lambda use: -use.mean)


def use_finding(strategy: str, uses: Sequence[ClassUse]) -> str:
    """What the classes spend on a mini-batch on average."""
    first, last = uses[0], uses[-1]
    text = f"{first.name} devices train {strategy} at {percent(first.mean)} of the full cost"
    return text if first is last else f"{text}, {last.name} ones at {percent(last.mean)}"


def use_figure(strategy: str, uses: Sequence[ClassUse]) -> go.Figure:
    """Mean cost of the vectors used over virtual time, a line for each class of devices."""
    figure = go.Figure()
    for use, look in zip(uses, class_looks(len(uses)), strict=True):
        label = plotly_text(use.name)
        hover = [
            f"<b>{label}</b><br>until {seconds:.4g} virtual s<br>mean cost {percent(mean)} "
            f"({percent(low)} … {percent(high)})"
            for seconds, mean, low, high in zip(
                use.seconds, use.shares, use.low, use.high, strict=True
            )
        ]
        spans = [(100 * low, 100 * high) for low, high in zip(use.low, use.high, strict=True)]
        means = [100 * one for one in use.shares]
        figure.add_trace(band_trace(label, look, use.seconds, spans))
        figure.add_trace(line_trace(label, look, use.seconds, means, hover))
    figure.update_layout(
        template=template(),
        **figure_title(use_finding(strategy, uses), LEGEND_ROOM),
        height=420,
        showlegend=True,
        xaxis={"title": {"text": "virtual time (s)"}, "rangemode": "tozero"},
        yaxis={
            "title": {"text": "cost of a mini-batch (% of the full network)"},
            "rangemode": "tozero",
            "ticksuffix": "%",
        },
    )
    return figure


def waste_finding(summaries: Sequence[Summary]) -> str:
    """Who wastes most, and what DISTREAL wastes."""
    most = max(summaries, key=lambda one: one.wasted_share.mean)
    if most.wasted_share.mean == 0:
        return "No strategy wastes work: every update is merged"
    text = f"{most.strategy} wastes most, {_share(most)} of its work"
    if name_of(most.strategy) == SUBJECT:
        return text
    own = [one for one in summaries if name_of(one.strategy) == SUBJECT]
    return text + "".join(f"; {one.strategy} {_share(one)}" for one in own)


def waste_figure(summaries: Sequence[Summary]) -> go.Figure:
    """Training MACs of all devices by strategy: merged into the average, and wasted."""
    ordered = sorted(summaries, key=lambda one: one.wasted_share.mean)
    looks = strategy_looks(one.strategy for one in summaries)
    colors = [looks[one.strategy].color for one in ordered]
    names = [plotly_text(one.strategy) for one in ordered]
    longest = max((one.training_macs.mean for one in summaries), default=0.0)
    factor, sign = si_prefix(longest)
    wasted = [one.training_macs.mean * one.wasted_share.mean / factor for one in ordered]
    merged = [
        one.training_macs.mean / factor - lost for one, lost in zip(ordered, wasted, strict=True)
    ]
    figure = go.Figure(
        [
            go.Bar(
                x=merged,
                y=names,
                name="merged",
                orientation="h",
                marker={"color": colors},
                hoverinfo="skip",
            ),
            go.Bar(
                x=wasted,
                y=names,
                name="wasted (striped)",
                orientation="h",
                # Stripes, so that it can be told in grey too.
                marker={
                    "color": colors,
                    "pattern": {"shape": "/", "fillmode": "replace", "size": 6},
                    "line": {"color": colors, "width": 1},
                },
                text=[_share(one) for one in ordered],
                textposition="outside",
                hoverinfo="skip",
            ),
        ]
    )
    figure.update_layout(
        template=template(),
        **figure_title(waste_finding(summaries), 12),
        barmode="stack",
        height=140 + 30 * len(ordered),
        showlegend=False,
        xaxis={
            "title": {"text": f"training ({sign}MACs); striped: wasted"},
            # Room for the numbers outside of the longest bar.
            "range": [0, 1.4 * (longest / factor or 1.0)],
        },
        yaxis={"showgrid": False},
    )
    return figure


def _use(name: str, entries: Sequence[tuple[float, DeviceRound]], end: float) -> ClassUse:
    bins: dict[int, list[DeviceRound]] = {}
    for seconds, one in entries:
        bins.setdefault(min(BINS - 1, math.floor(BINS * seconds / end)), []).append(one)
    numbers = sorted(bins)
    everything = [one for _, one in entries]
    return ClassUse(
        name=name,
        seconds=tuple((number + 1) * end / BINS for number in numbers),
        shares=tuple(_mean(bins[number]) for number in numbers),
        low=tuple(_quantile(bins[number], 0.25) for number in numbers),
        high=tuple(_quantile(bins[number], 0.75) for number in numbers),
        mean=_mean(everything),
        mini_batches=sum(one.mini_batches for one in everything),
        over_budget=sum(one.over_budget for one in everything),
    )


def _mean(entries: Iterable[DeviceRound]) -> float:
    pairs = [(one.mean_cost_share or 0.0, one.mini_batches) for one in entries]
    return math.fsum(share * count for share, count in pairs) / sum(count for _, count in pairs)


def _quantile(entries: Iterable[DeviceRound], level: float) -> float:
    ordered = sorted(one.mean_cost_share or 0.0 for one in entries)
    return ordered[round(level * (len(ordered) - 1))]


def _share(one: Summary) -> str:
    return percent(one.wasted_share.mean)
