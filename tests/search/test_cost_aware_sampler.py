from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial

from distreal_dse.search import CostAwareSampler, Problem
from distreal_dse.search.proposer import (
    expected_gains,
    expected_hypervolume_improvement,
    expected_improvement,
)

SPACE = {f"keep {group}": FloatDistribution(0.1, 1.0, log=True) for group in range(8)}
LOW = float(np.log(0.1))


class TestOptunasContract(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    """What Optuna asks of every sampler."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: CostAwareSampler(seed=0, start=2)


def price(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cost is the product of the kept shares, known exactly."""
    logs = (LOW * (1 - points)).sum(1)
    return logs, np.zeros_like(logs)


def gain_of(trial: FrozenTrial | optuna.Trial) -> float:
    """Only the last group matters: keep it, and drop the others."""
    return float(1 + 0.25 * np.log(trial.params["keep 7"]))


def searched(sampler: BaseSampler, trials: int) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for _ in range(trials):
        tell(study)
    return study


def tell(study: optuna.Study) -> None:
    trial = study.ask(SPACE)
    point = np.array([[1 - np.log(one) / LOW for one in trial.params.values()]])
    study.tell(trial, [float(np.exp(price(point)[0][0])), gain_of(trial)])


def dominated_area(study: optuna.Study) -> float:
    """Over the logarithm of the cost, as a share of all there is."""
    pairs = sorted((np.log(t.values[0]), t.values[1]) for t in study.trials)
    edges = np.linspace(8 * LOW, 0, 400)
    best = [max((gain for cost, gain in pairs if cost <= edge), default=0.4) for edge in edges]
    return float(np.mean(best))


def test_it_finds_in_thirty_trials_what_random_draws_do_not_in_three_hundred() -> None:
    own = dominated_area(searched(CostAwareSampler(0, 10, Problem(price)), 30))
    drawn = dominated_area(searched(optuna.samplers.RandomSampler(seed=0), 300))
    assert own > drawn + 0.02


def test_what_is_proposed_depends_on_the_finished_trials_alone() -> None:
    first = searched(CostAwareSampler(3, 8, Problem(price)), 20)
    again = optuna.create_study(
        directions=["minimize", "maximize"], sampler=CostAwareSampler(3, 8, Problem(price))
    )
    again.add_trials(first.trials[:13])
    for _ in range(7):
        tell(again)
    assert [t.params for t in again.trials] == [t.params for t in first.trials]


def test_trials_under_way_are_not_proposed_again() -> None:
    study = searched(CostAwareSampler(0, 8, Problem(price)), 12)
    under_way = [study.ask(SPACE).params for _ in range(6)]
    assert len({tuple(params.values()) for params in under_way}) == 6


def test_points_that_mean_the_same_are_proposed_once() -> None:
    problem = Problem(price, snap=lambda points: np.round(points * 3) / 3)
    study = searched(CostAwareSampler(0, 8, problem), 60)
    assert len({tuple(np.round(list(t.params.values()), 9)) for t in study.trials}) == 60


def test_without_a_price_two_objectives_are_refused() -> None:
    study = searched(CostAwareSampler(0, 8, Problem(price)), 3)
    study.sampler = CostAwareSampler(0, 2)
    with pytest.raises(ValueError, match="price"):
        study.ask(SPACE)


def test_expected_improvement_is_the_mean_excess_over_a_level() -> None:
    random = np.random.default_rng(0)
    draws = 0.3 + 0.7 * random.standard_normal(400_000)
    levels = np.array([-1.0, 0.2, 1.5])
    expected = [np.maximum(draws - level, 0).mean() for level in levels]
    found = expected_improvement(np.array([0.3]), np.array([0.7]), levels)[0]
    assert found == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_expected_hypervolume_improvement_is_the_mean_growth_of_the_area(error: float) -> None:
    starts, levels, end = np.array([-3.0, -2.0, -0.5]), np.array([0.1, 0.6, 0.9]), 0.0
    random = np.random.default_rng(0)
    edges = np.linspace(-3, end, 6001)[:-1]
    steps = levels[np.searchsorted(starts, edges, side="right") - 1]
    for mean, deviation, cost in ((0.7, 0.2, -2.4), (0.95, 0.3, -1.0), (0.2, 0.1, -2.9)):
        gains = mean + deviation * random.standard_normal(3000)
        costs = cost + error * random.standard_normal(3000)
        grown = [
            np.where(edges >= own, np.maximum(gain - steps, 0), 0).sum() * (end + 3) / len(edges)
            for gain, own in zip(gains, costs, strict=True)
        ]
        (found,) = expected_hypervolume_improvement(
            np.array([mean]), np.array([deviation]), np.array([cost]), np.array([error]),
            starts, levels, end,
        )  # fmt: skip
        assert found == pytest.approx(np.mean(grown), rel=0.12)


def test_expected_gains_take_away_most_of_the_noise() -> None:
    random = np.random.default_rng(0)
    points = random.random((80, 3))
    truth = points[:, 0] - 0.5 * points[:, 1] ** 2
    noisy = truth + 0.1 * random.standard_normal(80)
    for noise in (np.full(80, 0.01), None):
        found = expected_gains(points, noisy, noise)
        assert np.abs(found - truth).mean() < 0.6 * np.abs(noisy - truth).mean()


def test_points_have_the_order_of_the_names_that_are_given() -> None:
    """Optuna sorts parameters by name, and "keep 10" comes before "keep 9"."""
    space = {name: FloatDistribution(0.1, 1.0, log=True) for name in ("keep 9", "keep 10")}
    priced: list[np.ndarray] = []

    def of_the_first(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        priced.append(points)
        logs = LOW * (1 - points[:, 0])
        return logs, np.zeros_like(logs)

    study = optuna.create_study(
        directions=["minimize", "maximize"],
        sampler=CostAwareSampler(0, 6, Problem(of_the_first, names=tuple(space))),
    )
    for number in range(20):
        priced.clear()
        trial = study.ask(space)
        values = np.array([trial.params["keep 9"], trial.params["keep 10"]])
        if number >= 6:  # what is proposed was priced as this very point
            distances = np.abs(np.vstack(priced) - (1 - np.log(values) / LOW)).max(1)
            assert distances.min() < 1e-9
        study.tell(trial, [float(values[0]), float(np.log(values[1]))])


def test_what_fails_is_not_proposed_again_nor_are_its_neighbours() -> None:
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=CostAwareSampler(0, 10, Problem(price))
    )
    failed = 0
    for _ in range(60):
        trial = study.ask(SPACE)
        if trial.params["keep 7"] > 0.5 and trial.params["keep 0"] < 0.5:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            failed += 1
            continue
        point = np.array([[1 - np.log(one) / LOW for one in trial.params.values()]])
        study.tell(trial, [float(np.exp(price(point)[0][0])), gain_of(trial)])
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 60
    assert failed < 30
