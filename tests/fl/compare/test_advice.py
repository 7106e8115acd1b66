"""What advice says by what a comparison shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from distreal_dse.support.specs import name_of
from fl.compare.advice import CANDIDATES, Advice, advise
from fl.compare.at_best import Compared
from fl.compare.comparison import RunsFailedError
from fl.compare.tuning import tuning_name
from fl.results import RoundResult
from fl.store.runs import Run, list_runs
from fl.store.specs import RunSpec

SEEDS = (0.50, 0.70, 0.90)  # seeds differ far more than strategies do


def advice(**accuracies: tuple[float, ...]) -> Advice:
    runs = [
        Run(
            id=1, study="digits", strategy=name, front_label=None, front_hash=None,
            model_fingerprint="abc", seed=seed, settings={},
            created_at="2026-01-31T12:00:00+00:00", finished=True, comparison="c",
            rounds=(RoundResult(1, 1.0, accuracy, 0.5),),
        )
        for name, by_seed in accuracies.items()
        for seed, accuracy in enumerate(by_seed)
    ]  # fmt: skip
    return Advice("c", Compared(tuple(runs)))


def test_what_is_certain_is_said_to_be() -> None:
    found = advice(small=SEEDS, nested=(0.60, 0.801, 1.0), heterofl=(0.55, 0.75, 0.951))
    assert found.first == "nested" and found.rivals == ()
    assert [one.strategy for one in found.differences] == ["heterofl", "small"]
    assert found.sentences() == (
        "Take nested. It is ahead of all others (95% confidence for all of them together)."
    )


def test_what_is_not_certain_is_said_not_to_be() -> None:
    found = advice(small=SEEDS, nested=(0.60, 0.801, 1.0), heterofl=(0.70, 0.65, 0.951))
    assert [one.strategy for one in found.rivals] == ["heterofl"]
    said = "Take nested. Not certainly behind: heterofl. All others are."
    assert found.sentences() == said
    near = advice(**{"small:lr=0.1": (0.62, 0.75, 0.99), "nested": (0.60, 0.801, 1.0)})
    assert near.sentences().startswith("Take nested. Not certainly behind: small:lr=0.1. A small")


def test_the_small_network_is_taken_where_it_is_best() -> None:
    found = advice(small=(0.61, 0.80, 0.99), nested=SEEDS)
    assert found.first == "small" and "may do as well" not in found.sentences()


def test_advice_is_trained_kept_and_given_again(database: Engine, spec: RunSpec) -> None:
    def ask() -> Advice:
        short = replace(spec, rounds=1, evaluate_on="validation")
        return advise(
            database, "advice", short, 2, (0.05, 0.5, 5.0), strategies=("small", "nested")
        )

    found = ask()
    assert {name_of(run.strategy) for run in found.compared.runs} == {"small", "nested"}
    assert found.compared.failures == () and "lr=" in found.first
    assert {run.conditions.settings["evaluate_on"] for run in found.compared.runs} == {"validation"}
    assert {run.seed for run in found.compared.runs} == {0, 1}
    before = [run.id for run in list_runs(database, tuning_name("advice"))]
    again = ask()
    assert (again.first, again.differences) == (found.first, found.differences)
    assert [run.id for run in list_runs(database, tuning_name("advice"))] == before


def test_a_rate_of_its_own_is_kept_and_compared(database: Engine, spec: RunSpec) -> None:
    found = advise(
        database, "own", replace(spec, rounds=1), 2, (0.05, 0.1),
        strategies=("small:lr=0.2", "nested:lr=0.1"),
    )  # fmt: skip
    assert {run.strategy for run in found.compared.runs} == {"small:lr=0.2", "nested:lr=0.1"}


def test_a_front_is_among_the_choices(database: Engine, spec: RunSpec) -> None:
    """More devices than samples fail each run: errors say what was tried."""
    crowded = replace(spec, devices=10_000, cohort=2)
    for front, tried in ((spec.front, {*CANDIDATES, "distreal"}), (None, {*CANDIDATES})):
        with pytest.raises(RunsFailedError) as failed:
            name = f"with {front}"
            advise(database, name, replace(crowded, front=front, strategy="small"), 2, (0.05, 0.1))
        names = {
            one.strategy.replace(",lr=", ":lr=").partition(":lr=")[0]
            for one in failed.value.failures
        }
        assert names == tried
