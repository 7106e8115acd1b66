"""Learning rates: of strategies, and the choice of the best for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from sqlalchemy import Engine
from torch import nn
from torch.optim import SGD, Adam

from distreal_dse.errors import InputError
from fl.compare.candidates import Candidate, Tuned
from fl.compare.comparison import compare
from fl.compare.settled import settled_accuracy
from fl.compare.tuning import tune, tuning_name, tuning_seeds
from fl.learning_rates import set_learning_rate
from fl.store.execution import begin_run, carry_out
from fl.store.runs import list_runs, load_run
from fl.store.specs import RunSpec
from fl.world.deadlines import RoundRules
from tiny_study import NO_SUB_NETWORKS, write_study

RATES = (0.2, 0.02)


@pytest.fixture
def learnable(spec: RunSpec) -> RunSpec:
    """Long enough to tell a learning rate that learns nothing."""
    return replace(
        spec, front=None, strategy="small", split="iid", server="replace", rounds=4, devices=4
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
    # All were tried with the same rates, in the same number of runs, up to one that is too high.
    assert small.candidates == nested.candidates
    rates = [one.rate for one in small.candidates]
    assert rates[:3] == [0.02, 0.2, 2.0] and len(rates) <= 5
    assert list(small.tried) == list(nested.tried) == list(small.candidates)
    for one in (small, nested):
        assert one.further is None and one.best is not None
        assert fmean(one.tried[one.best]) == max(map(fmean, one.tried.values()))
        assert one.at_best == f"{one.strategy}{',' if ':' in one.strategy else ':'}lr=" + repr(
            one.best.rate
        )
    assert fmean(small.tried[Candidate(0.2)]) > fmean(small.tried[Candidate(0.02)]) + 0.05
    assert own.tried == {} and own.best is None and own.at_best == "heterofl:lr=0.01"
    runs = list_runs(database, tuning_name("digits"))
    assert len(runs) == 2 * 2 * len(rates)
    assert told[0] == (0, 2 * 2 * 2 * 5) and told[-1] == (5 * len(runs), 5 * len(runs))
    assert {run.evaluated_on for run in runs} == {"validation"}
    # Seeds are not those that are compared.
    assert {run.seed for run in runs} == {10_003, 10_004}
    by_hand = {(run.strategy, run.seed): settled_accuracy(run.rounds) for run in runs}
    assert nested.tried[Candidate(0.2)] == tuple(
        by_hand["nested:lr=0.2", seed] for seed in (10_003, 10_004)
    )
    assert nested.training_macs == pytest.approx(
        sum(
            one.training_macs
            for run in runs
            if run.strategy.startswith("nested")
            for one in run.rounds
        )
    )
    # The same again trains nothing, and chooses the same; so it does with a seed more.
    more = [*specs, replace(specs[0], seed=5)]
    for again in (specs, more):
        assert tune(database, "digits", again, RATES) == (tuned, ())
    assert [run.id for run in list_runs(database, tuning_name("digits"))] == [r.id for r in runs]
    compared = compare(database, "digits", [replace(specs[0], strategy=small.at_best, rounds=1)])
    assert [run.evaluated_on for run in compared] == ["test"]


def test_a_choice_that_was_stopped_goes_on_and_comes_to_the_same(
    database: Engine, spec: RunSpec
) -> None:
    specs = [replace(spec, front=None, strategy=one, rounds=2) for one in ("small", "heterofl")]
    expected = tune(database, "whole", specs, RATES)

    def stop(done: int, total: int) -> None:
        if total > 2 * 2 * 2 * 3 and done > 2 * 2 * 2 * 3:  # while it is widened
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(database, "stopped", specs, RATES, stop)
    begun = list_runs(database, tuning_name("stopped"))
    assert not begun[-1].finished
    assert tune(database, "stopped", specs, RATES) == expected
    assert [run.id for run in list_runs(database, tuning_name("stopped"))][: len(begun)] == [
        run.id for run in begun
    ]


def test_seeds_that_rates_are_chosen_by_are_never_compared(spec: RunSpec) -> None:
    assert tuning_seeds([replace(spec, seed=3), replace(spec, seed=9)]) == (10_003, 10_004)
    taken = [replace(spec, seed=seed) for seed in (3, 10_003, 10_005)]
    assert tuning_seeds(taken) == (10_004, 10_006)


def test_without_numbers_rates_begin_around_the_studys(
    database: Engine, learnable: RunSpec
) -> None:
    specs = [replace(learnable, strategy="small", rounds=1)]
    ((small,), _) = tune(database, "c", specs)
    rates = [one.rate for one in small.candidates if one.rate is not None]
    # The study says nothing of its optimiser, so it is SGD with 0.05.
    assert {0.0167, 0.05, 0.15} <= set(rates)
    ratios = [high / low for low, high in zip(rates, rates[1:], strict=False)]
    assert ratios == pytest.approx([3] * len(ratios), rel=0.01)
    assert small.further is None or len(rates) == 6


def test_a_study_without_a_learning_rate_is_told_where_rates_should_begin_around_it(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    still = "study = replace(study, optimizer=lambda some: torch.optim.SGD(some, lr=0.0))"
    own = replace(
        spec, study=str(write_study(tmp_path, "still", still)), front=None, strategy="small"
    )
    with pytest.raises(InputError, match="study still, around which auto tries others: .* found 0"):
        tune(database, "c", [own])
    assert list_runs(database, tuning_name("c")) == []


def test_rates_are_tuned_at_the_schedule_given(database: Engine, learnable: RunSpec) -> None:
    scheduled = replace(learnable, rounds=2, schedule="cosine:warmup=1")
    own = "small:schedule=exponential:factor=0.5"
    specs = [replace(scheduled, strategy=one) for one in ("small", own)]
    tuned, _ = tune(database, "digits", specs, RATES)
    assert all(
        f"{one.strategy}{sep}lr=" in one.at_best for one, sep in zip(tuned, ":,", strict=True)
    )
    runs = list_runs(database, tuning_name("digits"))
    assert {run.settings["schedule"] for run in runs} == {"cosine:warmup=1"}
    found = {(run.strategy, run.seed): run for run in runs}
    plain = replace(scheduled, strategy="small:lr=0.2", evaluate_on="validation", seed=10_000)
    for text, of_run in (("small:lr=0.2", "cosine:warmup=1"), (f"{own},lr=0.2", own[15:])):
        run_id, begun = begin_run(database, replace(plain, schedule=of_run))
        carry_out(database, run_id, begun)
        assert load_run(database, run_id).rounds == found[text, 10_000].rounds


def test_each_strategy_gets_the_best_pair_of_rate_and_schedule(
    database: Engine, learnable: RunSpec
) -> None:
    still = "exponential:factor=1e-9"  # trains in the first round alone
    longer = replace(learnable, rounds=8)
    specs = [replace(longer, strategy=one) for one in ("small", "small:lr=0.2")]
    tuned, _ = tune(database, "c", specs, RATES, schedules=(still, "constant"))
    small, own = tuned
    assert {one.schedule for one in small.candidates} == {still, "constant"}
    assert own.candidates == (Candidate(None, still), Candidate(None, "constant"))
    assert small.best is not None and small.best.schedule == "constant"
    assert own.best == Candidate(None, "constant")
    assert own.at_best == "small:lr=0.2,schedule=constant"
    assert small.at_best == f"small:lr={small.best.rate!r},schedule=constant"
    # With the same rate and schedule it is the same run, wherever these come from.
    pair = Candidate(0.2, "constant")
    assert small.tried[pair] == own.tried[Candidate(None, "constant")]
    assert fmean(small.tried[pair]) > fmean(small.tried[Candidate(0.2, still)]) + 0.1
    for schedule in (still, "constant"):
        rates = [one.rate for one in small.candidates if one.schedule == schedule]
        assert small.end_of(schedule) is None or len(rates) == 5


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
    assert tuned == [Tuned("small", (Candidate(0.02), Candidate(0.2)), {})]
    assert tuned[0].at_best == "small"
    assert sorted((one.strategy, one.seed) for one in failures) == [
        (f"small:lr={rate}", seed) for rate in ("0.02", "0.2") for seed in (10_000, 10_001)
    ]


def test_a_rate_of_which_a_run_fails_is_not_chosen(
    database: Engine, spec: RunSpec, tmp_path: Path
) -> None:
    study = write_study(tmp_path, "picky", NO_SUB_NETWORKS)
    own = replace(
        spec, study=str(study), front=None, strategy="small", rounds=1, rules=RoundRules()
    )
    specs = [replace(own, strategy=one) for one in ("heterofl", "fedavg")]
    told: list[tuple[int, int]] = []
    (heterofl, fedavg), failures = tune(
        database, "c", specs, RATES, lambda *counts: told.append(counts)
    )
    assert heterofl.tried == {} and heterofl.candidates == fedavg.candidates == tuple(fedavg.tried)
    # Each is told once and not tried again, though ranges are widened for the other.
    failed = [(one.strategy, one.seed) for one in failures]
    assert len(failed) == len(set(failed)) == 2 * len(heterofl.candidates) > 4
    assert told[-1][1] < 2 * 2 * 2 * len(heterofl.candidates)


def test_rates_that_leave_no_choice_train_nothing(database: Engine, spec: RunSpec) -> None:
    for rates, schedules in (((0.1,), ()), (RATES, ("cosine",)), (RATES, ("constant", "cosin"))):
        with pytest.raises(InputError):
            tune(database, "c", [spec], rates, schedules=schedules)
    with pytest.raises(InputError, match="expected less than the 5 rounds"):
        tune(database, "c", [spec], RATES, schedules=("constant", "cosine:warmup=9"))
    assert list_runs(database, tuning_name("c")) == []


def test_numbers_of_other_libraries_are_rates_too(database: Engine, learnable: RunSpec) -> None:
    short = replace(learnable, rounds=1)
    (small,), _ = tune(database, "c", [short], np.array([0.1, 0.2]))
    assert small.best is not None and isinstance(small.best.rate, float)


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
