"""Federated runs from Python."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fl
from command_line import run as command
from distreal_dse import Data, Front, Study, make_fleet
from distreal_dse.cli._federated_options import RunOptions
from distreal_dse.errors import InputError, StudyError
from distreal_dse.fronts import export_front, find_front, open_database
from distreal_dse.study.preparation import prepare
from fl.results import RoundResult
from fl.store.runs import list_runs
from fl.testing import hand_made_front
from tiny_study import study_object, write_study

SMALL = {"rounds": 3, "devices": 6, "cohort": 3, "checkpoint_every": 1, "progress": False}


@pytest.fixture(scope="module")
def tiny() -> Study:
    return study_object()


@pytest.fixture(scope="module")
def table(tiny: Study) -> Front:
    network = prepare(tiny, 0)[0]
    return hand_made_front(network, (2, 3), (4, 5), (6, 8), name="tiny", study="tiny")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "runs.db"


@pytest.fixture(scope="module")
def result(tiny: Study, table: Front, storage: Path) -> fl.FederatedResult:
    return fl.run(tiny, front=table, storage=storage, **SMALL)


def test_a_study_object_gives_the_rounds_of_its_file_on_the_command_line(
    result: fl.FederatedResult, storage: Path, tmp_path: Path
) -> None:
    told = command(
        "fl", "run", str(write_study(tmp_path)), "--front", "tiny", "--rounds", "3",
        "--devices", "6", "--cohort", "3", "--json", "--storage", f"sqlite:///{storage}",
    ).json  # fmt: skip
    ours = [asdict(one) for one in result.run.rounds]
    for one, theirs in zip(ours, told["rounds"], strict=True):
        assert (one["accuracy"], one["loss"]) == (theirs["accuracy"], theirs["loss"])
        assert one["training_macs"] == theirs["training_macs"]


def test_the_network_that_comes_back_has_the_accuracy_that_was_told(
    result: fl.FederatedResult, tiny: Study
) -> None:
    data: Data = tiny.data()
    inputs, targets = data.test.tensors  # type: ignore[attr-defined]
    network = result.network
    assert not network.training and isinstance(network, nn.Sequential)
    with torch.no_grad():
        right = (network(inputs).argmax(1) == targets).float().mean().item()
    assert right == pytest.approx(result.accuracy)
    assert network(inputs).requires_grad  # it can be trained on
    assert sum(one.untyped_storage().nbytes() for one in network.state_dict().values()) < 20_000


def test_rounds_are_a_table_with_or_without_pandas(
    result: fl.FederatedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = result.rounds
    assert list(table["round"]) == [0, 1, 2, 3] and len(result.devices) == 9
    assert "accuracy of weak" in table.columns and "<td>" in table._repr_html_()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert isinstance(result.rounds, pandas.DataFrame)


def test_processes_get_the_object_and_give_the_same_rounds(
    result: fl.FederatedResult, tiny: Study, table: Front, storage: Path
) -> None:
    again = fl.run(tiny, front=table, storage=storage, workers=2, **SMALL)
    assert again.run.rounds == result.run.rounds
    assert again.run.id != result.run.id


class Stopped(Exception):
    pass


@pytest.fixture
def stopped(tiny: Study, table: Front, storage: Path) -> int:
    """Number of a run that stopped after its round 1."""

    def stop(one: RoundResult) -> None:
        if one.round == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fl.run(tiny, front=table, storage=storage, listen=stop, **SMALL)
    engine = open_database(f"sqlite:///{storage}")
    newest = list_runs(engine)[-1].id
    engine.dispose()
    return newest


def test_a_run_goes_on_with_the_same_object_and_with_nothing_else(
    stopped: int, result: fl.FederatedResult, tiny: Study, storage: Path
) -> None:
    with pytest.raises(StudyError, match="expected that object, found its name alone"):
        fl.resume(stopped, storage=storage, progress=False)
    line = command("fl", "resume", str(stopped), "--storage", f"sqlite:///{storage}").error(2)
    assert "given as an object of a Python program" in line
    other = replace(tiny, batch_size=8)
    with pytest.raises(InputError, match="begun with another study"):
        fl.resume(stopped, study=other, storage=storage, progress=False)
    ended = fl.resume(stopped, study=tiny, storage=storage, progress=False)
    assert ended.run.rounds == result.run.rounds
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            ended.network.state_dict().values(), result.network.state_dict().values(), strict=True
        )
    )
    finished = fl.resume(stopped, study=tiny, storage=storage, progress=False)
    with pytest.raises(InputError, match="expected a run that this call trained"):
        _ = finished.network


def test_a_front_that_the_database_lacks_is_stored(
    tiny: Study, table: Front, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    done = fl.run(tiny, front=table, storage=url, **{**SMALL, "rounds": 1})
    assert done.run.front_label == "tiny@1"
    assert find_front(url, "tiny").points == table.points
    # Another one of the same name and version, as from another database, is not taken for it.
    other = replace(table, points=table.points[:2], version=1)
    done = fl.run(tiny, front=other, storage=url, **{**SMALL, "rounds": 1})
    assert done.run.front_label == "tiny@2" and done.run.front_hash == other.content_hash


def test_a_front_may_be_the_path_of_a_file(tiny: Study, table: Front, tmp_path: Path) -> None:
    file = tmp_path / "front.json"
    export_front(table, file)
    settings = {**SMALL, "rounds": 1}
    done = fl.run(tiny, front=file, storage=tmp_path / "runs.db", **settings)
    assert done.run.front_hash == table.content_hash


def test_a_fleet_takes_the_place_of_classes_and_not_both(tiny: Study, storage: Path) -> None:
    fleet = make_fleet("strong=0.5@1,slow=0.5@1/2;pace=2")
    small = {**SMALL, "rounds": 1, "strategy": "fedavg", "storage": storage}
    done = fl.run(tiny, fleet=fleet, **small)
    assert "accuracy of slow" in done.rounds.columns and done.run.settings["pace"] == 2
    with pytest.raises(InputError, match="expected one of them, found both"):
        fl.run(tiny, fleet=fleet, pace=3.0, **small)


def test_python_and_the_command_line_have_the_same_options_and_defaults() -> None:
    python = inspect.signature(fl.run).parameters
    for option in fields(RunOptions):
        assert python[option.name].default == option.default, option.name


CONDITIONS = {"rounds": 2, "devices": 6, "cohort": 3, "progress": False}


def test_a_comparison_of_an_object_goes_on_and_gives_tables(tiny: Study, tmp_path: Path) -> None:
    storage = tmp_path / "runs.db"
    asked = {**CONDITIONS, "storage": storage, "against": "small"}
    first = fl.compare_strategies(tiny, "small,fedavg:lr=0.05", seeds=1, **asked)
    assert [run.strategy for run in first.runs] == ["small", "fedavg:lr=0.05"]
    assert list(first.differences["verdict"]) == ["open"]
    again = fl.compare_strategies(tiny, ["small", "fedavg:lr=0.05"], seeds=2, workers=2, **asked)
    assert again.name == "tiny" and not again.failures
    assert {run.id for run in first.runs} < {run.id for run in again.runs}  # nothing twice
    rows = {row["strategy"]: row for row in again.strategies}
    ours = [run.rounds[-1].accuracy for run in again.runs if run.strategy == "small"]
    assert rows["small"]["final accuracy"] == pytest.approx(sum(ours) / 2)
    assert rows["small"]["low"] <= rows["small"]["settled accuracy"] <= rows["small"]["high"]
    (row,) = again.differences
    found = [row["low"], row["difference"], row["high"]]
    assert row["against"] == "small" and found == sorted(found)
    assert again._repr_html_().count("<table") == 2


def test_learning_rates_of_an_object_are_tuned(tiny: Study, tmp_path: Path) -> None:
    asked = {**CONDITIONS, "storage": tmp_path / "runs.db", "rounds": 1, "against": "fedavg:prox=1"}
    strategies = ["small", "fedavg:prox=1"]
    found = fl.compare_strategies(tiny, strategies, seeds=1, learning_rates="auto", **asked)
    small, fedavg = found.compared.tuned
    assert len(small.tried) >= 3 and found.runs[0].strategy == small.at_best
    (row,) = found.differences  # to the reference at its best rate
    assert (row["strategy"], row["against"]) == (small.at_best, fedavg.at_best)


def test_advice_on_an_object_is_by_validation_data(tiny: Study, tmp_path: Path) -> None:
    asked = {**CONDITIONS, "storage": tmp_path / "runs.db", "rounds": 1}
    found = fl.advise(tiny, "small,fedavg", seeds=2, learning_rates=[0.05, 0.5, 5.0], **asked)
    assert found.name == "tiny advice" and "Take" in found.sentences()
    assert {run.settings["evaluate_on"] for run in found.compared.runs} == {"validation"}


def test_a_run_that_fails_is_warned_of_and_the_others_are_there(
    tiny: Study, tmp_path: Path
) -> None:
    calls = iter(range(10_000))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if next(calls) == 0:
            raise ValueError("not today")
        return nn.functional.cross_entropy(outputs, targets)

    asked = {**CONDITIONS, "storage": tmp_path / "runs.db", "rounds": 1, "seeds": 1}
    with pytest.warns(fl.RunFailedWarning, match="run of small, seed 0: ValueError: not today"):
        found = fl.compare_strategies(replace(tiny, loss=loss), "small,fedavg", **asked)
    assert [run.strategy for run in found.runs] == ["fedavg"]
    assert [one.strategy for one in found.failures] == ["small"]


def test_what_a_comparison_can_not_use_is_refused_before_training(
    tiny: Study, tmp_path: Path
) -> None:
    storage = tmp_path / "runs.db"
    for changes, error, words in (
        ({"seeds": 0}, InputError, "--seeds: expected at least 1"),
        ({"target": 2.0}, InputError, "--target"),
        ({"against": "heterofl"}, InputError, "--against 'heterofl'"),
        ({"learning_rates": "best"}, InputError, "--learning-rates"),
        ({"schedules": ["cosine"]}, InputError, "expected --learning-rates beside it"),
        ({"round": 3}, TypeError, "round.*rounds"),
    ):
        with pytest.raises(error, match=words):
            fl.compare_strategies(tiny, "small", storage=storage, **changes)
    with pytest.raises(InputError, match="expected one or more, found none"):
        fl.compare_strategies(tiny, [], storage=storage, learning_rates="auto")
    with pytest.raises(InputError, match="expected at least 2"):
        fl.advise(tiny, storage=storage, seeds=1)
    assert not storage.exists() or not list_runs(open_database(f"sqlite:///{storage}"))


def test_conditions_of_a_comparison_are_arguments_of_a_run() -> None:
    from fl.api import Conditions

    python = inspect.signature(fl.run).parameters
    assert {option.name for option in fields(RunOptions)} == set(Conditions.__annotations__)
    assert set(Conditions.__annotations__) <= set(python)
    for name, annotation in Conditions.__annotations__.items():
        assert python[name].annotation in str(annotation), name
