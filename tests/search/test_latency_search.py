from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from distreal_dse.cost import Latencies, MacCost, VectorLatency, device_fingerprint, device_text
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, list_fronts, open_database
from distreal_dse.search import SearchProgress, SearchSettings, search, tried_vectors
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare_network
from tiny_study import Finished, write_study

# A vector that keeps few filters of the first convolution can't run in training.
FAILS_WHEN_NARROW = """
def refuse(layer, inputs, outputs):
    if outputs.shape[1] < 3:
        raise RuntimeError("too narrow")


def picky():
    network = model()
    network[0].register_forward_hook(refuse)
    return network


study = replace(study, model=picky, short_run=replace(study.short_run, warm_up=0))
"""

# One vector of one rate, which the search verifies and does not try, can't be timed: it fails for
# the random inputs of a measurement alone. The study's own are never negative.
FAILS_WHEN_TIMED = """
timed = False


def look(layer, inputs):
    global timed
    timed = bool(inputs[0].min() < 0)


def refuse(layer, inputs, outputs):
    if timed and (inputs[0].shape[1], outputs.shape[1]) == (3, 3):
        raise RuntimeError("too narrow")


def picky():
    network = model()
    network[0].register_forward_pre_hook(look)
    network[4].register_forward_hook(refuse)
    return network


def positive():
    parts = data()
    return Data(*(
        TensorDataset(part.tensors[0].abs(), part.tensors[1])
        for part in (parts.train, parts.validation, parts.test)
    ))


study = replace(
    study, model=picky, data=positive, short_run=replace(study.short_run, warm_up=0)
)
"""


@pytest.fixture(scope="module")
def timed(source: StudySource, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished search by latency of 12 trials."""
    file = tmp_path_factory.mktemp("timed") / "search.db"
    settings = SearchSettings(source, trials=12, cost="latency", pilot=False)
    return Finished(file, settings, search(settings, f"sqlite:///{file}"))


def stored(file: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{file}")


def copied(timed: Finished, folder: Path) -> tuple[Path, str]:
    file = folder / "copy.db"
    shutil.copy(timed.file, file)
    return file, f"sqlite:///{file}"


def test_the_front_holds_seconds_measured_here(timed: Finished) -> None:
    front = timed.front
    device = device_fingerprint("cpu", 1)
    assert (front.cost_metric, front.cost_unit, front.device) == ("latency", "s", device)
    assert front.settings["cost"] == "latency"
    assert front.settings["measured on"] == device_text(device)
    found = Latencies.from_json(front.settings["latency"])
    assert front.reference_cost == found.full.median > 0
    # All candidates were measured together; the points have those values.
    costs = found.costs()
    for point in front.points:
        assert point.cost == costs[point.kept_counts]
    assert front.settings["latency"]["noise"]["pairs"] == len(front.points) - 1
    family = front.settings["uniform family"]
    (full,) = (entry for entry in family if entry["rate"] == 0)
    assert full["cost"] == front.reference_cost


def test_trials_keep_their_measurement_and_their_macs(timed: Finished) -> None:
    study = stored(timed.file)
    assert study.metric_names == ["seconds per mini-batch", "validation loss gain"]
    reference = study.user_attrs["reference cost (s per mini-batch)"]
    network, _ = prepare_network(timed.settings.source.load(), seed=0)
    macs = MacCost(network.channels)
    assert len(study.trials) == 12
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        attributes = trial.user_attrs
        counts = tuple(attributes["kept channels"].values())
        measured = VectorLatency.from_json(attributes["latency"])
        assert measured.counts == counts
        assert measured.repetitions >= 15
        assert measured.seconds.low <= measured.seconds.median <= measured.seconds.high
        assert trial.values[0] == pytest.approx(measured.ratio.median * reference)
        assert attributes["cost ratio"] == measured.ratio.median
        assert attributes["training MACs"] == macs.training(counts)


def described(trials: list[FrozenTrial]) -> list[tuple[object, ...]]:
    return [(trial.number, trial.values, trial.params, trial.user_attrs) for trial in trials]


def test_a_finished_search_run_again_measures_nothing_and_makes_no_new_front(
    timed: Finished, tmp_path: Path
) -> None:
    file, url = copied(timed, tmp_path)
    seen: list[SearchProgress] = []
    assert search(timed.settings, url, seen.append) == timed.front
    assert "latency" not in {progress.stage for progress in seen}
    assert len(list_fronts(open_database(url))) == 1
    assert described(stored(file).trials) == described(timed.trials())


def test_a_search_goes_on_with_the_measurements_it_has(timed: Finished, tmp_path: Path) -> None:
    file, url = copied(timed, tmp_path)
    front = search(replace(timed.settings, trials=15), url)
    trials = stored(file).trials
    assert described(trials[:12]) == described(timed.trials())
    assert len(trials) == 15
    assert front.version == 2 and front.settings["trials"] == 15
    study = stored(file)
    reference = study.user_attrs["reference cost (s per mini-batch)"]
    for trial in trials[12:]:  # costs of all starts have one reference
        assert trial.values[0] == pytest.approx(trial.user_attrs["cost ratio"] * reference)


def test_workers_get_vectors_that_were_measured_before(source: StudySource, tmp_path: Path) -> None:
    file = tmp_path / "search.db"
    settings = SearchSettings(source, trials=11, cost="latency", workers=2, pilot=False)
    front = search(settings, f"sqlite:///{file}")
    assert front.cost_metric == "latency"
    trials = stored(file).trials
    assert len(trials) == 11
    assert all("latency" in trial.user_attrs for trial in trials)


def test_a_search_by_one_cost_is_not_continued_by_the_other(
    timed: Finished, finished: Finished, tmp_path: Path
) -> None:
    _, url = copied(timed, tmp_path)
    with pytest.raises(InputError, match=r"begun with cost = latency, now it is macs: .*--name"):
        search(replace(timed.settings, cost="macs"), url)
    _, url = copied(finished, tmp_path)
    with pytest.raises(InputError, match=r"begun with cost = macs, now it is latency: .*--name"):
        search(replace(finished.settings, cost="latency"), url)


def test_a_search_is_not_continued_on_another_device(timed: Finished, tmp_path: Path) -> None:
    file, url = copied(timed, tmp_path)
    study = stored(file)
    settings = {**study.user_attrs["settings"], "measured on": "a phone [0123]"}
    study.set_user_attr("settings", settings)
    with pytest.raises(InputError, match=r"begun with measured on = a phone \[0123\], now"):
        search(timed.settings, url)


def test_searches_by_macs_are_described_as_they_always_were(finished: Finished) -> None:
    settings = stored(finished.file).user_attrs["settings"]
    assert "cost" not in settings and "measured on" not in settings
    assert "cost" not in finished.front.settings and finished.front.device == {}


def test_an_unknown_cost_is_refused(source: StudySource, url: str) -> None:
    with pytest.raises(InputError, match="--cost is 'joules': expected macs or latency"):
        search(SearchSettings(source, cost="joules"), url)


def test_a_vector_that_can_not_be_measured_is_a_failed_trial(tmp_path: Path) -> None:
    path = write_study(tmp_path, "tiny", FAILS_WHEN_NARROW)
    file = tmp_path / "search.db"
    settings = SearchSettings(StudySource(str(path)), trials=12, cost="latency", pilot=False)
    front = search(settings, f"sqlite:///{file}")
    trials = stored(file).trials
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(trials) == 12 and failed
    assert all("too narrow" in trial.user_attrs["failure"] for trial in failed)
    assert all(point.kept_counts[0] >= 3 for point in front.points)


def test_a_vector_that_can_not_be_timed_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = write_study(tmp_path, "tiny", FAILS_WHEN_TIMED)
    settings = SearchSettings(StudySource(str(path)), trials=12, cost="latency", pilot=False)
    url = f"sqlite:///{tmp_path}/search.db"
    front = search(settings, url)
    (reason,) = front.settings["failed verification"].values()
    assert "too narrow" in reason
    assert front.points and all(point.kept_counts != (3, 3) for point in front.points)
    assert search(settings, url).points == front.points  # measurements are taken again


def test_tried_vectors_cost_what_they_would_beside_the_front(timed: Finished) -> None:
    tried = tried_vectors(timed.url, timed.front)
    assert len(tried) == 12
    for one, trial in zip(tried, timed.trials(), strict=True):
        share = trial.user_attrs["cost ratio"]
        assert one.cost == pytest.approx(share * timed.front.reference_cost)
    full = next(one for one in tried if one.kept_counts == (6, 8))
    assert full.cost == timed.front.reference_cost


def test_a_repriced_front_of_the_same_name_has_no_trials_of_its_own(
    timed: Finished, finished: Finished
) -> None:
    elsewhere = {**timed.front.settings, "measured on": "another device"}
    others: list[tuple[str, Front]] = [
        (finished.url, timed.front),
        (timed.url, finished.front),
        (timed.url, replace(timed.front, settings=elsewhere)),
    ]
    assert all(tried_vectors(url, front) == [] for url, front in others)
