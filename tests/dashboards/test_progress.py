from __future__ import annotations

from dashboards.findings import TrialPoint
from dashboards.progress import progress_figure, progress_finding, search_progress
from distreal_dse.fronts import Front

SETTINGS = {"batch size": 10, "short run": {"mini_batches": 5, "replicates": 2}}


def tried(number: int, cost: float, gain: float) -> TrialPoint:
    return TrialPoint(cost, gain, False, number=number, kept_counts=(int(cost), 1))


TRIALS = [tried(0, 100, 1.0), tried(2, 50, 0.6), tried(1, 50, 0.4), tried(3, 50, 0.6)]


def test_the_hypervolume_grows_with_what_was_trained_in_the_order_of_trials() -> None:
    trials = [TRIALS[0], tried(2, 25, 0.4), tried(1, 50, 0.6), tried(3, 50, 0.6)]
    progress = search_progress(trials, 100.0, "macs", SETTINGS)
    assert progress is not None
    # 100 MACs per sample, 10 samples, 5 mini-batches, 2 replicates; trial 3 is trial 1 again.
    assert progress.spent == (10.0, 15.0, 17.5) and progress.unit == "kMACs"
    assert [round(area, 9) for area in progress.hypervolumes] == [0.0, 0.3, 0.4]
    seconds = search_progress(trials, 100.0, "latency", SETTINGS)
    assert seconds is not None and seconds.unit == "s" and seconds.spent[-1] == 1750


def test_without_the_length_of_short_runs_nothing_is_claimed() -> None:
    assert search_progress(TRIALS, 100.0, "macs", {}) is None
    assert search_progress([], 100.0, "macs", SETTINGS) is None
    assert search_progress([TrialPoint(1, 1, True)], 100.0, "macs", SETTINGS) is None


def test_the_figure_ends_at_the_verified_front(searched: Front) -> None:
    trials = [tried(0, 1600, 1.0), tried(1, 800, 0.9), tried(2, 80, 0.6)]
    progress = search_progress(trials, 1600.0, "macs", SETTINGS)
    assert progress is not None
    assert progress_finding(progress, searched).startswith("95% of the final hypervolume was there")
    so_far, uniform, front = progress_figure(progress, searched).data
    assert len(so_far.x) == 3
    assert front.y[0] == searched.hypervolume and front.x[0] == progress.spent[-1]
    assert set(uniform.y) == {searched.uniform_hypervolume}
    assert len(progress_figure(progress).data) == 1
    assert "stands at" in progress_finding(progress)


def test_one_vector_is_one(searched: Front) -> None:
    progress = search_progress([tried(0, 1600, 1.0)], 1600.0, "macs", SETTINGS)
    assert progress is not None
    assert progress_finding(progress).endswith("after 1 vector")
