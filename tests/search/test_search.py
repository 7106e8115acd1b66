from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, event

from distreal_dse.convergence import ShortRuns
from distreal_dse.cost import MacCost
from distreal_dse.errors import DistrealError, InputError
from distreal_dse.fronts import list_fronts, load_verifications, open_database
from distreal_dse.search import SAMPLERS, SearchProgress, SearchSettings, search, tried_vectors
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import DIVERGES_ALWAYS, DIVERGES_WHEN_NARROW, Finished, write_study

ATTRIBUTES = {
    "kept channels", "cost ratio", "standard error", "accuracy", "loss gains", "accuracies",
    "seconds",
}  # fmt: skip


def trials_in(url: str, name: str = "tiny") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).get_trials()


def described(trial: FrozenTrial) -> tuple[object, ...]:
    return (
        trial.number,
        trial.state,
        trial.values,
        trial.params,
        trial.user_attrs,
        trial.system_attrs,
    )


def copied(finished: Finished, folder: Path) -> tuple[Path, str]:
    """A copy of the finished search, to be changed."""
    file = folder / "copy.db"
    shutil.copy(finished.file, file)
    return file, f"sqlite:///{file}"


def test_the_uniform_rates_come_first(finished: Finished) -> None:
    first, rest = finished.trials()[:9], finished.trials()[9:]
    for number, trial in enumerate(first):
        assert trial.params["keep 0"] == pytest.approx(0.15 ** (number / 8))
        assert trial.params["keep 4"] == trial.params["keep 0"]
    assert list(first[0].user_attrs["kept channels"].values()) == [6, 8]
    assert all(trial.params["keep 0"] != trial.params["keep 4"] for trial in rest)


def test_every_trial_can_be_read_by_plain_optuna(finished: Finished) -> None:
    study = optuna.load_study(study_name="tiny", storage=finished.url)
    assert study.directions == [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    assert study.metric_names == ["training MACs", "validation loss gain"]
    assert len(study.trials) == 20
    source = finished.settings.source
    network, _ = prepare(source.load(), seed=0)
    cost = MacCost(network.channels)
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        attributes = trial.user_attrs
        assert attributes.keys() == ATTRIBUTES
        macs, gain = trial.values
        counts = tuple(attributes["kept channels"].values())
        assert attributes["kept channels"].keys() == {"0", "4"}
        assert macs == cost.training(counts)
        assert attributes["cost ratio"] == pytest.approx(macs / cost.full)
        gains = attributes["loss gains"]
        assert 1 <= len(gains) == len(attributes["accuracies"]) <= 2
        if len(gains) == 2:
            one, other = gains
            assert gain == pytest.approx((one + other) / 2)
            # Of two values, the standard error is half of their distance.
            assert attributes["standard error"] == pytest.approx(abs(one - other) / 2)
        else:
            assert attributes["standard error"] > 0  # by the noise of all vectors
        assert attributes["accuracy"] == pytest.approx(fmean(attributes["accuracies"]))
        # Shares within half a channel of what is kept.
        for name, width in (("0", 6), ("4", 8)):
            kept = max(1.0, width * trial.params[f"keep {name}"])
            assert abs(attributes["kept channels"][name] - kept) <= 0.5


def test_the_values_of_a_trial_are_those_of_its_short_runs(finished: Finished) -> None:
    study = finished.settings.source.load()
    network, data = prepare(study, seed=0)
    runs = ShortRuns(study, data, network, seed=0)
    for trial in finished.trials()[::5]:
        counts = tuple(trial.user_attrs["kept channels"].values())
        gains = trial.user_attrs["loss gains"]
        replicates = range(len(gains))
        assert gains == [runs.run(counts, "search", number).loss_gain for number in replicates]


def test_the_same_seed_finds_the_same_front_twice(finished: Finished, url: str) -> None:
    again = search(finished.settings, url)
    assert again.points == finished.front.points
    assert [trial.values for trial in trials_in(url)] == [t.values for t in finished.trials()]


def test_another_seed_finds_other_values(finished: Finished, url: str) -> None:
    other = search(replace(finished.settings, seed=1, trials=10), url)
    assert trials_in(url)[0].values != finished.trials()[0].values
    assert trials_in(url)[9].params != finished.trials()[9].params
    assert other.points != finished.front.points


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_vectors_of_its_own(
    sampler: str, source: StudySource, url: str
) -> None:
    front = search(SearchSettings(source, trials=22, sampler=sampler), url)  # beyond their start
    stored = trials_in(url)
    assert len(stored) == 22
    proposed = [tuple(sorted(trial.params.items())) for trial in stored[9:]]
    assert len(set(proposed)) == len(proposed)
    assert front.points and front.settings["sampler"] == sampler


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_ten_trials_are_drawn_at_random_beside_the_uniform_ones(
    sampler: str, source: StudySource, url: str
) -> None:
    """They are those that a random search of the same seed draws; what a model proposes is not."""
    proposed = {}
    for name in (sampler, "random"):
        search(SearchSettings(source, name=name, trials=9 + 10 + 2, sampler=name), url)
        proposed[name] = [trial.params for trial in trials_in(url, name)[9:]]
    same = [own == drawn for own, drawn in zip(*proposed.values(), strict=True)]
    assert same == [True] * 10 + [False] * 2


def test_an_unknown_sampler_is_refused_with_the_choices(source: StudySource, url: str) -> None:
    with pytest.raises(InputError, match=r"'cmaes'.*cost-aware, gp, nsga2, random, tpe"):
        search(SearchSettings(source, sampler="cmaes"), url)


def test_a_continued_search_keeps_its_first_trials_and_adds_the_rest(
    source: StudySource, url: str
) -> None:
    search(SearchSettings(source, trials=12), url)
    first = [described(trial) for trial in trials_in(url)]
    assert len(first) == 12
    front = search(SearchSettings(source, trials=20), url)
    stored = trials_in(url)
    assert [described(trial) for trial in stored[:12]] == first
    assert [trial.number for trial in stored] == list(range(20))
    assert all(trial.state == TrialState.COMPLETE for trial in stored)
    assert len({tuple(t.params.values()) for t in stored}) == 20  # nothing is drawn twice
    assert front.settings["trials"] == 20


def test_a_search_that_stopped_among_the_uniform_rates_does_the_rest_of_them(
    source: StudySource, url: str
) -> None:
    search(SearchSettings(source, trials=4), url)
    search(SearchSettings(source, trials=11), url)
    shares = [trial.params["keep 0"] for trial in trials_in(url)[:9]]
    assert shares == pytest.approx([0.15 ** (step / 8) for step in range(9)])


def test_a_finished_search_run_again_adds_neither_trials_nor_a_front(
    finished: Finished, tmp_path: Path
) -> None:
    _, url = copied(finished, tmp_path)
    front = search(finished.settings, url)
    fewer = search(replace(finished.settings, trials=5), url)
    assert front == fewer == finished.front
    assert [described(t) for t in trials_in(url)] == [described(t) for t in finished.trials()]
    assert [front.label for front in list_fronts(open_database(url))] == ["tiny@1"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed = 0, now it is 1"),
        ({"masks": "core"}, "masks = random, now it is core:core=0.5"),
        ({"granularity": 2}, "granularity = 1, now it is 2"),
    ],
)
def test_other_settings_under_the_same_name_are_refused(
    finished: Finished, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    _, url = copied(finished, tmp_path)
    with pytest.raises(InputError, match=named):
        search(changed(replace(finished.settings, trials=21), **change), url)
    assert len(trials_in(url)) == 20


def changed(settings: SearchSettings, **change: Any) -> SearchSettings:
    """Settings with another seed, or of a study with other masks or another granularity."""
    if "seed" in change:
        return replace(settings, **change)
    return replace(settings, source=replace(settings.source, changes=tuple(change.items())))


def test_another_sampler_may_continue_a_search(finished: Finished, tmp_path: Path) -> None:
    _, url = copied(finished, tmp_path)
    search(replace(finished.settings, trials=21, sampler="random"), url)
    stored = [described(trial) for trial in trials_in(url)]
    assert stored[:20] == [described(trial) for trial in finished.trials()] and len(stored) == 21


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        "\nstudy = replace(study, loss=lambda y, t: 5 * nn.functional.cross_entropy(y, t))\n",
        "\nstudy = replace(study, data=lambda: Data(*[data().test] * 3))\n",
    ],
)
def test_a_study_that_was_changed_is_refused_under_the_same_name(
    finished: Finished, tmp_path: Path, change: str, workers: int
) -> None:
    _, url = copied(finished, tmp_path)
    changed = StudySource(str(write_study(tmp_path, change=change)))
    with pytest.raises(InputError, match="begun from a snapshot with validation loss"):
        search(SearchSettings(changed, trials=20, workers=workers), url)
    assert len(trials_in(url)) == 20


def test_another_length_of_the_short_run_under_the_same_name_is_refused(
    finished: Finished, tmp_path: Path
) -> None:
    _, url = copied(finished, tmp_path)
    change = "\nstudy = replace(study, short_run=replace(study.short_run, mini_batches=4))\n"
    changed = StudySource(str(write_study(tmp_path, change=change)))
    with pytest.raises(InputError, match="short run"):
        search(SearchSettings(changed, trials=21), url)


def test_the_front_says_which_masks_and_granularity_it_is_for(finished: Finished) -> None:
    assert finished.front.settings["masks"] == "random"
    assert finished.front.settings["granularity"] == 1


def test_a_search_stored_before_masks_granularity_and_clipping_were_goes_on(
    finished: Finished, tmp_path: Path
) -> None:
    _, url = copied(finished, tmp_path)
    study = optuna.load_study(study_name="tiny", storage=url)
    new = study.user_attrs["settings"]
    old = {key: new[key] for key in new if key not in ("masks", "granularity", "clip norm")}
    study.set_user_attr("settings", old)
    key = "tiny/" + hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:12]
    assert load_verifications(open_database(url), key, 0)  # as stored under the old settings

    verified: list[int] = []

    def listen(progress: SearchProgress) -> None:
        if progress.stage == "verification":
            verified.append(progress.total - progress.done)

    assert search(finished.settings, url, listen).points == finished.front.points
    assert verified == [0]  # nothing was left to do
    search(replace(finished.settings, trials=21), url)
    assert len(trials_in(url)) == 21
    assert tried_vectors(url, finished.front)
    with pytest.raises(InputError, match="masks = random, now it is ordered"):
        search(changed(finished.settings, masks="ordered"), url)


def test_other_masks_give_other_values_and_worker_processes_use_them_too(
    finished: Finished, url: str
) -> None:
    own = changed(replace(finished.settings, trials=5), masks="blocks:redraw=round,core=0.25")
    front = search(own, url)
    assert front.settings["masks"] == "blocks:blocks=4,core=0.25,redraw=round"
    gains = [trial.values[1] for trial in trials_in(url)]
    assert all(
        one != other.values[1] for one, other in zip(gains[1:], finished.trials()[1:5], strict=True)
    )
    again = search(replace(own, workers=2, name="again"), url)
    # Two workers may begin two trials in either order.
    assert [replace(p, trial=0) for p in again.points] == [
        replace(p, trial=0) for p in front.points
    ]


def test_all_vectors_keep_multiples_of_the_granularity_or_all(finished: Finished, url: str) -> None:
    front = search(changed(replace(finished.settings, sampler="random"), granularity=3), url)
    kept = {tuple(trial.user_attrs["kept channels"].values()) for trial in trials_in(url)}
    assert len(kept) > 4
    assert kept <= {(first, second) for first in (3, 6) for second in (3, 6, 8)}
    assert front.settings["granularity"] == 3
    family = {entry["rate"] for entry in front.settings["uniform family"]}
    assert None not in family and 0.0 in family
    assert len(family) == 4  # (6, 8), (6, 6), (3, 6) and (3, 3), dominated or not
    # The rate 0.2125, one of the family, keeps these; no rate would, were any count allowed.
    assert next(one.uniform for one in tried_vectors(url, front) if one.kept_counts == (6, 6))


def test_a_granularity_that_leaves_nothing_to_drop_is_refused(finished: Finished, url: str) -> None:
    with pytest.raises(InputError, match="granularity of study tiny is 8: .* the 8 channels"):
        search(changed(finished.settings, granularity=8), url)


@pytest.mark.parametrize("masks", ["blokcs", "blocks:4"])
def test_masks_that_there_are_none_of_are_refused_before_anything_is_trained(
    finished: Finished, url: str, masks: str
) -> None:
    heard: list[SearchProgress] = []
    with pytest.raises(InputError, match=f"mask policy '{masks}'"):
        search(changed(finished.settings, masks=masks), url, heard.append)
    assert heard == []


def test_other_settings_under_another_name_share_the_database(
    finished: Finished, tmp_path: Path
) -> None:
    _, url = copied(finished, tmp_path)
    front = search(replace(finished.settings, trials=3, seed=1, name="second"), url)
    assert front.label == "second@1"
    assert len(trials_in(url, "second")) == 3
    assert len(trials_in(url, "tiny")) == 20


def test_a_foreign_optuna_study_of_the_same_name_is_refused(source: StudySource, url: str) -> None:
    open_database(url).dispose()
    foreign = optuna.create_study(study_name="tiny", storage=url)
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    before = [described(trial) for trial in trials_in(url)]
    with pytest.raises(InputError, match="'tiny'.*--name"):
        search(SearchSettings(source, trials=2), url)
    assert [described(trial) for trial in trials_in(url)] == before


def test_a_foreign_optuna_study_without_trials_is_refused_too(
    source: StudySource, url: str
) -> None:
    open_database(url).dispose()
    optuna.create_study(study_name="tiny", storage=url)
    with pytest.raises(InputError, match="'tiny'.*--name"):
        search(SearchSettings(source, trials=2), url)


def test_a_study_whose_name_no_front_can_have_needs_no_other_name(tmp_path: Path, url: str) -> None:
    named = write_study(tmp_path, "tiny", "\nstudy = replace(study, name='My study')\n")
    front = search(SearchSettings(StudySource(str(named)), trials=9), url)
    assert (front.label, front.study) == ("My-study@1", "My study")


@pytest.mark.parametrize("name", ["two words", "a/b", "front.json"])
def test_a_name_that_no_front_can_have_is_refused_before_anything_is_trained(
    source: StudySource, url: str, name: str
) -> None:
    heard: list[SearchProgress] = []
    with pytest.raises(InputError, match=name):
        search(SearchSettings(source, trials=2, name=name), url, heard.append)
    assert heard == []


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_is_used_or_refused_before_anything_is_trained(
    source: StudySource, url: str, seed: int
) -> None:
    heard: list[SearchProgress] = []
    try:
        front = search(SearchSettings(source, trials=2, seed=seed), url, heard.append)
        assert front.settings["seed"] == seed
    except InputError:
        assert heard == []


def test_vectors_that_keep_the_same_channels_are_not_trained_twice(
    source: StudySource, url: str
) -> None:
    search(SearchSettings(source, trials=40, sampler="random"), url)
    first: dict[tuple[int, ...], FrozenTrial] = {}
    repeated = 0
    for trial in trials_in(url):
        counts = tuple(trial.user_attrs["kept channels"].values())
        earlier = first.setdefault(counts, trial)
        if earlier is trial:
            assert trial.user_attrs["seconds"] > 0
            continue
        repeated += 1
        assert trial.user_attrs["seconds"] == 0
        assert trial.values == earlier.values
        assert trial.user_attrs["loss gains"] == earlier.user_attrs["loss gains"]
    assert repeated >= 3


def test_a_diverging_vector_is_a_failed_trial_and_the_search_goes_on(
    tmp_path: Path, url: str
) -> None:
    source = StudySource(str(write_study(tmp_path, change=DIVERGES_WHEN_NARROW)))
    heard: list[SearchProgress] = []
    front = search(SearchSettings(source, trials=20), url, heard.append)
    stored = trials_in(url)
    assert len(stored) == 20
    failed = [trial for trial in stored if trial.state == TrialState.FAIL]
    complete = [trial for trial in stored if trial.state == TrialState.COMPLETE]
    assert failed and complete and len(failed) + len(complete) == 20
    for trial in stored:
        narrow = round(6 * trial.params["keep 0"]) < 3
        assert (trial.state == TrialState.FAIL) == narrow
    for trial in failed:
        assert "loss is nan" in trial.user_attrs["failure"]
    assert [one for one in heard if one.stage == "search"][-1].failed == len(failed)
    assert all(point.kept_counts[0] >= 3 for point in front.points)
    assert {point.trial for point in front.points} - {None} <= {t.number for t in complete}


def test_a_continued_search_counts_its_failed_trials(tmp_path: Path, url: str) -> None:
    source = StudySource(str(write_study(tmp_path, change=DIVERGES_WHEN_NARROW)))
    search(SearchSettings(source, trials=10), url)
    before = [described(trial) for trial in trials_in(url)]
    search(SearchSettings(source, trials=14), url)
    stored = [described(trial) for trial in trials_in(url)]
    assert len(stored) == 14
    assert stored[:10] == before


RAISES_WHEN_NARROW = """
def refuse(layer, inputs, outputs):
    if outputs.shape[1] < 3:
        raise ValueError("too narrow for me")


def refusing():
    network = model()
    network[0].register_forward_hook(refuse)
    return network


study = replace(study, model=refusing, short_run=replace(study.short_run, warm_up=0))
"""


def test_a_vector_whose_training_raises_is_a_failed_trial_too(tmp_path: Path, url: str) -> None:
    source = StudySource(str(write_study(tmp_path, change=RAISES_WHEN_NARROW)))
    front = search(SearchSettings(source, trials=10), url)
    failed = [trial for trial in trials_in(url) if trial.state == TrialState.FAIL]
    assert failed
    assert all("too narrow for me" in trial.user_attrs["failure"] for trial in failed)
    assert all(point.kept_counts[0] >= 3 for point in front.points)


def test_a_search_in_which_everything_diverges_says_why(tmp_path: Path, url: str) -> None:
    source = StudySource(str(write_study(tmp_path, change=DIVERGES_ALWAYS)))
    with pytest.raises(DistrealError, match="all 3 trials failed.*diverged") as caught:
        search(SearchSettings(source, trials=3), url)
    assert caught.value.exit_code == 1
    assert [trial.state for trial in trials_in(url)] == [TrialState.FAIL] * 3
    assert list_fronts(open_database(url)) == []


def test_the_timeout_stops_the_search_and_its_trials_make_a_front(
    source: StudySource, url: str
) -> None:
    started = time.monotonic()
    settings = SearchSettings(source, trials=100_000, timeout=0.5, sampler="random")
    front = search(settings, url)
    assert time.monotonic() - started < 10
    stored = trials_in(url)
    assert 1 <= len(stored) < 1000
    assert front.settings["trials"] == len(stored)


def test_a_timeout_too_short_for_one_trial_says_so(source: StudySource, url: str) -> None:
    with pytest.raises(DistrealError, match="--timeout"):
        search(SearchSettings(source, trials=3, timeout=1e-9), url)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 0}, "--trials is 0: expected 1 or more"),
        ({"workers": 0}, "--workers is 0: expected 1 or more"),
        ({"timeout": 0.0}, "--timeout is 0"),
        ({"timeout": -1.0}, "--timeout is -1"),
        ({"timeout": math.nan}, "--timeout is nan"),
    ],
)
def test_settings_out_of_range_are_refused(
    source: StudySource, url: str, wrong: dict[str, object], message: str
) -> None:
    settings = replace(SearchSettings(source), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        search(settings, url)


def test_the_listener_hears_of_every_trial_when_it_is_stored(source: StudySource, url: str) -> None:
    stored: list[int] = []

    def listen(progress: SearchProgress) -> None:
        if progress.stage == "search":
            stored.append(len(trials_in(url)))
            assert progress.done == stored[-1]
            assert progress.total == 5

    search(SearchSettings(source, trials=5), url, listen)
    assert stored == [0, 1, 2, 3, 4, 5]


def test_the_settings_are_stored_with_the_optuna_study(finished: Finished) -> None:
    attributes = optuna.load_study(study_name="tiny", storage=finished.url).user_attrs
    assert attributes["settings"]["seed"] == 0
    assert attributes["settings"]["short run"]["mini_batches"] == 3
    assert attributes["channel groups"] == {"0": 6, "4": 8}
    json.dumps(attributes)


def test_the_database_of_a_finished_search_is_not_left_locked(finished: Finished) -> None:
    connection = sqlite3.connect(finished.file, timeout=0)
    connection.execute("BEGIN EXCLUSIVE")
    connection.rollback()
    connection.close()


@pytest.fixture
def connections() -> Iterator[set[object]]:
    """The connections to databases that are open."""
    found: set[object] = set()
    opened, closed = lambda one, _: found.add(one), lambda one, _: found.discard(one)
    event.listen(Engine, "connect", opened)
    event.listen(Engine, "close", closed)
    yield found
    event.remove(Engine, "connect", opened)
    event.remove(Engine, "close", closed)


def test_a_search_leaves_its_caller_the_threads_and_no_connection(
    source: StudySource, url: str, two_threads: None, connections: set[object]
) -> None:
    search(SearchSettings(source, trials=2), url)
    assert torch.get_num_threads() == 2
    assert connections == set()


def test_a_search_that_fails_leaves_its_caller_the_threads_and_no_connection(
    tmp_path: Path, url: str, two_threads: None, connections: set[object]
) -> None:
    source = StudySource(str(write_study(tmp_path, change=DIVERGES_ALWAYS)))
    with pytest.raises(DistrealError):
        search(SearchSettings(source, trials=2), url)
    assert torch.get_num_threads() == 2
    assert connections == set()


def test_a_search_of_an_earlier_version_goes_on_under_the_parameters_of_today(
    source: StudySource, url: str
) -> None:
    """Its trials have a common level and offsets, and a standard error each."""
    search(SearchSettings(source, trials=11, pilot=False), url)
    old = {
        "level": FloatDistribution(0.0, 0.85),
        "offset 0": FloatDistribution(-0.4, 0.4),
        "offset 4": FloatDistribution(-0.4, 0.4),
    }
    own = optuna.load_study(study_name="tiny", storage=url)
    of_today = own.get_trials()
    attributes = own.user_attrs
    optuna.delete_study(study_name="tiny", storage=url)
    study = optuna.create_study(study_name="tiny", storage=url, directions=["minimize", "maximize"])
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    for trial in of_today:
        first, second = (1 - trial.params[f"keep {name}"] for name in ("0", "4"))
        level = min((first + second) / 2, 0.85)
        params = {"level": level, "offset 0": first - level, "offset 4": second - level}
        study.add_trial(
            optuna.create_trial(
                params=params, distributions=old, values=trial.values, user_attrs=trial.user_attrs
            )
        )
    front = search(SearchSettings(source, trials=22, pilot=False), url)
    stored = trials_in(url)
    assert len(stored) == 22 and front.settings["trials"] == 22
    assert all("level" in trial.params for trial in stored[:11])
    assert all(trial.params.keys() == {"keep 0", "keep 4"} for trial in stored[11:])
    # The full network is not tried again, and old trials are read as they were.
    kept = [tuple(trial.user_attrs["kept channels"].values()) for trial in stored]
    assert kept.count((6, 8)) == 1
    assert [one.kept_counts for one in tried_vectors(url, front)] == kept


def test_a_search_ends_after_so_many_short_runs(source: StudySource, url: str) -> None:
    search(SearchSettings(source, trials=500, runs=30, pilot=False), url)
    runs: dict[tuple[int, ...], int] = {}
    for trial in trials_in(url):
        counts = tuple(trial.user_attrs["kept channels"].values())
        runs[counts] = len(trial.user_attrs["loss gains"])
    assert sum(runs.values()) == 30
    with pytest.raises(InputError, match="--runs is 0"):
        search(SearchSettings(source, runs=0), url)


def test_trials_that_are_clearly_worse_have_one_short_run(tmp_path: Path, url: str) -> None:
    four = "\nstudy = replace(study, short_run=replace(study.short_run, replicates=4))\n"
    source = StudySource(str(write_study(tmp_path, change=four)))
    search(SearchSettings(source, trials=40, pilot=False), url)
    lengths = [len(trial.user_attrs["loss gains"]) for trial in trials_in(url)]
    assert lengths[:9] == [4] * 9  # one rate, which the luck of a replicate is read off
    assert 1 in lengths and set(lengths) <= {1, 2, 3, 4}


def test_a_search_that_was_killed_in_a_race_draws_the_same(source: StudySource, url: str) -> None:
    """With one worker, what is stopped and gone on with ends where an undisturbed search does."""
    whole = search(SearchSettings(source, trials=24, pilot=False), url)
    expected = [(trial.params, trial.values) for trial in trials_in(url)]
    parts = SearchSettings(source, trials=24, name="parts", pilot=False)

    class Stopped(Exception):
        pass

    for stop in (5, 14, 21):

        def listen(progress: SearchProgress, stop: int = stop) -> None:
            if progress.stage == "search" and progress.done == stop:
                raise Stopped

        with pytest.raises(Stopped):
            search(parts, url, listen)
    front = search(parts, url)
    assert [(trial.params, trial.values) for trial in trials_in(url, "parts")] == expected
    assert front.points == whole.points
