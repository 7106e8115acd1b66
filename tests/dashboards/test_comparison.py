"""Figures of a comparison show the runs that it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from dashboards.comparison import (
    comparison_figure,
    time_figure,
)
from dashboards.pictures import comparison_pictures
from fl.compare.summaries import summarise
from fl.store.runs import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """Two seeds of two strategies: 0.5 and 0.7 against 0.9 and 0.9 in the end, after 4 s."""
    return [
        make_run(number, curve, strategy=strategy, seed=number % 2, comparison="c")
        for number, (strategy, curve) in enumerate(
            [
                ("distreal", (0.1, 0.2, 0.5)),
                ("distreal", (0.1, 0.4, 0.7)),
                ("small", (0.1, 0.8, 0.9)),
                ("small", (0.1, 0.6, 0.9)),
            ]
        )
    ]


def test_lines_are_means_and_bands_reach_from_the_worst_to_the_best(runs: list[Run]) -> None:
    figure = comparison_figure(runs)
    lines = {trace.name: trace for trace in figure.data if trace.mode == "lines+markers"}
    assert set(lines) == {"distreal", "small"}
    assert list(lines["distreal"].x) == [2.0, 4.0]  # without the untrained network at time 0
    assert list(lines["distreal"].y) == pytest.approx([0.3, 0.6])
    assert list(lines["small"].y) == pytest.approx([0.7, 0.9])
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert band.mode == "lines"  # else Plotly draws a dot at each corner
    assert list(band.x) == [2.0, 4.0, 4.0, 2.0]
    assert list(band.y) == pytest.approx([0.4, 0.7, 0.5, 0.2])


def test_of_five_seeds_bands_are_confidence_intervals(make_run: MakeRun) -> None:
    ends = (0.5, 0.6, 0.7, 0.6, 0.6)
    five = [
        make_run(seed, (0.1, 0.99, end), strategy="small", seed=seed, comparison="c")
        for seed, end in enumerate(ends)
    ]
    band = next(trace for trace in comparison_figure(five).data if trace.fill == "toself")
    # Student's 2.776 for four degrees of freedom, deviation 0.0707 of five seeds.
    half = 2.776 * 0.1 / math.sqrt(2) / math.sqrt(5)
    assert list(band.y) == pytest.approx([0.99, 0.6 + half, 0.6 - half, 0.99], abs=1e-4)
    first, *_ = comparison_pictures("c", five)
    assert "bands are 95 % confidence intervals of the means." in first.caption


def test_a_single_seed_has_no_band(runs: list[Run]) -> None:
    assert all(trace.fill is None for trace in comparison_figure(runs[::2]).data)


def test_bars_are_the_times_to_the_target_the_fastest_on_top(runs: list[Run]) -> None:
    figure = time_figure(*summarise(runs, target=0.5))
    assert [trace.y[0] for trace in figure.data] == ["distreal", "small"]
    assert [trace.x[0] for trace in figure.data] == [4.0, 2.0]
    assert "small reaches 50% first, after 2 virtual" in figure.layout.title.text.replace(
        "<br>", " "
    )
    never = time_figure(*summarise(runs, target=0.95))
    assert {trace.text[0] for trace in never.data} == {"never"}
    assert "No strategy reaches 95%" in never.layout.title.text


def test_without_an_evaluation_there_is_nothing_to_draw(make_run: MakeRun) -> None:
    assert comparison_pictures("c", [make_run(1, (None,), comparison="c")]) == []


def test_unfinished_runs_are_counted(runs: list[Run], make_run: MakeRun) -> None:
    begun = make_run(9, (0.1, 0.2), finished=False, strategy="small", seed=7, comparison="c")
    first, *_ = comparison_pictures("c", [*runs, begun])
    assert "Not finished: 1 of 5 runs, which are left out." in first.caption
    assert "NaN" not in "".join(first.tables)
    none, *_ = comparison_pictures("c", [begun])
    assert "Not finished: 1 of 1 run." in none.caption


def test_runs_that_are_not_finished_do_not_cut_or_bend_the_lines_of_the_others(
    runs: list[Run], make_run: MakeRun
) -> None:
    begun = [
        make_run(number, (0.1,), finished=False, strategy=strategy, seed=7, comparison="c")
        for number, strategy in ((8, "small"), (9, "heterofl"))
    ]
    finished, *_ = comparison_pictures("c", runs)
    mixed, *_ = comparison_pictures("c", [*runs, *begun])
    assert mixed.figure == finished.figure
    assert mixed.caption.startswith(finished.caption)


def test_seeds_are_told_by_strategy_where_they_differ(runs: list[Run]) -> None:
    alike, *_ = comparison_pictures("c", runs)
    assert "means over 2 seeds" in alike.caption and ">seeds<" not in alike.tables[0]
    differing, *_ = comparison_pictures("c", runs[1:])
    assert "means over 1 to 2 seeds" in differing.caption and ">seeds<" in differing.tables[0]


def test_of_one_seed_nothing_is_said_of_means_and_bands(runs: list[Run]) -> None:
    first, *_ = comparison_pictures("c", runs[::2])
    assert first.caption == "Each line is a run with a single seed."


def test_long_curves_are_thinned_out_and_keep_their_end(make_run: MakeRun) -> None:
    curve = tuple(min(0.9, 0.001 * i) for i in range(1000))
    figure = comparison_figure([make_run(1, curve, comparison="c")])
    (line,) = figure.data
    assert len(line.x) <= 80 and line.x[-1] == 2.0 * 999
    assert not any(math.isnan(value) for value in line.y)
