"""Comparisons that stop, go on, fail in part, and are carried out twice at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from distreal_dse.errors import InputError
from distreal_dse.fronts import export_front, load_front
from fl.compare.comparison import RunsFailedError, compare
from fl.results import RoundResult
from fl.store.execution import begin_run, carry_out
from fl.store.runs import Run, list_runs, load_run
from fl.store.specs import RunSpec
from fl.world.deadlines import RoundRules
from tiny_study import NO_SUB_NETWORKS, write_study


def figures(run: Run) -> tuple[RoundResult, ...]:
    return run.rounds


def specs_of(spec: RunSpec, *strategies: str) -> list[RunSpec]:
    return [replace(spec, strategy=one, seed=seed) for seed in (0, 1) for one in strategies]


def test_a_comparison_goes_on_with_what_is_left(database: Engine, spec: RunSpec) -> None:
    specs = specs_of(spec, "small", "distreal")
    told: list[tuple[int, int]] = []
    expected = {
        (run.strategy, run.seed): figures(run)
        for run in compare(database, "whole", specs, lambda *counts: told.append(counts))
    }
    assert len(expected) == 4
    assert told[0] == (0, 24) and told[-1] == (24, 24)

    def stop(done: int, total: int) -> None:
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(database, "stopped", specs, stop)
    begun = list_runs(database, "stopped")
    assert [run.finished for run in begun] == [True, False]
    runs = compare(database, "stopped", specs, workers=2)
    assert {(run.strategy, run.seed): figures(run) for run in runs} == expected
    assert [run.id for run in runs][:2] == [run.id for run in begun]  # they were gone on with
    more = compare(database, "stopped", specs_of(spec, "small", "heterofl"))
    assert {run.strategy for run in more} == {"small", "heterofl"}
    assert len(list_runs(database, "stopped")) == 6


def test_runs_of_a_comparison_have_the_same_conditions(database: Engine, spec: RunSpec) -> None:
    compare(database, "c", specs_of(replace(spec, rounds=1), "small"))
    with pytest.raises(InputError, match="'c' was begun with rounds = 1, now it is 2: .*--name"):
        compare(database, "c", specs_of(replace(spec, rounds=2), "small"))


@pytest.mark.parametrize("workers", [1, 2])
def test_runs_that_can_not_be_begun_are_all_told(
    database: Engine, spec: RunSpec, workers: int
) -> None:
    with pytest.raises(RunsFailedError) as failed:
        compare(database, "c", specs_of(replace(spec, devices=60), "small"), workers=workers)
    assert [(one.strategy, one.seed) for one in failed.value.failures] == [
        ("small", 0),
        ("small", 1),
    ]
    for one in failed.value.failures:
        assert "training data has 100 samples: " in str(one) and "\n" not in str(one)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_others_go_on_when_a_run_fails(
    database: Engine, spec: RunSpec, tmp_path: Path, workers: int
) -> None:
    study = write_study(tmp_path, "picky", NO_SUB_NETWORKS)
    own = replace(
        spec, study=str(study), front=None, strategy="fedavg", rounds=2, rules=RoundRules()
    )
    specs = specs_of(own, "heterofl", "fedavg")
    with pytest.raises(RunsFailedError) as failed:
        compare(database, "c", specs, workers=workers)
    assert sorted(str(one) for one in failed.value.failures) == [
        f"run of heterofl, seed {seed}: ValueError: not so narrow" for seed in (0, 1)
    ]
    assert [(run.strategy, run.seed, run.finished) for run in failed.value.runs] == [
        ("fedavg", 0, True),
        ("fedavg", 1, True),
    ]
    stored = {(run.strategy, run.seed): run for run in list_runs(database, "c")}
    assert stored["heterofl", 1].failure == "ValueError: not so narrow"
    assert stored["fedavg", 1].failure is None
    # What was wrong is mended. Python tells files of one second apart by their size.
    study.write_text(study.read_text().replace("< 6", "< -1"))
    runs = compare(database, "c", specs, workers=workers)
    assert len(runs) == 4 and all(run.finished and run.failure is None for run in runs)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fjord-kd:alpha=2", "alpha of strategy fjord-kd: expected 0 to 1, found 2"),
        ("distreal:averaging=mean", "expected one of plain, contributors, pooled, found 'mean'"),
        ("small:schedule=cosin", "schedule 'cosin': .* did you mean cosine"),
        (
            "small:schedule=cosine:warmup=30",
            "of a schedule: expected less than the 5 rounds",
        ),
        ("fedavg:prox=-0.1", "proximal term .prox.: expected 0 or more, such as 0.01, found -0.1"),
        ("fedavg:prox=inf", "proximal term .prox.: expected 0 or more, such as 0.01, found inf"),
        ("fedavg:rate=1", "expected the settings lr, schedule, prox, .* of 'fedavg', found 'rate'"),
    ],
)
def test_all_runs_are_checked_before_the_first_is_trained(
    database: Engine, spec: RunSpec, strategy: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare(database, "c", specs_of(spec, "fedavg", strategy))
    assert list_runs(database, "c") == []


def test_runs_stored_before_a_setting_was_added_are_those_of_its_default(
    database: Engine, spec: RunSpec
) -> None:
    specs = specs_of(replace(spec, rounds=1, rules=RoundRules()), "small")
    before = compare(database, "c", specs)
    with database.begin() as connection:
        for run in before:
            settings = dict(run.settings)
            for name in ("until", "masked_loss", "pace", "links", "schedule", "robust"):
                del settings[name]
            del settings["rules"]["overcommit"]
            connection.execute(
                text("UPDATE runs SET settings = :settings WHERE id = :id"),
                {"settings": json.dumps(settings), "id": run.id},
            )
    after = compare(database, "c", specs)
    assert [run.id for run in after] == [run.id for run in before]
    assert len(list_runs(database, "c")) == 2


@pytest.fixture
def files(tmp_path: Path, spec: RunSpec) -> dict[str, Path]:
    """Files that a run can name, by the word for them."""
    found = {
        "speeds": tmp_path / "speeds.json",
        "links": tmp_path / "links.json",
        "availability trace": tmp_path / "trace.csv",
        "study": Path(spec.study),
    }
    found["speeds"].write_text('[{"CPU_F_AI_Score": 400}, {"CPU_F_AI_Score": 1000}]')
    user = {"down_u": 80, "down_sigma": 0, "up_u": 4000, "up_sigma": 0}
    found["links"].write_text(json.dumps({"user": user}))
    found["availability trace"].write_text("device,time,availability\n0,0,1\n0,5,0.5\n")
    return found


CHANGES = {
    "speeds": ("400", "500"),
    "links": ("4000", "400"),
    "availability trace": ("0,0,1", "0,0,0.75"),
    "study": ("batch_size=16", "batch_size=8"),
}


@pytest.mark.parametrize("names", [[name] for name in CHANGES] + [["speeds", "links"]])
def test_what_files_hold_is_the_same_for_all_runs_of_a_comparison(
    database: Engine, spec: RunSpec, files: dict[str, Path], names: list[str]
) -> None:
    own = replace(
        spec, front=None, strategy="small", speeds=str(files["speeds"]), links=str(files["links"]),
        availability=f"trace:{files['availability trace']}", rounds=1, rules=RoundRules(),
    )  # fmt: skip
    before = compare(database, "c", [own])
    for name in names:
        old, new = CHANGES[name]
        kept = files[name].read_text()
        files[name].write_text(kept.replace(old, new))
        assert files[name].read_text() != kept
    more = [own, replace(own, seed=1)]
    expected = f"comparison 'c' was begun with another {' and another '.join(names)}, by content: "
    with pytest.raises((InputError, RunsFailedError), match=expected):
        compare(database, "c", more)
    assert list_runs(database, "c") == before
    for name in names:
        old, new = CHANGES[name]
        files[name].write_text(files[name].read_text().replace(new, old))
    assert len(compare(database, "c", more)) == 2


def test_an_exported_front_is_compared_by_content(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    exported = tmp_path / "front.json"
    front = load_front(database, "tiny")
    export_front(front, exported)
    own = replace(spec, front=str(exported), rounds=1)
    compare(database, "c", [own])
    export_front(replace(front, points=front.points[1:]), exported)
    with pytest.raises(InputError, match="'c' was begun with another front, by content"):
        compare(database, "c", [own, replace(own, seed=1)])


def test_a_begun_run_is_not_gone_on_with_by_another_study(
    database: Engine, spec: RunSpec, files: dict[str, Path]
) -> None:
    own = replace(spec, front=None, strategy="small", links=str(files["links"]))
    run_id, _ = begin_run(database, own)
    for name in ("study", "links"):
        old, new = CHANGES[name]
        files[name].write_text(files[name].read_text().replace(old, new))
    message = f"run {run_id} was begun with another study and another links, by content"
    with pytest.raises(InputError, match=message):
        carry_out(database, run_id, study=spec.study)
    assert "another study" in str(load_run(database, run_id).failure)
