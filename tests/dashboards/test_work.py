"""What devices did is what their rounds say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dashboards.comparison import work_table
from dashboards.work import (
    subject_of,
    use_figure,
    use_finding,
    vector_use,
    waste_figure,
    waste_finding,
)
from fl.compare.summaries import summarise
from fl.results import DeviceRound, RoundResult, round_result
from fl.store.runs import Run

MakeRun = Callable[..., Run]


def one_round(number: int, strong: float, weak: float, lost: str = "accepted") -> RoundResult:
    devices = (
        DeviceRound(0, "<b>strong</b>", "accepted", 1.0, 3e12, 30, strong, 1, 8, 8),
        DeviceRound(1, "weak", lost, 1.0, 1e12, 10, weak, 0, 8, 8),  # type: ignore[arg-type]
    )
    return replace(round_result(number, 10.0 * number, devices), accuracy=0.5)


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    rounds = (one_round(1, 0.8, 0.2), one_round(2, 0.4, 0.1, "missed"))
    return [
        make_run(1, strategy="small", rounds=(one_round(1, 0.25, 0.25),)),
        make_run(2, strategy="distreal", rounds=rounds),
        make_run(3, strategy="distreal", seed=4, rounds=rounds),
    ]


def test_the_vectors_of_distreal_are_drawn_by_class(runs: list[Run]) -> None:
    subject = subject_of(runs)
    assert [run.id for run in subject] == [2, 3]
    strong, weak = vector_use(subject)
    assert (strong.name, weak.name) == ("<b>strong</b>", "weak")
    assert strong.mean == pytest.approx(0.6) and weak.mean == pytest.approx(0.15)
    assert strong.shares == pytest.approx((0.8, 0.4)) and len(strong.seconds) == 2
    assert (strong.mini_batches, strong.over_budget) == (120, 4)
    assert use_finding("distreal", [strong, weak]).endswith("weak ones at 15%")
    figure = use_figure("distreal", [strong, weak])
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(line.y) for line in lines] == [[80.0, 40.0], [20.0, 10.0]]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [band.mode for band in bands] == ["lines", "lines"]
    assert lines[0].name == "&lt;b&gt;strong&lt;/b&gt;"


def test_distreal_itself_comes_before_its_relatives(runs: list[Run], make_run: MakeRun) -> None:
    rounds = runs[1].rounds
    relative = make_run(7, strategy="distreal-uniform", rounds=rounds)
    assert [run.id for run in subject_of([runs[0], relative, *runs[1:]])] == [2, 3]
    assert [run.id for run in subject_of([runs[0], relative])] == [7]


def test_runs_whose_vectors_never_differ_are_not_drawn(runs: list[Run], make_run: MakeRun) -> None:
    assert subject_of(runs[:1]) == []
    assert vector_use([make_run(1)]) == []


def test_wasted_work_is_what_was_not_merged(runs: list[Run]) -> None:
    summaries, _ = summarise(runs)
    # One of the eight tera-MACs of two rounds.
    assert waste_finding(summaries) == "distreal wastes most, 12% of its work"
    merged, wasted = waste_figure(summaries).data
    assert dict(zip(merged.y, merged.x, strict=True)) == {"small": 4.0, "distreal": 7.0}
    assert dict(zip(wasted.y, wasted.x, strict=True)) == {"small": 0.0, "distreal": 1.0}
    assert waste_finding(summarise(runs[:1])[0]).startswith("No strategy wastes work")


def test_the_unit_of_work_is_that_of_its_largest_value(runs: list[Run], make_run: MakeRun) -> None:
    devices = (
        DeviceRound(0, "strong", "accepted", 1.0, 7e8, 30, 0.5, 1, 8_000_000, 8_000_000),
        DeviceRound(1, "weak", "missed", 1.0, 1e8, 10, 0.5, 0, 8_000_000, 8_000_000),
    )
    small = replace(round_result(1, 10.0, devices), accuracy=0.5)
    summaries, _ = summarise([make_run(1, strategy="small", rounds=(small,))])
    figure = waste_figure(summaries)
    merged, wasted = figure.data
    assert (merged.x[0], wasted.x[0]) == pytest.approx((700.0, 100.0))
    assert figure.layout.xaxis.title.text == "training (MMACs); striped: wasted"
    assert figure.layout.xaxis.range[1] > 800
    assert '<th class="number" scope="col">MMACs</th>' in work_table(summaries)
    assert ">MB sent<" in work_table(summaries) and ">32<" in work_table(summaries)
    of_tera, _ = summarise(runs)
    assert waste_figure(of_tera).layout.xaxis.title.text == "training (TMACs); striped: wasted"
