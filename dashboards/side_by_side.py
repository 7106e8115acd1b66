"""Fronts of one network beside each other: versions, seeds, and costs in MACs or seconds.

Nothing here says which front is better: gains of two searches are not paired, and points are on a
front because they gained much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

import plotly.graph_objects as go

from dashboards.figures import (
    LEGEND_ROOM,
    band_trace,
    cost_axis,
    figure_title,
    line_trace,
    plotly_text,
)
from dashboards.findings import counted, moment, percent, uniform_family
from dashboards.images import WIDTH as IMAGE_WIDTH
from dashboards.lines import (
    BUDGETS,
    BudgetGain,
    Line,
    Surface,
    differing_settings,
    front_age,
    pricing_key,
    pricing_name,
    shared_vectors,
    shares_and_gains,
)
from dashboards.markup import table
from dashboards.style import UNIFORM, Look, front_looks, template
from distreal_dse.fronts import Front, channel_counts

# What the finding tells the gains of, where all fronts have a point.
NAMED_BUDGET = 10
# More lines can't be told apart.
MOST_LINES = 8
# Characters of a name in a legend, for the width of a phone.
LEGEND_WIDTH = 44
# Of a legend in pixels: the size of its letters, the width of one, of the sign beside a name and of
# the axis that it begins behind, and the height of a row.
LETTERS, LETTER, SIGN, AXIS, ROW = 12, 6.6, 48, 80, 19
ONE_RATE = "one rate for all layers"

NO_POINT = "–"


def side_by_side_figure(lines: Sequence[Line], width: int = IMAGE_WIDTH) -> go.Figure:
    """Verified gain over the cost: a step line for each front, a band for several seeds.

    Parameters
    ----------
    lines
        At least one; of more than `MOST_LINES`, the newest are drawn.
    width
        In pixels, where the figure is shown with its title: the legend has room below it.
    """
    drawn = drawn_lines(lines)
    points = [point for line in drawn for front in line.fronts for point in shares_and_gains(front)]
    right = max(1.0, *(share for share, _ in points))
    floor, ceiling = _gain_range(drawn)
    figure = go.Figure()
    # Bands first: those of one colour could not be told apart.
    ordered = sorted(drawn, key=lambda line: not line.is_band)
    look_of = dict(zip(map(id, ordered), front_looks(len(ordered)), strict=True))
    looks = [look_of[id(line)] for line in drawn]
    for line, look in zip(drawn, looks, strict=True):
        if line.is_band:
            figure.add_trace(_band(line, look, floor, right))
    if family := _one_rate([front for line in drawn for front in line.fronts]):
        figure.add_trace(
            go.Scatter(
                x=[100 * share for share, _ in family],
                y=[gain for _, gain in family],
                name=ONE_RATE,
                mode="lines",
                line={"color": UNIFORM.color, "dash": "dot", "width": 1.8},
                hoverinfo="skip",
            )
        )
    for line, look in zip(drawn, looks, strict=True):
        figure.add_traces(list(_steps(line, look, right)))
    names = [*([ONE_RATE] if family else []), *(_in_legend(line.name) for line in drawn)]
    room = LEGEND_ROOM + ROW * (_legend_rows(names, width) - 1)
    figure.update_layout(
        template=template(),
        **figure_title(side_by_side_finding(lines), room),
        height=440 + 26 * len(drawn),  # each may take a row of the legend
        showlegend=True,
        legend={"font": {"size": LETTERS}, "tracegroupgap": 0},
        xaxis={
            "title": {"text": f"{_measure(lines)} (% of the full network)"},
            **cost_axis([*(100 * share for share, _ in points), 100 * right]),
        },
        yaxis={
            "title": {"text": "fall of the validation loss (nats)"},
            **({"range": [floor, ceiling]} if math.isfinite(ceiling - floor) else {}),
        },
    )
    return figure


def drawn_lines(lines: Sequence[Line]) -> list[Line]:
    """The newest lines, as many as can be told apart, in their order."""
    newest = sorted(lines, key=lambda line: max(map(front_age, line.fronts)), reverse=True)
    shown = {id(line) for line in newest[:MOST_LINES]}
    return [line for line in lines if id(line) in shown]


def side_by_side_finding(lines: Sequence[Line]) -> str:
    """What is gained for one budget, from the least to the most, as a sentence."""
    count = sum(len(line.fronts) for line in lines)
    # The named one or the next that all afford, else the largest of the smaller ones.
    for budget in sorted(BUDGETS, key=lambda one: (one < NAMED_BUDGET, abs(one - NAMED_BUDGET))):
        lows = [found.low for line in lines if (found := line.gain(budget)).low is not None]
        if len(lows) == len(lines):
            highs = [line.gain(budget).high or 0.0 for line in lines]
            ends = dict.fromkeys(f"{end:.2f}" for end in (min(lows), max(highs)))
            return f"For {budget}% of the full cost, {count} fronts gain {' to '.join(ends)} nats"
    return f"{count} fronts of one network"


def side_by_side_text(lines: Sequence[Line]) -> str:
    """What the figure shows, for people who can't see it."""
    drawn = drawn_lines(lines)
    bands = sum(line.is_band for line in drawn)
    parts = [counted(len(drawn) - bands, "front")] if len(drawn) > bands else []
    parts += [f"{counted(bands, 'median')} of several seeds with a band"] if bands else []
    return (
        f"Step chart of the verified gain over the training cost of {' and '.join(parts)}. "
        f"{side_by_side_finding(lines)}. The numbers are in the table below."
    )


def side_by_side_caption(lines: Sequence[Line]) -> str:
    """What has to be known to read the figure."""
    fronts = [front for line in lines for front in line.fronts]
    parts = ["A step: a budget buys the best point that is no dearer."]
    if not all(line.is_band for line in lines):
        parts.append("Bars: ± one standard error over short runs with fresh seeds.")
    if any(line.is_band for line in lines):
        parts.append(
            "Of several seeds, the line is what half of them attain (the median attainment "
            "surface); the band goes from what all attain to what any attains."
        )
    if _one_rate([front for line in drawn_lines(lines) for front in line.fronts]):
        parts.append("Dotted: one rate for all layers, verified beside the fronts (their median).")
    if len({pricing_key(front) for front in fronts}) > 1:
        parts.append(
            "MACs and seconds, or seconds of two devices, are each a share of the full network's: "
            "one vector may lie at two costs."
        )
    if any("repriced from" in front.settings for front in fronts):
        parts.append("A re-priced front has the gains of the one that it came from.")
    if differing := differing_settings(fronts):
        parts.append(
            f"Their short runs differ ({', '.join(differing)}), so that gains do not compare."
        )
    parts.append(
        "Gains of two searches are not paired, and points were chosen as they gained much: the "
        "picture is no test of a difference."
    )
    if len(lines) > MOST_LINES:
        parts.append(
            f"The newest {MOST_LINES} of {len(lines)} lines are drawn; tables have them all."
        )
    return " ".join(parts)


def budget_table(lines: Sequence[Line]) -> str:
    """What a lookup gains for each budget, a row for each line."""
    several = "; of several seeds the median (what all … what any attains)"
    return table(
        "Gain in nats (± standard error) of the best verified point for a budget in % of the full "
        f"network's cost{several if any(line.is_band for line in lines) else ''}",
        ("front", *(f"{budget}%" for budget in BUDGETS)),
        ((line.name, *(_gain_text(line.gain(budget)) for budget in BUDGETS)) for line in lines),
        text={0},
        wrapped={0},
    )


def front_table(lines: Sequence[Line]) -> str:
    """What the fronts are, a row for each."""
    return table(
        "The fronts",
        ("front", "drawn as", "seed", "trials", "points", "costs", "found"),
        (
            (
                front.label,
                line.name if line.is_band else "a line",
                _setting(front, "seed"),
                _setting(front, "trials"),
                str(len(front.points)),
                pricing_name(front),
                moment(front.created_at),
            )
            for line in lines
            for front in line.fronts
        ),
        text={0, 1, 5},
        wrapped={1},
    )


def vector_table(fronts: Sequence[Front]) -> str:
    """What vectors cost by each measure; empty where no vector has two."""
    shared = shared_vectors(fronts)
    if not shared:
        return ""
    channels = channel_counts(fronts[0])

    def cell(span: tuple[float, float] | None) -> str:
        ends = dict.fromkeys(map(percent, span)) if span else (NO_POINT,)
        return " … ".join(ends)

    return table(
        "The same vectors in different costs, each in % of the full network's",
        (f"kept {channels.noun}", *shared[0].shares),
        (
            (channels.text(one.kept_counts), *map(cell, one.shares.values()))
            for one in shared
        ),
        text={0},
    )  # fmt: skip


def _steps(line: Line, look: Look, right: float) -> Iterator[go.Scatter]:
    """The line and, where its dearest point is not the dearest of all, what it gains from there."""
    label = plotly_text(_in_legend(line.name))
    surface = line.middle
    hover = [_hover(line, share, gain) for share, gain in surface]
    shares = [100 * share for share, _ in surface]
    main = line_trace(label, look, shares, [gain for _, gain in surface], hover)
    main.line.shape = "hv"
    if not line.is_band:
        main.error_y = {
            "type": "data",
            "array": [point.standard_error for point in line.fronts[0].points],
            "thickness": 1,
            "width": 2,
        }
    share, gain = surface[-1]
    if share < right:
        yield go.Scatter(
            x=[100 * share, 100 * right],
            y=[gain, gain],
            mode="lines",
            line={"color": look.color, "dash": look.dash, "width": 2},
            legendgroup=label,
            showlegend=False,
            hoverinfo="skip",
        )
    yield main


def _band(line: Line, look: Look, floor: float, right: float) -> go.Scatter:
    """Between what all and what any of the fronts attain; to the floor where not all have a point.

    Its ends are steps, as lines are.
    """
    ends = sorted({share for share, _ in (*line.low, *line.high)} | {right})
    spans = [(_at(line.low, end, floor), _at(line.high, end, floor)) for end in ends]
    shares: list[float] = []
    steps: list[tuple[float, float]] = []
    for index, end in enumerate(ends):
        if index:
            shares.append(end)
            steps.append(spans[index - 1])
        shares.append(end)
        steps.append(spans[index])
    label = plotly_text(_in_legend(line.name))
    return band_trace(label, look, [100 * share for share in shares], steps)


def _at(surface: Surface, share: float, nothing: float) -> float:
    """What a surface has reached at a share of the full cost."""
    return next((gain for cost, gain in reversed(surface) if cost <= share), nothing)


def _hover(line: Line, share: float, gain: float) -> str:
    head = f"<b>{plotly_text(_in_legend(line.name))}</b><br>{percent(share)} of the full network"
    if not line.is_band:
        point = next(one for one in line.fronts[0].points if one.convergence == gain)
        return f"{head}<br>gain {gain:.3f} ± {point.standard_error:.3f}"
    low, high = (_at(surface, share, math.nan) for surface in (line.low, line.high))
    least = NO_POINT if math.isnan(low) else f"{low:.3f}"
    return f"{head}<br>median gain {gain:.3f} ({least} … {high:.3f})"


def _one_rate(fronts: Sequence[Front]) -> list[tuple[float, float]]:
    """Share and median gain of one rate for all layers, where costs are the same in all fronts.

    Empty where a front doesn't tell its family or costs differ, as seconds do: a line for each of
    them would hide the fronts.
    """
    families = [
        {one.cost / front.reference_cost: one.convergence for one in uniform_family(front)}
        for front in fronts
        if front.cost_metric == "macs"
    ]
    if len(families) < len(fronts) or not families[0]:
        return []
    if any(family.keys() != families[0].keys() for family in families):
        return []
    return [(share, median(family[share] for family in families)) for share in families[0]]


def _gain_range(lines: Sequence[Line]) -> tuple[float, float]:
    ends = [
        point.convergence + sign * (0.0 if line.is_band else point.standard_error)
        for line in lines
        for front in line.fronts
        for point in front.points
        for sign in (-1, 1)
    ]
    margin = 0.05 * ((max(ends) - min(ends)) or 1.0)
    return min(ends) - margin, max(ends) + margin


def _measure(lines: Sequence[Line]) -> str:
    metrics = {front.cost_metric for line in lines for front in line.fronts}
    if len(metrics) > 1:
        return "training cost"
    return "training MACs" if metrics == {"macs"} else "time per mini-batch"


def _gain_text(found: BudgetGain) -> str:
    if found.standard_error is not None:
        return f"{found.gain:.3f} ± {found.standard_error:.3f}"
    if found.high is None:
        return NO_POINT
    gain, low = (NO_POINT if one is None else f"{one:.2f}" for one in (found.gain, found.low))
    return f"{gain} ({low} … {found.high:.2f})"


def _legend_rows(names: Sequence[str], width: int) -> int:
    """About how many rows Plotly's legend takes."""
    rows, used = 1, 0.0
    for name in names:
        wide = SIGN + LETTER * len(name)
        if used and used + wide > width - AXIS:
            rows, used = rows + 1, 0.0
        used += wide
    return rows


def _in_legend(name: str) -> str:
    """A name as short as a phone is wide: front and version, then what fits of unit and device.

    Of longer names, the beginning and the end say most.
    """
    if len(name) <= LEGEND_WIDTH:
        return name
    front, parenthesis, costs = name.partition(" (")
    if parenthesis and (room := LEGEND_WIDTH - len(front) - 4) >= LEGEND_WIDTH // 4:
        return f"{front} ({costs[:room]}…)"
    tail = LEGEND_WIDTH // 2
    return f"{name[: LEGEND_WIDTH - tail - 1]}…{name[-tail:]}"


def _setting(front: Front, key: str) -> str:
    value = front.settings.get(key)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
