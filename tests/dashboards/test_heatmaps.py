"""Heat maps: all rows, columns that agree, and numbers that can be read or are not there."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go
import pytest
from plotly.colors import sample_colorscale

from contrast import contrast
from dashboards.costs import breakdown_figure, cost_breakdown
from dashboards.heatmaps import fit_text, rates_figure, row_names
from dashboards.style import RATE_SCALE
from distreal_dse.fronts import FIXED, LAYERS, Front, FrontGroup, FrontPoint
from front_examples import make_front


def wide(columns: int, groups: int = 3, channels: int = 100) -> Front:
    """A front of so many points, whose rates run through all that there are."""
    points = []
    for column in range(columns):
        rates = tuple((column + row / groups) / columns for row in range(groups))
        counts = tuple(max(1, round(channels * (1 - rate))) for rate in rates)
        value = 1.0 - column / columns
        points.append(FrontPoint(rates, counts, 1000 * value, value, 0.0, 8, 0.5, uniform=False))
    return make_front(
        groups=tuple(FrontGroup(f"features.{i}.conv.0.0", channels) for i in range(groups)),
        points=tuple(reversed(points)),
        reference_cost=1000.0,
        settings={
            LAYERS: [
                {"name": f"layer {i}", "macs": 9, "inputs": {FIXED: 3}, "outputs": {str(i): 1}}
                for i in range(groups)
            ]
        },
    )


def digits(figure: go.Figure) -> dict[tuple[int, int], tuple[str, str]]:
    """Text and colour of the number in each cell, by column and row."""
    return {
        (x, y): (text, trace.textfont.color)
        for trace in figure.select_traces({"mode": "text"})
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
    }


def test_there_is_a_row_for_each_group_and_a_number_in_each_cell(hostile: Front) -> None:
    figure = rates_figure(hostile)
    heat_map = figure.data[0]
    assert [list(row) for row in heat_map.z] == [[0.5] * 3 + [0.0], [0.25] * 3 + [0.0]]
    assert list(heat_map.y) == [0, 1]  # two groups of one name stay two
    kept = {cell: text for cell, (text, _) in digits(figure).items()}
    assert [[kept[x, y] for x in range(4)] for y in range(2)] == [
        ["8", "8", "8", "16"],
        ["6", "6", "6", "8"],
    ]
    assert list(figure.layout.yaxis.range) == [1.5, -0.5]
    assert list(figure.layout.xaxis.range) == [-0.5, 3.5]


def test_each_number_stands_out_from_its_cell() -> None:
    figure = rates_figure(wide(40, groups=5))
    heat_map = figure.data[0]
    found = digits(figure)
    assert len(found) == 41 * 5
    assert len({color for _, color in found.values()}) == 2
    for (column, row), (_, color) in found.items():
        (cell,) = sample_colorscale(RATE_SCALE, [heat_map.z[row][column]])
        parts = [round(float(part)) for part in cell[4:-1].split(",")]
        assert contrast("#{:02x}{:02x}{:02x}".format(*parts), color) >= 4.5


@pytest.mark.parametrize("points", [3, 10, 11, 24])
@pytest.mark.parametrize("last", ["full", "100%"])
def test_both_maps_of_a_front_label_the_same_columns(points: int, last: str) -> None:
    front = wide(points)
    if last == "100%":
        full = tuple(group.channels for group in front.groups)
        front = replace(
            front, points=(*front.points[:-1], replace(front.points[-1], kept_counts=full))
        )
    breakdown = cost_breakdown(front)
    assert breakdown is not None
    rates, layers = rates_figure(front), breakdown_figure(front, breakdown)
    assert rates.layout.xaxis == layers.layout.xaxis
    assert rates.layout.xaxis.ticktext[-1] == last
    assert list(rates.data[0].x) == list(layers.data[0].x) == list(range(points + (last == "full")))


def test_numbers_are_as_large_as_cells_allow_and_none_where_they_are_too_small() -> None:
    sizes = []
    for columns in (5, 20, 24, 60):
        figure = rates_figure(wide(columns))
        shown = {(t.visible, t.textfont.size) for t in figure.select_traces({"mode": "text"})}
        ((visible, size),) = shown  # the same in both colours
        # Three digits of 0.64 em and a gap, beside names of 11 characters, in 800 pixels.
        assert visible == ((800 - 11 * 7.2 - 30) / (columns + 1) >= 3 * 0.64 * 8 + 6)
        sizes.append(size if visible else 0)
    assert sizes[0] == 11 and sorted(sizes, reverse=True) == sizes and sizes[-1] == 0
    figure = rates_figure(wide(20))
    fit_text(figure, 400)
    assert not any(trace.visible for trace in figure.select_traces({"mode": "text"}))


def test_names_are_short_by_what_they_share_and_stay_different() -> None:
    assert row_names(["conv1", "conv2"]) == ["conv1", "conv2"]
    mobile = ["features.0.0", "features.17.conv.0.0", "features.17.conv.2", "classifier"]
    assert row_names(mobile) == ["…0.0", "…17.conv.0.0", "…17.conv.2", "classifier"]
    deep = [f"backbone.stage{i}.block{j}.convolution" for i in range(2) for j in range(2)]
    names = row_names(deep)
    assert len(set(names)) == 4 and max(map(len, names)) <= 22
    assert row_names(["a" * 99, "a" * 99]) == [f"1: …{'a' * 17}", f"2: …{'a' * 17}"]


def test_the_height_grows_with_the_rows() -> None:
    for groups in (2, 52):
        layout = rates_figure(wide(4, groups)).layout
        plot = layout.height - layout.margin.t - layout.margin.b
        assert plot / groups >= 26 and len(layout.yaxis.ticktext) == groups
        assert layout.yaxis.tickfont.size == 13
