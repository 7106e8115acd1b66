"""Tables that are fitted to a fleet, by real short runs of a tiny study."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from command_line import run
from dashboards.notes import study_note
from distreal_dse.budgets import Budgets
from distreal_dse.convergence import TableRuns
from distreal_dse.cost import MacCost
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    TABLE,
    Front,
    LookupTable,
    load_front,
    measured_vectors,
    open_database,
    verdict_of,
)
from distreal_dse.search import SearchProgress, SearchSettings, search, stored_search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import HARMS_ALWAYS, write_study

FLEET = Budgets("half of it weak", (0.15, 1.0), (0.5, 0.5))
SHORT = "study = replace(study, short_run=replace(study.short_run, table_mini_batches=4))\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> StudySource:
    file = write_study(tmp_path_factory.mktemp("fleet"))
    file.write_text(file.read_text() + SHORT)
    return StudySource(str(file))


@pytest.fixture(scope="module")
def fitted(tiny: StudySource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front]:
    file = tmp_path_factory.mktemp("fitted") / "search.db"
    settings = SearchSettings(tiny, trials=4, fleet=FLEET, sampler="random")
    return file, search(settings, f"sqlite:///{file}")


def settings_of(source: StudySource, trials: int, fleet: Budgets = FLEET) -> SearchSettings:
    return SearchSettings(source, trials=trials, fleet=fleet, sampler="random")


def test_a_front_holds_the_table_that_devices_look_up(fitted: tuple[Path, Front]) -> None:
    file, front = fitted
    table = front.settings[TABLE]
    assert len(table["vectors"]) > len(front.points)
    lookup = LookupTable(load_front(open_database(f"sqlite:///{file}"), front.label))
    assert lookup.pick(front.reference_cost).kept_counts == (6, 8)
    for vector in lookup.vectors:
        assert vector.cost <= front.reference_cost
    assert {point.kept_counts for point in front.points if not point.uniform} <= {
        vector.kept_counts for vector in lookup.vectors
    }


def test_costs_of_the_table_are_exact(tiny: StudySource, fitted: tuple[Path, Front]) -> None:
    network, _ = prepare(tiny.load(), 0)
    macs = MacCost(network.channels)
    for vector in LookupTable(fitted[1]).vectors:
        assert vector.cost == macs.training(vector.kept_counts)


def test_every_curve_is_a_trial_with_its_gain_over_one_rate(fitted: tuple[Path, Front]) -> None:
    file, front = fitted
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{file}")
    trials = study.get_trials()
    assert len(trials) == 4 == front.settings["trials"]
    first, *rest = trials
    assert set(first.params.values()) == {1.0} and first.values == [0.0]  # one rate, against itself
    for trial in rest:
        gains = trial.user_attrs["gains"]
        assert trial.values == [pytest.approx(sum(gains) / len(gains))]
    found = stored_search(study)
    assert found is not None and found.fleet == FLEET.fleet and found.curves == 4
    note = study_note(found, front)
    assert "tables for the fleet" in note and "4 trials" in note


def test_what_is_claimed_of_the_table_is_paired(fitted: tuple[Path, Front]) -> None:
    table = fitted[1].settings[TABLE]
    low, high = table["interval"]
    assert low <= table["gain"] <= high and len(table["gains"]) == 2
    # With two replicates of four mini-batches nothing is certain: it is one rate's table.
    assert (low > 0) == (len(set(table["elasticities"])) > 1)
    assert table["unused"] < 0.25
    assert verdict_of(fitted[1]) is not None and measured_vectors(fitted[1])


def test_a_fit_that_was_stopped_goes_on_to_the_same_front(
    tiny: StudySource, fitted: tuple[Path, Front], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/search.db"

    def stop(progress: SearchProgress) -> None:
        if progress.stage == "fit" and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(settings_of(tiny, 3), url, stop)
    runs: list[int] = []
    front = search(settings_of(tiny, 3), url, lambda progress: runs.append(progress.done))
    whole = search(settings_of(tiny, 3), f"sqlite:///{tmp_path}/whole.db")
    assert front.content_hash == replace(whole, created_at=front.created_at).content_hash


def test_a_finished_fit_trains_nothing_again(
    tiny: StudySource, fitted: tuple[Path, Front], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, front = fitted
    shutil.copy(file, tmp_path / "copy.db")

    def refuse(*arguments: object) -> None:
        raise AssertionError("a short run that is in the ledger was done again")

    monkeypatch.setattr(TableRuns, "run", refuse)
    again = search(settings_of(tiny, 4), f"sqlite:///{tmp_path}/copy.db")
    assert again.label == front.label


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        (
            Budgets("tiny", (0.001, 1.0), (0.5, 0.5)),
            "fleet 'tiny' has budgets of 0.100%",
        ),
        (Budgets("another", (0.5,), (1.0,)), "search 'tiny' was begun with fleet = "),
    ],
)
def test_fleets_that_can_t_be_are_refused(
    tiny: StudySource, fitted: tuple[Path, Front], tmp_path: Path, fleet: Budgets, said: str
) -> None:
    file, front = fitted
    shutil.copy(file, tmp_path / "copy.db")
    url = f"sqlite:///{tmp_path}/{'copy' if fleet.fleet == 'another' else 'new'}.db"
    with pytest.raises(InputError) as raised:
        search(settings_of(tiny, 4, fleet), url)
    assert said in str(raised.value)


def test_seconds_are_refused_with_a_fleet(tiny: StudySource, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected macs with --fleet"):
        search(replace(settings_of(tiny, 4), cost="latency"), f"sqlite:///{tmp_path}/search.db")


def test_where_no_vector_gains_by_itself_any_more_the_table_is_a_front_all_the_same(
    tmp_path: Path,
) -> None:
    file = write_study(tmp_path)
    longer = "study = replace(study, short_run=replace(study.short_run, mini_batches=20))\n"
    file.write_text(file.read_text() + SHORT + HARMS_ALWAYS + longer)
    url = f"sqlite:///{tmp_path / 'search.db'}"
    front = search(settings_of(StudySource(str(file)), trials=3), url)
    assert front.points and all(point.harms for point in front.points)
    found = run("lookup", front.label, "--budget", "100%", "--storage", url)
    assert found.code == 0, found.stderr
    shown = run("front", "show", front.label, "--storage", url)
    for one in (found, shown):
        said = " ".join(one.stderr.split())
        assert "judged as a whole" in said and "search again" not in said
