"""Runs and comparisons that stop and go on, in one process and in several."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
import torch
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from distreal_dse.cost import MacCost
from distreal_dse.errors import InputError, StudyError
from distreal_dse.fronts import save_front
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.results import RoundResult
from fl.store.checkpoints import load_checkpoint
from fl.store.execution import begin_run, carry_out
from fl.store.runs import Run, last_round, load_run
from fl.store.specs import RunSpec, exact_front, run_spec
from fl.world.deadlines import RoundRules
from fl.world.devices import DeviceClass

MakeFront = Callable[..., object]


def figures(run: Run) -> tuple[RoundResult, ...]:
    return run.rounds


def through(database: Engine, spec: RunSpec) -> Run:
    run_id, begun = begin_run(database, spec)
    carry_out(database, run_id, begun)
    return load_run(database, run_id)


def interrupted(database: Engine, spec: RunSpec, in_round: int) -> int:
    def stop(result: RoundResult) -> None:
        if result.round == in_round:
            raise KeyboardInterrupt

    run_id, begun = begin_run(database, spec)
    with pytest.raises(KeyboardInterrupt):
        carry_out(database, run_id, begun, stop)
    return run_id


@pytest.mark.parametrize("in_round", [0, 1, 3, 4])
def test_an_interrupted_run_goes_on_from_where_it_was(
    database: Engine, spec: RunSpec, in_round: int
) -> None:
    expected = through(database, spec)
    run_id = interrupted(database, spec, in_round)
    assert len(load_run(database, run_id).rounds) == in_round + 1
    seen: list[int] = []
    carry_out(database, run_id, listen=lambda result: seen.append(result.round))
    run = load_run(database, run_id)
    assert run.finished and figures(run) == figures(expected)
    assert seen == list(range(in_round + 1 if in_round else 0, 6))  # nothing was lost
    assert load_checkpoint(database, run_id) is None


@pytest.mark.parametrize("in_round", [1, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_goes_on_at_the_rates_of_its_schedules(
    database: Engine, spec: RunSpec, in_round: int, workers: int
) -> None:
    constant = through(database, spec)
    until = 0.7 * constant.rounds[-1].virtual_seconds
    spec = replace(
        spec,
        until=until,
        schedule="cosine:end=0.01,warmup=2",
        server="momentum:lr=1,beta=0.5,schedule=exponential:factor=0.7",
    )
    expected = through(database, spec)
    assert len(expected.rounds) > 4  # so that it falls, and by the virtual time
    run_id = interrupted(database, spec, in_round)
    carry_out(database, run_id, workers=workers)
    assert figures(load_run(database, run_id)) == figures(expected)
    losses = [[one.loss for one in run.rounds] for run in (expected, constant)]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_an_interrupt_during_an_evaluation_loses_no_round(
    database: Engine, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = through(database, spec)
    run_id, begun = begin_run(database, spec)
    result_of = begun._result

    def interrupt(*arguments: Any) -> RoundResult:
        if begun.finished_round == 3:
            raise KeyboardInterrupt
        return result_of(*arguments)

    monkeypatch.setattr(begun, "_result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        carry_out(database, run_id, begun)
    carry_out(database, run_id)
    assert figures(load_run(database, run_id)) == figures(expected)


def test_an_interrupt_just_after_a_round_is_stored_does_not_lose_it(
    database: Engine, spec: RunSpec
) -> None:
    run_id, begun = begin_run(database, spec)

    def interrupt(session: Session) -> None:
        with database.connect() as connection:
            (stored,) = connection.execute(text("SELECT max(round) FROM run_rounds")).one()
        if stored == 3:
            event.remove(Session, "after_commit", interrupt)
            raise KeyboardInterrupt

    event.listen(Session, "after_commit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        carry_out(database, run_id, begun)
    checkpoint = load_checkpoint(database, run_id)
    assert checkpoint is not None and checkpoint.round == last_round(database, run_id) == 3


def test_a_run_is_not_gone_on_with_by_another_model(database: Engine, spec: RunSpec) -> None:
    spec = replace(spec, strategy="small", front=None)
    run_id = interrupted(database, spec, in_round=1)
    study = Path(spec.study)
    study.write_text(study.read_text().replace("nn.MaxPool2d(2)", "nn.MaxPool2d((3, 3))"))
    with pytest.raises(InputError, match=f"run {run_id} has another model than when"):
        carry_out(database, run_id, study=spec.study)


def test_a_killed_run_goes_on_from_its_checkpoint(database: Engine, spec: RunSpec) -> None:
    class Killed(BaseException):
        """Like a kill -9: nobody gets to save anything."""

    def kill(result: RoundResult) -> None:
        if result.round == 3:
            raise Killed

    expected = through(database, spec)
    run_id, begun = begin_run(database, spec)
    with pytest.raises(Killed):
        carry_out(database, run_id, begun, kill)
    checkpoint = load_checkpoint(database, run_id)
    assert checkpoint is not None and checkpoint.round == 2
    carry_out(database, run_id)
    assert figures(load_run(database, run_id)) == figures(expected)
    carry_out(database, run_id)  # it is finished: nothing happens
    assert figures(load_run(database, run_id)) == figures(expected)


@pytest.mark.parametrize("damage", ["UPDATE {0} SET content = :nan", "UPDATE {0} SET round = 3"])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    database: Engine, spec: RunSpec, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = replace(spec, strategy="small", front=None, rounds=6)
    expected = through(database, spec)
    run_id = interrupted(database, spec, in_round=4)
    with database.begin() as connection:
        where = f"WHERE run_id = {run_id} AND round = 4"
        content = connection.scalar(text(f"SELECT content FROM run_checkpoints {where}"))
        tensors = safetensors.load(content)
        next(one for one in tensors.values() if one.is_floating_point()).fill_(torch.nan)
        connection.execute(
            text(f"{damage.format('run_checkpoints')} {where}"), {"nan": safetensors.save(tensors)}
        )
    trained: list[int] = []
    carry_out(database, run_id, listen=lambda result: trained.append(result.round))
    assert trained == [3, 4, 5, 6]
    assert re.search(
        f"run {run_id}: that of round [34] is damaged.*on from that of round 2", caplog.text
    )
    run = load_run(database, run_id)
    assert run.finished and figures(run) == figures(expected)


def test_clients_in_processes_give_the_same_run(database: Engine, spec: RunSpec) -> None:
    expected = through(database, spec)
    run_id, begun = begin_run(database, spec)
    carry_out(database, run_id, begun, workers=2)
    assert figures(load_run(database, run_id)) == figures(expected)


def test_a_run_is_not_gone_on_with_by_another_front(
    database: Engine, spec: RunSpec, make_front: Callable[..., object]
) -> None:
    run_id = interrupted(database, spec, in_round=2)
    network = prepare(StudySource(spec.study).load(), 0)[0]
    other = make_front(network, (3, 3), (6, 8), name="tiny")
    save_front(database, replace(other, study="tiny"))  # type: ignore[type-var]
    with pytest.raises(InputError, match=f"front tiny of run {run_id} has another content"):
        carry_out(database, run_id)
    assert exact_front(database, "tiny") == "tiny@2" and exact_front(database, None) is None


def test_measured_speeds_and_links_and_a_trace_are_those_of_the_run(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    speeds, links, trace = (tmp_path / name for name in ("speeds.json", "links.json", "trace.csv"))
    speeds.write_text(json.dumps([{"CPU_F_AI_Score": score} for score in (100, 400, 1000)]))
    links.write_text(
        json.dumps({"user": {"down_u": 80, "down_sigma": 0, "up_u": 40, "up_sigma": 0}})
    )
    trace.write_text("device,time,availability\n0,0,1\n0,5,0.5\n")
    own = replace(
        spec, speeds=str(speeds), links=str(links), availability=f"trace:{trace}", split="iid",
        rules=RoundRules(), strategy="small",
    )  # fmt: skip
    run = through(database, own)
    devices = own.settings().population()
    assert {round(one.download) for one in devices} == {10_000}  # 80 kbit/s
    federated = own.begin(database)
    slowest = min(one.speed for one in devices)
    expected = slowest * own.settings().availability.mean_share()
    full = prepare(StudySource(own.study).load(), 0)[0]
    assert federated.training.macs.full / MacCost(full.channels).full <= expected
    size = federated.training.size_of(federated.network.full_counts)
    for one in run.rounds[1].devices:
        assert one.seconds > size / 10_000 + size / 5_000
        assert one.bytes_down == size


def test_a_spec_comes_back_from_json(spec: RunSpec) -> None:
    changed = replace(
        spec, options=(("a", "1"),), classes=(DeviceClass("all", 1.0, 0.5),), front=None,
        strategy="small",
    )  # fmt: skip
    for one in (spec, changed):
        assert run_spec(json.loads(json.dumps(one.as_json()))) == one
    with pytest.raises(InputError, match="stored by another version"):
        run_spec({"study": "x", "masks": "random"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategy": "fedsgd"}, "strategy 'fedsgd': expected one of fedavg, .*found 'fedsgd'"),
        (
            {"front": None, "strategy": "distreal:form=random"},
            "strategy 'distreal': expected a front .*--front",
        ),
        ({"checkpoint_every": 0}, "checkpoints: expected at least 1, found 0"),
    ],
)
def test_specs_that_nothing_can_be_begun_with_are_refused(
    spec: RunSpec, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(spec, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "magic"}, "'magic'"),
        ({"availability": "magic"}, "availability 'magic': expected one of constant"),
        ({"server": "magic"}, "'magic'"),
        ({"server": "momentum:schedule=cosin"}, "schedule 'cosin': .* did you mean cosine"),
        ({"server": "momentum:schedule=constant:warmup=5"}, "less than the 5 rounds of the run"),
        ({"schedule": "cosin"}, "schedule 'cosin': .* did you mean cosine"),
        ({"schedule": "cosine:warmup=5"}, "warmup of a schedule: expected less than the 5 rounds"),
        ({"strategy": "small:schedule=cosine:warmup=5"}, "less than the 5 rounds of the run"),
        ({"robust": "medain"}, "defence 'medain': .* did you mean median"),
        ({"robust": "krum:share=0.4"}, "cohort of 7 devices or more .* found 3"),
        ({"classes": (DeviceClass("all", 0.5, 1.0),)}, "shares that sum to 1"),
        ({"until": 0.0}, "virtual time of the federated run: expected above 0 s, found 0.0"),
        ({"pace": 0.0}, "pace of the federated run: expected above 0, found 0"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    spec: RunSpec, wrong: dict[str, object], message: str
) -> None:
    spec.check()
    with pytest.raises(InputError, match=message):
        replace(spec, study="nowhere", **wrong).check()  # type: ignore[arg-type]


def name_study(database: Engine, run_id: int, study: Path) -> None:
    """Do what anybody can who can write to the database."""
    settings = {**load_run(database, run_id).settings, "study": str(study)}
    with database.begin() as connection:
        connection.execute(
            text("UPDATE runs SET settings = :settings WHERE id = :id"),
            {"settings": json.dumps(settings), "id": run_id},
        )


def elsewhere(spec: RunSpec, folder: Path) -> tuple[Path, Path]:
    """Copy the study to another folder, where it also leaves a file when it is imported."""
    folder.mkdir()
    trace = folder / "was imported"
    study = folder / Path(spec.study).name
    study.write_text(f"open({str(trace)!r}, 'w')\n" + Path(spec.study).read_text())
    return study, trace


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_file_that_only_the_database_names_is_not_imported(
    database: Engine, spec: RunSpec, tmp_path: Path, workers: int
) -> None:
    run_id = interrupted(database, spec, in_round=2)
    study, trace = elsewhere(spec, tmp_path / "theirs")
    name_study(database, run_id, study)
    with pytest.raises(StudyError, match=f"run {run_id} names the study file .*--study FILE"):
        carry_out(database, run_id, workers=workers)
    assert not trace.exists()


def test_a_study_file_that_is_named_with_the_run_takes_the_place_of_the_stored_one(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    expected = through(database, spec)
    run_id = interrupted(database, spec, in_round=2)
    study, trace = elsewhere(spec, tmp_path / "mine")
    name_study(database, run_id, tmp_path / "on another machine.py")
    carry_out(database, run_id, study=str(study))
    assert trace.exists() and figures(load_run(database, run_id)) == figures(expected)


def test_clients_in_processes_import_no_study_file_that_only_the_database_names(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    run_id, begun = begin_run(database, spec)
    study, trace = elsewhere(spec, tmp_path / "theirs")
    name_study(database, run_id, study)  # in between
    with pytest.raises(StudyError, match="names the study file"):
        carry_out(database, run_id, begun, workers=2)
    assert not trace.exists()
