"""Fronts of one network beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from contrast import contrast
from dashboards.lines import BUDGETS, Line, best_within, by_network, lines_of, shared_vectors
from dashboards.numbers import report_numbers
from dashboards.pictures import pictures, side_by_side_pictures
from dashboards.report import write_report
from dashboards.side_by_side import (
    MOST_LINES,
    budget_table,
    drawn_lines,
    front_table,
    side_by_side_caption,
    side_by_side_figure,
    side_by_side_finding,
    vector_table,
)
from dashboards.style import UNIFORM, front_looks
from distreal_dse import plot
from distreal_dse.errors import InputError
from distreal_dse.fronts import BudgetTooSmallError, Front, FrontGroup, FrontPoint
from front_examples import HOSTILE, fronts, make_front

SEARCH = {"study": "digits", "sampler": "nsga2", "trials": 80, "short run": {"mini_batches": 20}}


def front_of(seed: int | None, *pairs: tuple[float, float], **changes: Any) -> Front:
    """A front with such costs (in per cent) and gains; its settings are those of `SEARCH`."""
    settings = {**SEARCH, "seed": seed, **changes.pop("settings", {})}
    points = tuple(
        FrontPoint((0.5, 0.5), (8, 4 + number), 16.0 * cost, gain, 0.02, 8, 0.5, uniform=False)
        for number, (cost, gain) in enumerate(pairs)
    )
    values = {"name": f"s{seed}", "version": 1, "settings": settings, "points": points, **changes}
    return make_front(**values)


def seeds(**changes: Any) -> list[Front]:
    """Three seeds; the second has no point below 10 %."""
    return [
        front_of(0, (5, 0.2), (20, 0.6), **changes),
        front_of(1, (10, 0.3), (50, 0.5), **changes),
        front_of(2, (5, 0.1), (20, 0.4), (100, 0.7), **changes),
    ]


def in_seconds(front: Front, **changes: Any) -> Front:
    """The same vectors, each at twice its share, in seconds."""
    points = tuple(replace(point, cost=point.cost / 8e5) for point in front.points)
    device = {"cpu": "chip", "threads": 2}
    return replace(
        front, name=f"{front.name}-ab12", cost_metric="latency", device=device,
        reference_cost=1e-3, points=points, **changes,
    )  # fmt: skip


def names(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    return [tuple(front.label for front in line.fronts) for line in lines]


def test_fronts_are_side_by_side_with_those_of_their_network_alone() -> None:
    one, two, three = seeds()
    other = make_front(name="other", model_fingerprint="fe")
    wider = replace(three, groups=(FrontGroup("conv1", 16), FrontGroup("conv2", 16)))
    assert by_network([one, other, two]) == [[one, two]]
    assert by_network([one, other]) == by_network([one, one]) == by_network([]) == []
    assert by_network([one, wider]) == []
    again = replace(other, name="again")
    assert by_network([one, other, two, again]) == [[one, two], [other, again]]


def test_three_seeds_are_one_line_and_two_are_two() -> None:
    one, two, three = seeds()
    assert names(lines_of([one, two])) == [("s0@1",), ("s1@1",)]
    (line,) = lines_of([three, one, two])
    assert names([line]) == [("s0@1", "s1@1", "s2@1")] and line.name == "digits, 3 seeds"


@pytest.mark.parametrize(
    "change",
    [
        {"study": "else"},
        {"settings": {"sampler": "tpe", "seed": 2}},
        {"settings": {"short run": {"mini_batches": 40}}},
        {"settings": {"seed": None}},
        {"settings": {"seed": True}},
        {"settings": {"seed": 1}},
        {"settings": {"trials": 120}},
        {"settings": {"versions": {"distreal-dse": "0.2.0"}}},
        {"settings": {"fleet": {"fleet": "extreme"}}},
    ],
)
def test_what_differs_in_more_than_the_seed_is_a_line_of_its_own(change: dict[str, Any]) -> None:
    one, two, _ = seeds()
    other = front_of(2, (5, 0.1), **change)
    assert len(lines_of([one, two, other])) == 3


def test_seconds_of_two_devices_and_macs_are_not_one_line() -> None:
    one, two, three = map(in_seconds, seeds())
    assert len(lines_of([one, two, three])) == 1
    assert len(lines_of([one, two, replace(three, device={"cpu": "other"})])) == 3
    assert len(lines_of([one, two, seeds()[2]])) == 3
    repriced = replace(three, settings={**three.settings, "repriced from": {"front": "s2@1"}})
    assert len(lines_of([one, two, repriced])) == 3


def test_what_came_of_a_search_does_not_part_seeds() -> None:
    one, two, three = seeds()
    results = {
        "uniform family": [], "verification": [], "failed verification": {}, "pilot": {"a": 1},
        "table": {"vectors": []}, "layers": [], "harmful": {"8-4": -1.0}, "trials": 100,
        "versions": {"torch": "9"}, "latency": {},
    }  # fmt: skip
    later = replace(three, created_at="2027-01-31T12:00:00+00:00", version=4)
    came = replace(later, settings={**three.settings, **results})
    (line,) = lines_of([one, two, came])
    assert len(line.fronts) == 3


def test_a_seed_counts_once_by_its_newest_front() -> None:
    one, two, three = seeds()
    newer = replace(one, version=2, created_at="2026-02-01T12:00:00+00:00")
    assert names(lines_of([one, newer, two, three])) == [("s0@1",), ("s0@2", "s1@1", "s2@1")]


def test_bands_of_one_study_are_told_apart_by_their_first_front() -> None:
    others = seeds(settings={"sampler": "tpe"})
    others = [replace(front, name=f"t{i}") for i, front in enumerate(others)]
    found = [line.name for line in lines_of([*seeds(), *others])]
    assert found == ["s0@1 and 2 other seeds", "t0@1 and 2 other seeds"]


def test_equal_labels_are_told_apart_by_their_hashes() -> None:
    one, two = front_of(0, (5, 0.2)), front_of(0, (5, 0.3))
    assert [line.name for line in lines_of([one, two])] == [
        f"s0@1 #{front.content_hash[:6]}" for front in (one, two)
    ]


def test_the_legend_tells_unit_and_device_where_not_all_count_macs() -> None:
    front = seeds()[0]
    assert [line.name for line in lines_of([front, in_seconds(front)])] == [
        "s0@1 (MACs)", "s0-ab12@1 (s, chip, 2 thr.)"
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(fronts())
def test_a_budget_buys_what_a_lookup_gives(front: Front) -> None:
    front = replace(front, settings={}, reference_cost=max(front.reference_cost, 1e3))
    for budget in BUDGETS:
        point = best_within(front, budget)
        try:
            found = front.lookup(f"{budget}%")
        except BudgetTooSmallError:
            assert point is None
        else:
            assert point is not None
            assert (point.kept_counts, point.cost) == (found.kept_counts, found.cost)


def test_several_seeds_gain_their_median_between_what_all_and_any_attain() -> None:
    (line,) = lines_of(seeds())
    found = {one.budget: (one.gain, one.low, one.high) for one in map(line.gain, BUDGETS)}
    assert found == {
        1: (None, None, None),
        2: (None, None, None),
        5: (0.1, None, 0.2),
        10: (0.2, 0.1, 0.3),
        20: (0.4, 0.3, 0.6),
        50: (0.5, 0.4, 0.6),
        100: (0.6, 0.5, 0.7),
    }
    for surface, index in ((line.middle, 0), (line.low, 1), (line.high, 2)):
        for budget, gains in found.items():
            reached = [gain for share, gain in surface if 100 * share <= budget]
            assert (reached[-1] if reached else None) == gains[index]


def test_a_line_steps_through_the_points_of_its_front_to_the_end_of_the_axis() -> None:
    one, two, _ = seeds()
    figure = side_by_side_figure(lines_of([one, two]))
    (rest, first), (_, second) = figure.data[:2], figure.data[2:]
    assert first.name == "s0@1" and first.line.shape == second.line.shape == "hv"
    assert (list(first.x), list(first.y)) == ([5.0, 20.0], [0.2, 0.6])
    assert list(first.error_y.array) == [0.02, 0.02]
    assert (list(rest.x), list(rest.y)) == ([20.0, 100.0], [0.6, 0.6])
    assert (rest.line.color, rest.line.dash) == (first.line.color, first.line.dash)
    assert rest.legendgroup == first.legendgroup and not rest.showlegend
    assert first.line.color != second.line.color and first.line.dash != second.line.dash
    assert first.hovertext[0].endswith("5% of the full network<br>gain 0.200 ± 0.020")
    assert figure.layout.xaxis.title.text == "training MACs (% of the full network)"
    mixed = side_by_side_figure(lines_of([one, in_seconds(one)]))
    assert mixed.layout.xaxis.title.text == "training cost (% of the full network)"


def test_a_band_lies_between_what_all_and_any_seed_attains() -> None:
    figure = side_by_side_figure(lines_of(seeds()))
    band, line = figure.data
    corners = len(band.x) // 2
    assert list(band.x[:corners]) == list(reversed(band.x[corners:]))
    highs, lows = band.y[:corners], list(reversed(band.y[corners:]))
    floor = figure.layout.yaxis.range[0]
    assert list(zip(band.x[:corners], lows, highs, strict=True)) == [
        (5, floor, 0.2),  # one of the seeds has no point there
        (10, floor, 0.2),
        (10, 0.1, 0.3),
        (20, 0.1, 0.3),
        (20, 0.3, 0.6),
        (50, 0.3, 0.6),
        (50, 0.4, 0.6),
        (100, 0.4, 0.6),
        (100, 0.5, 0.7),
    ]
    assert (list(line.x), list(line.y)) == ([5, 10, 20, 50, 100], [0.1, 0.2, 0.4, 0.5, 0.6])
    assert line.error_y.array is None and line.line.shape == "hv"
    assert line.hovertext[0].endswith("median gain 0.100 (– … 0.200)")
    assert band.legendgroup == line.legendgroup and not band.showlegend


def test_one_rate_is_a_dotted_line_where_its_costs_are_the_same_in_all_fronts() -> None:
    def family(*gains: float) -> dict[str, Any]:
        return {"uniform family": [
            {"rate": 0.5, "cost": 400.0 * (i + 1), "convergence": gain, "standard_error": 0.0}
            for i, gain in enumerate(gains)
        ]}  # fmt: skip

    one, two, three = (
        front_of(i, (5, 0.2), settings=family(*gains))
        for i, gains in enumerate(((0.1, 0.2), (0.3, 0.6), (0.2, 0.9)))
    )
    dotted = side_by_side_figure(lines_of([one, two, three])).data[1]
    assert (dotted.line.dash, dotted.line.color) == ("dot", UNIFORM.color)
    assert (list(dotted.x), list(dotted.y)) == ([25.0, 50.0], [0.2, 0.6])
    assert "Dotted: one rate" in side_by_side_caption(lines_of([one, two]))
    for other in (
        front_of(2, (5, 0.2)),
        in_seconds(two),
        front_of(2, (5, 0.2), settings=family(0)),
    ):
        lines = lines_of([one, two, other])
        assert "dot" not in [trace.line.dash for trace in side_by_side_figure(lines).data]
        assert "Dotted" not in side_by_side_caption(lines)


@settings(max_examples=25, deadline=None)
@given(fronts())
def test_any_fronts_can_be_side_by_side(front: Front) -> None:
    other = replace(front, name="other", points=front.points[-1:])
    lines = lines_of([front, other])
    figure = side_by_side_figure(lines)
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.hovertext]
    assert [len(trace.x) for trace in named] == [len(front.points), 1]
    assert budget_table(lines) and front_table(lines) and side_by_side_caption(lines)


def test_looks_can_be_told_apart_in_grey_on_white_and_in_the_dark() -> None:
    looks = front_looks(MOST_LINES)
    assert len({look.symbol for look in looks}) == len({(x.color, x.dash) for x in looks}) == 8
    assert all(look.dash != "dot" and look.color != UNIFORM.color for look in looks)
    assert all(contrast(look.color, "#ffffff") >= 3 for look in looks)
    # Black is another colour on dark pages.
    assert all(contrast(x.color, "#1b232a") >= 3 for x in looks if x.color != "#000000")


def test_bands_have_colours_of_their_own() -> None:
    alone = [front_of(None, (5, 0.3), name=f"a{i}") for i in range(5)]
    figure = side_by_side_figure(lines_of([*alone, *seeds()]))
    (band,) = (trace for trace in figure.data if trace.fill == "toself")
    lines = {trace.name: trace.line.color for trace in figure.data if trace.name}
    own = lines.pop("digits, 3 seeds")
    assert own == front_looks(1)[0].color and band.legendgroup == "digits, 3 seeds"


def test_of_many_lines_the_newest_are_drawn_and_tables_have_all() -> None:
    many = [
        front_of(0, (5, 0.2), name=f"n{day}", created_at=f"2026-01-{day:02}T12:00:00+00:00")
        for day in range(1, MOST_LINES + 3)
    ]
    lines = lines_of(many)
    assert names(drawn_lines(lines)) == names(lines)[2:]
    assert f"The newest 8 of {MOST_LINES + 2} lines are drawn" in side_by_side_caption(lines)
    assert budget_table(lines).count("<tr>") == 1 + len(many)
    few = lines[:MOST_LINES]
    assert "newest" not in side_by_side_caption(few) and drawn_lines(few) == few


def test_the_finding_tells_gains_and_not_who_is_better() -> None:
    assert side_by_side_finding(lines_of(seeds())) == (
        "For 10% of the full cost, 3 fronts gain 0.10 to 0.30 nats"
    )
    dear = front_of(5, (20, 0.6))
    assert side_by_side_finding(lines_of([seeds()[0], dear])) == (
        "For 20% of the full cost, 2 fronts gain 0.60 nats"
    )
    beyond = front_of(5, (120, 0.6))
    assert side_by_side_finding(lines_of([dear, beyond])) == "2 fronts of one network"


def test_the_caption_tells_what_bars_and_bands_are_and_what_does_not_compare() -> None:
    one, two, three = seeds()
    text = side_by_side_caption(lines_of([one, two]))
    assert "one standard error" in text and "not paired" in text and "band" not in text
    banded = side_by_side_caption(lines_of([one, two, three]))
    assert "median attainment surface" in banded and "standard error" not in banded
    assert "short runs differ" not in text
    other = front_of(4, (5, 0.2), settings={"short run": {"mini_batches": 40}}, study="else")
    assert "short runs differ (study, short run)" in side_by_side_caption(lines_of([one, other]))
    repriced = in_seconds(one, settings={**one.settings, "repriced from": {}, "batch size": 64})
    told = side_by_side_caption(lines_of([replace(one, settings={**one.settings, "batch size": 32}),
                                          repriced]))  # fmt: skip
    assert "MACs and seconds" in told and "re-priced front has the gains" in told
    assert "differ" not in told.replace("no test of a difference", "")


def test_a_budget_that_buys_nothing_is_a_dash_and_a_band_shows_its_range() -> None:
    one, two, three = seeds()
    cells = budget_table(lines_of([one, two]))
    assert cells.count(">–<") == (2 + 3) and ">0.200 ± 0.020<" in cells
    banded = budget_table(lines_of([one, two, three]))
    assert banded.count(">–<") == 2 and ">0.10 (– … 0.20)<" in banded
    assert ">0.40 (0.30 … 0.60)<" in banded


def test_vectors_that_two_costs_have_are_shown_in_both() -> None:
    one, two, _ = seeds()
    timed = in_seconds(one)
    again = replace(in_seconds(one), points=tuple(
        replace(point, cost=point.cost * 1.5) for point in timed.points[:1]))  # fmt: skip
    other = replace(timed, name="there", device={"cpu": "chip", "threads": 2, "torch": "9"})
    assert shared_vectors([one, two]) == [] and vector_table([one, two]) == ""
    first, second = shared_vectors([one, timed])
    assert first.kept_counts == (8, 4) and second.kept_counts == (8, 5)
    assert first.shares == {"MACs": (0.05, 0.05), "s, chip, 2 thr.": (0.1, 0.1)}
    (cheap, dear) = shared_vectors([one, timed, again, other])
    assert cheap.shares["s, chip, 2 thr."] == pytest.approx((0.1, 0.15))
    assert cheap.shares["s, chip, 2 thr. (there@1)"] == (0.1, 0.1)
    assert dear.shares["s, chip, 2 thr."] == (0.4, 0.4)
    cells = vector_table([one, timed, again])
    assert ">10% … 15%<" in cells and ">5%<" in cells and ">8-4<" in cells


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., str]:
    def write(*shown: Front) -> str:
        write_report(tmp_path / "report.html", [(front, []) for front in shown])
        return (tmp_path / "report.html").read_text("utf-8")

    return write


def test_a_report_has_the_section_exactly_where_a_network_has_two_fronts(
    page: Callable[..., str],
) -> None:
    one, two, _ = seeds()
    heading = "<h2>Fronts side by side</h2>"
    other = make_front(name="other", model_fingerprint="fe", study="other")
    for shown in ([one], [one, other], [one, one]):
        assert heading not in page(*shown)
    both = page(one, other, two)
    assert both.count(heading) == 1 and both.index(heading) < both.index("<h2>Front s0@1</h2>")
    assert both.count("<figure") == 1 + 3 * 2
    assert "<summary>The fronts</summary>" in both and "The same vectors" not in both
    assert page(one, two, other, replace(other, name="o2")).count("<figure") == 2 + 4 * 2
    mixed = page(one, in_seconds(one))
    assert "<summary>The same vectors in different costs</summary>" in mixed


def test_pictures_have_names_of_their_own() -> None:
    one, two, three = seeds()
    others = [replace(front, model_fingerprint="fe") for front in (one, two)]
    found = [one.name for one in pictures([(f, []) for f in (one, two, *others)])]
    assert found[:2] == ["side-by-side-digits", "side-by-side-digits-2"]
    first = side_by_side_pictures([one, two, three])[0]
    assert first.heading == first.figure.layout.title.text.replace("<br>", " ")
    assert len(first.text) > 40 and len(first.tables) == 1 + len(first.summaries) == 2


def test_hostile_names_are_text(page: Callable[..., str]) -> None:
    name = HOSTILE.replace("\u202e", "")
    hostile = {"study": name, "model_fingerprint": name}
    shown = seeds(**hostile)
    timed = replace(in_seconds(shown[0]), device={"gpu": name})
    free = front_of(None, (5, 0.2), name="free", settings={name: [name], "trials": name}, **hostile)
    text = page(*shown, timed, free)
    assert "<img" not in text and text.count("<script>alert") == 0
    for one in side_by_side_pictures([*shown, timed, free]):
        assert "<" not in one.figure.to_json().replace("\\u003cbr\\u003e", "").replace(
            "\\u003cb\\u003e", "").replace("\\u003c/b\\u003e", "")  # fmt: skip
        assert "\\u003cimg" not in one.figure.to_json() and "<img" not in "".join(one.tables)
        assert not set(one.name) & set("/<>&\"' ")


def test_the_numbers_are_in_the_json_too() -> None:
    one, two, three = seeds()
    alone = in_seconds(one)
    known = report_numbers([(front, []) for front in (one, two, three, alone)])
    assert json.loads(json.dumps(known, allow_nan=False)) == known
    (found,) = known["fronts side by side"]
    band, line = found["lines"]
    assert found["model fingerprint"] == one.model_fingerprint and "gain" in found["finding"]
    assert band["fronts"] == ["s0@1", "s1@1", "s2@1"] and band["seeds"] == [0, 1, 2]
    assert band["median"][0] == [0.05, 0.1] and band["attained by any"][0] == [0.05, 0.2]
    assert band["attained by all"][0] == [0.1, 0.1]
    assert [one["gain"] for one in band["budgets"]] == [None, None, 0.1, 0.2, 0.4, 0.5, 0.6]
    assert {one["standard error"] for one in band["budgets"]} == {None}
    assert line["cost unit"] == "s" and line["device"] == {"cpu": "chip", "threads": 2}
    assert line["budgets"][3] == {
        "share": 0.1, "gain": 0.2, "standard error": 0.02,
        "attained by all": 0.2, "attained by any": 0.2,
    }  # fmt: skip
    assert found["same vectors"][0]["shares of the full cost"]["MACs"] == [0.05, 0.1]
    assert report_numbers([(one, [])])["fronts side by side"] == []


def test_python_plots_several_fronts_of_one_network() -> None:
    one, two, three = seeds()
    figure = plot(one, two, three)
    assert figure == plot([one, two, three]) == side_by_side_figure(lines_of([one, two, three]))
    other = make_front(name="other", model_fingerprint="fe")
    for wrong in ((one, two, other), (one, other), (one, one)):
        with pytest.raises(InputError, match="several fronts of one network"):
            plot(*wrong)
    with pytest.raises(InputError, match="found nothing"):
        plot([])
    with pytest.raises(InputError, match="found Front, int"):
        plot(one, 3)  # type: ignore[arg-type]
    assert math.isfinite(sum(figure.layout.yaxis.range))
