"""A comparison of strategies: accuracy over virtual time, time to an accuracy, all numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import plotly.graph_objects as go

from dashboards.differences import comparison_finding
from dashboards.figures import LEGEND_ROOM, band_trace, figure_title, line_trace, plotly_text
from dashboards.findings import accuracy_curve, counted, evaluated_on, si_prefix
from dashboards.markup import table
from dashboards.style import strategy_looks, template
from fl.compare.summaries import Estimate, Summary, accuracy_at, comparable, estimate
from fl.store.runs import Run

# Points of a mean curve: more than pixels tell apart make a page heavy.
GRID = 80
SEEDS_FOR_CONFIDENCE = 5


def comparison_figure(runs: Sequence[Run]) -> go.Figure:
    """Accuracy over virtual time: the mean of the seeds of each strategy, and its band.

    From `SEEDS_FOR_CONFIDENCE` seeds on, bands are the 95 % confidence interval of the mean. Of
    fewer seeds, Student's interval covers most of the figure, and their range says more.

    Parameters
    ----------
    runs
        Of one comparison, with at least one evaluation each. Those are drawn that `summarise`
        takes: a line would end where the shortest of its runs does.
    """
    groups = comparable(runs)
    looks = strategy_looks(groups)
    figure = go.Figure()
    for name, group in groups.items():
        look, label = looks[name], plotly_text(name)
        times = _times(group)
        accuracies = [[accuracy_at(run.rounds, time) for run in group] for time in times]
        means = [fmean(values) for values in accuracies]
        spans = [_span(values) for values in accuracies]
        hover = [
            f"<b>{label}</b><br>{time:.4g} virtual s<br>accuracy {mean:.1%} "
            f"({low:.1%} … {high:.1%})"
            for time, mean, (low, high) in zip(times, means, spans, strict=True)
        ]
        if len(group) > 1:
            figure.add_trace(band_trace(label, look, times, spans))
        figure.add_trace(line_trace(label, look, times, means, hover, markers=8))
    figure.update_layout(
        template=template(),
        **figure_title(comparison_finding(runs), LEGEND_ROOM * 3),
        height=560,
        showlegend=True,
        xaxis={"title": {"text": "virtual time (s)"}, "type": "log"},
        yaxis={
            "title": {"text": f"{evaluated_on(runs)} accuracy"},
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
    )
    return figure


def time_figure(summaries: Sequence[Summary], target: float) -> go.Figure:
    """Virtual time until a target accuracy, a bar for each strategy, the fastest on top.

    Parameters
    ----------
    summaries, target
        What `fl.compare.summaries.summarise` returned.
    """
    ordered = sorted(summaries, key=_time, reverse=True)
    looks = strategy_looks(one.strategy for one in summaries)
    figure = go.Figure()
    for one in ordered:
        reached = one.seconds_to_target
        figure.add_trace(
            go.Bar(
                x=[reached.mean if reached else 0],
                y=[plotly_text(one.strategy)],
                orientation="h",
                marker={"color": looks[one.strategy].color},
                text=[_time_text(one)],
                textposition="outside",
                hoverinfo="skip",
                showlegend=False,
            )
        )
    fastest = ordered[-1]
    found = (
        f"{fastest.strategy} reaches {target:.0%} first, after {_time(fastest):.3g} virtual seconds"
        if fastest.seconds_to_target
        else f"No strategy reaches {target:.0%} with every seed"
    )
    figure.update_layout(
        template=template(),
        **figure_title(found, 12),
        height=140 + 30 * len(ordered),
        xaxis={
            "title": {"text": f"virtual time to {target:.0%} accuracy (s)"},
            # Room for the numbers outside of the longest bar.
            "range": [0, 1.25 * max((_time(o) for o in ordered if o.seconds_to_target), default=1)],
        },
        yaxis={"showgrid": False},
    )
    return figure


def accuracy_table(summaries: Sequence[Summary], target: float) -> str:
    """What the strategies reach, the most accurate first, as HTML."""
    classes = list(dict.fromkeys(key for one in summaries for key in one.accuracy_by_class))
    counted = ("seeds",) if len({len(one.seeds) for one in summaries}) > 1 else ()
    rows = (
        (
            one.strategy,
            *(str(len(one.seeds)) for _ in counted),
            _percent(one.settled_accuracy),
            _percent(one.final_accuracy),
            _percent(one.accuracy_in_time),
            _time_text(one),
            *(
                _percent(one.accuracy_by_class[key]) if key in one.accuracy_by_class else ""
                for key in classes
            ),
        )
        for one in sorted(summaries, key=lambda one: -one.settled_accuracy.mean)
    )
    return table(
        "Accuracy, ± half of the 95 % confidence interval of the mean; settled: mean "
        "over the last quarter of virtual time, also by class of device as labels occur there",
        ("strategy", *counted, "settled", "final", "in equal time", f"s to {target:.0%}", *classes),
        rows,
        text={0},
    )


def work_table(summaries: Sequence[Summary]) -> str:
    """What the strategies cost, as HTML."""
    macs, of_macs = si_prefix(max(one.training_macs.mean for one in summaries))
    sent, of_sent = si_prefix(max(one.transferred_bytes.mean for one in summaries))
    rows = (
        (
            one.strategy,
            f"{one.training_macs.mean / macs:.3g}",
            f"{one.wasted_share.mean:.0%}",
            f"{one.transferred_bytes.mean / sent:.3g}",
            f"{one.missed_share.mean:.0%}",
            f"{one.virtual_seconds.mean:.3g}",
        )
        for one in summaries
    )
    heads = (
        "strategy", f"{of_macs}MACs", "wasted", f"{of_sent}B sent", "deadlines missed", "virtual s",
    )  # fmt: skip
    return table("Work of all devices, mean of the seeds", heads, rows, text={0})


def band_meaning(seeds: Sequence[int]) -> str:
    """What the bands of `comparison_figure` are, where strategies have so many seeds each."""
    if max(seeds) < SEEDS_FOR_CONFIDENCE:
        return "reach from the worst to the best of them"
    if min(seeds) >= SEEDS_FOR_CONFIDENCE:
        return "are 95 % confidence intervals of the means"
    return (
        f"are 95 % confidence intervals of the means from {SEEDS_FOR_CONFIDENCE} seeds on, and "
        "else reach from the worst to the best"
    )


def _span(accuracies: Sequence[float]) -> tuple[float, float]:
    """Lower and upper end of a band."""
    if len(accuracies) < SEEDS_FOR_CONFIDENCE:
        return min(accuracies), max(accuracies)
    found = estimate(accuracies)
    return max(found.low, 0.0), min(found.high, 1.0)


def _times(runs: Sequence[Run]) -> list[float]:
    """Times of the mean curve: those of the evaluations that all runs reached, thinned out."""
    curves = [accuracy_curve(run) for run in runs]
    end = min(curve[-1][1] for curve in curves)
    # The untrained network stands at time 0, which a logarithmic axis can't show.
    found = sorted({time for curve in curves for _, time, _ in curve if 0 < time <= end})
    step = max(1, math.ceil(len(found) / GRID))
    return found[::-step][::-1] or [end]


def _time(one: Summary) -> float:
    return one.seconds_to_target.mean if one.seconds_to_target else math.inf


def _time_text(one: Summary) -> str:
    if one.seconds_to_target is None:
        return (
            f"{one.target_reached} of {counted(len(one.seeds), 'seed')}"
            if one.target_reached
            else "never"
        )
    return f"{one.seconds_to_target.mean:.3g}"


def _percent(found: Estimate) -> str:
    half = (found.high - found.low) / 2
    return f"{found.mean:.1%}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")
