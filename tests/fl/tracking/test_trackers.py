"""Figures of runs that real trackers hear of while they go, read again with their own readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fl
from distreal_dse import Study
from distreal_dse.errors import InputError
from distreal_dse.fronts import open_database
from fl.results import RoundResult
from fl.store.runs import Run, list_runs
from fl.tracking import TrackingWarning, make_trackers, tracker_names
from fl.tracking.tensor_board import TensorBoard
from tiny_study import study_object

SMALL: dict[str, Any] = {
    "rounds": 3, "devices": 6, "cohort": 3, "checkpoint_every": 1, "strategy": "fedavg",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> Study:
    return study_object()


class Stopped(Exception):
    pass


def begun_and_gone_on(tiny: Study, storage: Path, track: str) -> Run:
    """Train with a tracker, stop when round 2 is done, go on, and return the run."""

    def stop(one: RoundResult) -> None:
        if one.round == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fl.run(tiny, storage=storage, track=track, listen=stop, **SMALL)
    engine = open_database(f"sqlite:///{storage}")
    (run,) = list_runs(engine)
    engine.dispose()
    return fl.resume(run.id, study=tiny, storage=storage, track=track, progress=False).run


def test_tensorboard_shows_a_run_that_was_stopped_as_one(tiny: Study, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    run = begun_and_gone_on(tiny, tmp_path / "runs.db", f"tensorboard:{tmp_path / 'events'}")
    (folder,) = (tmp_path / "events").iterdir()
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    found = [(one.step, one.value) for one in events.Scalars("accuracy")]
    assert found == [(one.round, pytest.approx(one.accuracy)) for one in run.rounds]


def test_runs_of_two_databases_have_folders_of_their_own(tiny: Study, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    for name in ("one.db", "other.db"):
        done = fl.run(
            tiny, storage=tmp_path / name, track=f"tensorboard:{tmp_path / 'events'}",
            progress=False, **{**SMALL, "rounds": 1},
        )  # fmt: skip
        assert done.run.id == 1
    assert len(list((tmp_path / "events").iterdir())) == 2


def test_mlflow_has_settings_and_each_round_once(tiny: Study, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = begun_and_gone_on(tiny, tmp_path / "runs.db", f"mlflow:{store}")
    client = tracking.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("tiny")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["strategy"] == "fedavg" and kept.data.params["cohort"] == "3"
    history = client.get_metric_history(kept.info.run_id, "accuracy")
    found = sorted((one.step, one.value) for one in history)
    assert found == [(one.round, pytest.approx(one.accuracy)) for one in run.rounds]


def test_wandb_has_a_run_of_its_own_for_each_of_a_comparison(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    fl.compare_strategies(
        tiny, "fedavg,small", seeds=1, rounds=2, devices=6, cohort=3,
        storage=tmp_path / "runs.db", track="wandb:tried", progress=False,
    )  # fmt: skip
    kept = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(kept) == 2
    for strategy in (b"fedavg", b"small"):
        assert any(strategy in file.read_bytes() for file in kept)
    assert all(b"accuracy of weak" in file.read_bytes() for file in kept)


def test_a_tracker_that_fails_is_warned_of_once_and_training_goes_on(
    tiny: Study, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "events").write_text("no folder")
    with pytest.warns(TrackingWarning) as warned:
        done = fl.run(
            tiny, storage=tmp_path / "runs.db", track=f"tensorboard:{tmp_path / 'events'}",
            progress=False, **SMALL,
        )  # fmt: skip
    assert len([one for one in warned if one.category is TrackingWarning]) == 1
    assert len(done.run.rounds) == 4 and done.run.finished


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensorbord:x", "tensorboard"),
        ("mlflow,mlflow:there", "expected each tracker once"),
    ],
)
def test_what_is_no_tracker_is_refused_before_anything_is_stored(
    tiny: Study, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fl.run(tiny, storage=tmp_path / "runs.db", track=text, **SMALL)
    assert not (tmp_path / "runs.db").exists()


def test_a_tracker_without_its_package_says_how_to_install_it(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'distreal-dse\[wandb\]'"):
        fl.run(tiny, storage=tmp_path / "runs.db", track="wandb", **SMALL)
    assert not (tmp_path / "runs.db").exists()


def test_trackers_are_made_of_their_text() -> None:
    made = make_trackers("tensorboard:my/events, mlflow:http://here:5000")
    assert [(one.name, one.target) for one in made] == [
        ("tensorboard", "my/events"),
        ("mlflow", "http://here:5000"),
    ]
    assert tracker_names() == ["tensorboard", "mlflow", "wandb"] and make_trackers("") == []
    assert isinstance(made[0], TensorBoard)
