"""Learning rates: of strategies, and the choice of the best for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sqlalchemy import Engine
from torch import nn
from torch.optim import SGD, Adam

from distreal_dse.errors import InputError
from fl.compare.comparison import compare
from fl.compare.settled import settled_accuracy
from fl.compare.tuning import Tuned, tune, tuning_name
from fl.learning_rates import set_learning_rate
from fl.store.execution import begin_run, carry_out
from fl.store.runs import list_runs, load_run
from fl.store.specs import RunSpec

RATES = (0.2, 1e-7)


@pytest.fixture
def learnable(spec: RunSpec) -> RunSpec:
    """Long enough on digits to tell a learning rate that learns nothing."""
    return replace(
        spec,
        study="digits-cnn",
        front=None,
        strategy="small",
        split="iid",
        server="replace",
        rounds=4,
        devices=4,
    )


def trained(database: Engine, spec: RunSpec) -> dict[str, torch.Tensor]:
    run_id, begun = begin_run(database, spec)
    assert begun is not None
    carry_out(database, run_id, begun)
    return begun.network.copy_state()


def test_a_learning_rate_replaces_that_of_the_study(database: Engine, spec: RunSpec) -> None:
    one_round = replace(spec, rounds=1, server="replace")
    own, same, other = (
        trained(database, replace(one_round, strategy=f"small{setting}"))
        for setting in ("", ":lr=0.05", ":lr=0.1")
    )
    # The study says nothing of its optimiser, so it is SGD with 0.05.
    assert all(torch.equal(own[name], same[name]) for name in own)
    assert not all(torch.equal(own[name], other[name]) for name in own)


def test_groups_of_parameters_keep_their_ratios() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = Adam(
        [{"params": first.parameters(), "lr": 0.01}, {"params": second.parameters()}], lr=0.04
    )
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.1])
    frozen = SGD(first.parameters(), lr=0.0)
    set_learning_rate(frozen, 0.1)
    assert frozen.param_groups[0]["lr"] == 0.1


def test_each_strategy_gets_the_rate_that_is_best_for_it(
    database: Engine, learnable: RunSpec
) -> None:
    specs = [
        replace(learnable, strategy=one, seed=seed)
        for seed in (3, 4)
        for one in ("small:share=0.3", "heterofl:lr=0.01", "nested")
    ]
    told: list[tuple[int, int]] = []
    tuned, failures = tune(database, "digits", specs, RATES, lambda *counts: told.append(counts))
    assert failures == ()
    assert [one.strategy for one in tuned] == ["small:share=0.3", "heterofl:lr=0.01", "nested"]
    small, own, nested = tuned
    assert list(small.tried) == sorted(RATES) == list(nested.tried)
    assert small.tried[0.2] > small.tried[1e-7] + 0.2
    assert small.at_best == "small:share=0.3,lr=0.2" and nested.at_best == "nested:lr=0.2"
    assert own.tried == {} and own.best is None and own.at_best == "heterofl:lr=0.01"
    assert told[-1] == (20, 20)
    runs = list_runs(database, tuning_name("digits"))
    assert {run.seed for run in runs} == {3}
    assert {run.evaluated_on for run in runs} == {"validation"}
    assert len(runs) == 4
    for run in runs:
        if run.strategy == "nested:lr=0.2":
            assert settled_accuracy(run.rounds) == nested.tried[0.2]
    # The same again trains nothing, and chooses the same.
    assert tune(database, "digits", specs, RATES) == (tuned, ())
    assert [run.id for run in list_runs(database, tuning_name("digits"))] == [r.id for r in runs]
    compared = compare(database, "digits", [replace(specs[0], strategy=small.at_best, rounds=1)])
    assert [run.evaluated_on for run in compared] == ["test"]


def test_rates_are_tuned_at_the_schedule_given(database: Engine, learnable: RunSpec) -> None:
    scheduled = replace(learnable, rounds=2, schedule="cosine:warmup=1")
    own = "small:schedule=exponential:factor=0.5"
    specs = [replace(scheduled, strategy=one) for one in ("small", own)]
    tuned, _ = tune(database, "digits", specs, RATES)
    assert [one.at_best for one in tuned] == ["small:lr=0.2", f"{own},lr=0.2"]
    runs = list_runs(database, tuning_name("digits"))
    assert len(runs) == 4 and {run.settings["schedule"] for run in runs} == {"cosine:warmup=1"}
    found = {run.strategy: run for run in runs}
    plain = replace(scheduled, strategy="small:lr=0.2", evaluate_on="validation")
    for text, of_run in (("small:lr=0.2", "cosine:warmup=1"), (f"{own},lr=0.2", own[15:])):
        run_id, begun = begin_run(database, replace(plain, schedule=of_run))
        carry_out(database, run_id, begun)
        assert load_run(database, run_id).rounds == found[text].rounds


def test_runs_are_evaluated_on_what_they_are_told_to(database: Engine, learnable: RunSpec) -> None:
    found = []
    for held_out in ("test", "validation"):
        spec = replace(learnable, strategy="small", rounds=2, evaluate_on=held_out)
        run_id, begun = begin_run(database, spec)
        carry_out(database, run_id, begun)
        found.append(load_run(database, run_id))
    on_test, on_validation = found
    assert on_test.accuracy != on_validation.accuracy  # of other samples
    assert [r.training_macs for r in on_test.rounds] == [
        r.training_macs for r in on_validation.rounds
    ]
    with pytest.raises(InputError, match="on test or validation data, found 'train'"):
        replace(learnable, strategy="small", evaluate_on="train").check()


def test_strategies_that_fail_at_every_rate_are_left_as_they_are(
    database: Engine, spec: RunSpec
) -> None:
    crowded = replace(spec, devices=60, strategy="small")  # more than there are samples for
    tuned, failures = tune(database, "c", [crowded], RATES)
    assert tuned == [Tuned("small", (1e-7, 0.2), {})] and tuned[0].at_best == "small"
    assert sorted(one.strategy for one in failures) == ["small:lr=0.2", "small:lr=1e-07"]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1,), "expected two or more to choose from, found 1"),
        ((0.1, 0.1), "expected two or more to choose from, found 1"),
        ((0.1, 0.0), "learning rates: expected finite numbers above 0 such as 0.05, found 0"),
        ((0.1, float("inf")), "above 0 such as 0.05, found inf"),
        ((0.1, float("nan")), "above 0 such as 0.05, found nan"),
    ],
)
def test_rates_that_leave_no_choice_are_refused(
    database: Engine, spec: RunSpec, rates: tuple[float, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(database, "c", [spec], rates)
    assert list_runs(database, tuning_name("c")) == []


@pytest.mark.parametrize(
    ("tried", "further"),
    [
        ({0.1: 0.5, 0.2: 0.6, 0.4: 0.5}, None),
        ({0.1: 0.5, 0.2: 0.6}, None),  # 0.4 failed
        ({0.1: 0.5, 0.4: 0.6}, "higher"),
        ({0.1: 0.6, 0.4: 0.6}, "lower"),
        ({}, None),
    ],
)
def test_a_best_rate_at_the_end_of_those_asked_for_is_told(
    tried: dict[float, float], further: str | None
) -> None:
    assert Tuned("small", (0.1, 0.2, 0.4), tried).further == further


def test_numbers_of_other_libraries_are_rates_too(database: Engine, learnable: RunSpec) -> None:
    short = replace(learnable, rounds=1)
    (small,), _ = tune(database, "c", [short], np.array([0.1, 0.2]))
    assert small.at_best in ("small:lr=0.1", "small:lr=0.2")


def test_the_comparison_is_checked_before_anything_is_trained(
    database: Engine, learnable: RunSpec
) -> None:
    compare(database, "c", [replace(learnable, rounds=1)])
    for specs, message in (
        ([replace(learnable, rounds=2)], "'c' was begun with rounds = 1, now it is 2"),
        ([replace(learnable, rounds=1, evaluate_on="tset")], "found 'tset'"),
        (
            [replace(learnable, rounds=1, strategy=one) for one in ("small", "heterofl:lr=-1")],
            "lr of a strategy: expected finite numbers above 0",
        ),
    ):
        with pytest.raises(InputError, match=message):
            tune(database, "c", specs, RATES)
    assert list_runs(database, tuning_name("c")) == []


def test_an_optimiser_without_a_learning_rate_is_refused() -> None:
    class Odd(SGD):
        def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
            super().__init__(parameters, lr=1.0)
            for group in self.param_groups:
                group["pace"] = group.pop("lr")

    with pytest.raises(InputError, match="learning rate of Odd: expected groups .* with 'lr'"):
        set_learning_rate(Odd(nn.Linear(2, 2).parameters()), 0.1)
