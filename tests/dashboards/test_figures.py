from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from contrast import contrast, luminance
from dashboards.figures import accuracy_figure, front_figure
from dashboards.findings import TrialPoint
from dashboards.heatmaps import rates_figure
from dashboards.style import FRONT, RATE_SCALE, TRIAL, UNIFORM, run_looks, strategy_looks
from distreal_dse.fronts import Front
from fl.store.runs import Run
from front_examples import fronts, make_front


def other(number: int, gain: float = 0.5) -> TrialPoint:
    return TrialPoint(300.0, gain, uniform=False, number=number, kept_counts=(8, 6), accuracy=0.5)


def test_each_trace_has_a_point_for_each_datum(searched: Front) -> None:
    # Trial 80 became a point of the front; the family is taken from the front, not from trials.
    trials = [other(80), other(81), other(82), TrialPoint(9.0, 0.1, uniform=True)]
    figure = front_figure(searched, trials)
    assert [(trace.name, len(trace.x), len(trace.hovertext)) for trace in figure.data] == [
        ("other trials, not verified", 2, 2),
        ("one rate for all layers", 3, 3),
        ("verified front", 3, 3),
    ]
    front = figure.data[-1]
    assert list(front.x) == [5.0, 50.0, 100.0]
    assert list(front.y) == [0.6, 0.9, 1.0]
    assert list(front.error_y.array) == [0.0, 0.0, 0.0]


def test_hovering_tells_what_a_point_is(searched: Front) -> None:
    text = front_figure(searched).data[-1].hovertext[0]
    for part in ("80 MACs", "5%", "gain 0.600 ± 0.000", "accuracy 50.0%", "trial 80"):
        assert part in text
    assert "conv1: 8 of 16, rate 0.50" in text and "conv2: 6 of 8, rate 0.25" in text


def test_the_title_of_the_front_is_its_finding(searched: Front) -> None:
    assert front_figure(searched).layout.title.text.replace("<br>", " ") == (
        "At 5% of the full cost a vector gains what one rate for all layers needs 20% for, "
        "and certainly more than 10%"
    )


def test_the_cost_axis_is_logarithmic_where_costs_span_enough(searched: Front) -> None:
    axis = front_figure(searched).layout.xaxis
    assert axis.type == "log" and axis.tickvals[0] <= 5 and "5%" in axis.ticktext
    near = make_front(points=searched.points[1:], settings={})
    assert front_figure(near).layout.xaxis.type is None


def test_a_ruined_trial_does_not_press_the_others_flat(searched: Front) -> None:
    figure = front_figure(searched, [other(1, gain=-50.0), other(2, gain=0.2)])
    low, high = figure.layout.yaxis.range
    assert -1 < low < 0.2 and 1.0 < high < 1.2
    assert figure.data[0].name == "other trials, not verified (1 below the axis)"


def test_each_run_is_a_line_through_its_evaluated_rounds(make_run: Callable[..., Run]) -> None:
    runs = [make_run(1), make_run(2, (0.1, 0.2, 0.3), strategy="<b>heterofl"), make_run(3)]
    first, second, third = accuracy_figure(runs).data
    assert (list(first.x), list(first.y)) == ([0.0, 4.0], [0.1, 0.5])
    assert len(second.x) == 3
    assert second.name == "&lt;b&gt;heterofl · digits@1 · run 2"
    assert first.line.color == third.line.color != second.line.color
    assert first.marker.symbol != second.marker.symbol and first.line.dash != third.line.dash


def test_names_are_no_markup_in_any_figure(hostile: Front, make_run: Callable[..., Run]) -> None:
    name = hostile.groups[0].name
    trials = [TrialPoint(5.0, 0.1, uniform=False, kept_counts=(1, 2))]
    for figure in (
        front_figure(hostile, trials),
        rates_figure(hostile),
        accuracy_figure([make_run(1, strategy=name, front_label=name)]),
    ):
        text = figure.to_json()
        assert "x}" in text  # the end of the name
        assert "\\u003cimg" not in text and "\\u003cscript" not in text and "<" not in text


@settings(max_examples=20, deadline=None)
@given(fronts())
def test_any_front_can_be_drawn(front: Front) -> None:
    points = [TrialPoint(p.cost, p.convergence, p.uniform) for p in front.points]
    assert len(front_figure(front, points).data[-1].x) == len(front.points)
    assert len(rates_figure(front).data[0].z) == len(front.groups)


def test_figures_can_be_read_in_grey() -> None:
    assert len({look.symbol for look in (FRONT, UNIFORM, TRIAL)}) == 3
    for look in (FRONT, UNIFORM):  # contrast of graphics to white, WCAG 2: at least 3
        assert contrast(look.color, "#ffffff") >= 3
    steps = [luminance(str(color)) for _, color in RATE_SCALE]
    assert steps == sorted(steps, reverse=True)
    known = (
        "distreal", "distreal-uniform", "fedavg", "fedavg-drop", "fjord", "fjord-kd", "heterofl",
        "fedrolex", "small", "federated-dropout", "nested", "of a plug-in",
    )  # fmt: skip
    looks = run_looks(known)
    assert len({look.symbol for look in looks}) == len(known)
    assert len({(look.color, look.dash) for look in looks}) == len(known)
    assert looks[0] == FRONT
    assert run_looks(["small", "distreal"])[0] == looks[known.index("small")]
    # With other settings, it is another line of the same strategy; the plain one keeps its look.
    rates = strategy_looks(["small:lr=0.1", "small", "small:lr=0.2", "fedrolex:lr=1"])
    assert rates["small"] == looks[known.index("small")]
    assert rates["fedrolex:lr=1"] == looks[known.index("fedrolex")]
    of_small = [look for name, look in rates.items() if name.startswith("small")]
    assert len({look.dash for look in of_small}) == 3
    assert len({(look.color, look.symbol) for look in of_small}) == 1
    repeated = run_looks(["small", "small", "small:lr=0.1", "fedrolex", "fedrolex"])
    assert len({(look.color, look.symbol, look.dash) for look in repeated}) == 5


@pytest.mark.parametrize("module", ["dashboards.figures", "dashboards.report"])
def test_pictures_need_neither_optuna_nor_torch(module: str) -> None:
    code = f"import sys, {module}; print({{'optuna', 'torch', 'kaleido'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
