from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distreal_dse.budgets import Budgets
from distreal_dse.convergence import Convergence, Replicate
from distreal_dse.cost import MacCost
from distreal_dse.fronts import (
    TablePilot,
    VectorPilot,
    load_verifications,
    open_database,
    pilot_from,
    pilot_of,
    verification_keys,
)
from distreal_dse.search import SearchProgress, SearchSettings, search
from distreal_dse.search.proposer import SearchSpace
from distreal_dse.search.verdicts import pilot_shapes, shape_effect, vector_pilot
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import write_study

UNIFORM = [(n, n) for n in range(1, 10)]
# Two shapes at each of some costs: (wide, narrow) and (narrow, wide).
SHAPES = [(2 * n, n - 1) for n in (3, 4, 5)] + [(n - 1, 2 * n) for n in (3, 4, 5)]


def report(
    tilt: float, noise: float, seed: int, replicates: int = 4, slope: float = 0.2
) -> VectorPilot:
    """Of made-up runs: the gain follows the cost, and, by ``tilt``, the ratio of the two groups."""
    random = np.random.default_rng(seed)
    costs = {counts: float(np.prod(counts)) for counts in [*UNIFORM, *SHAPES]}
    luck = 0.05 * random.standard_normal(replicates)  # common to all vectors
    measured = {}
    for counts, cost in costs.items():
        gain = 1 + slope * np.log(cost / 81) + tilt * np.log(counts[1] / counts[0])
        gains = gain + luck + noise * random.standard_normal(replicates)
        measured[counts] = Convergence(tuple(Replicate(float(one), 0.5) for one in gains))
    return vector_pilot(measured, costs, UNIFORM, replicates, replicates, 0.1)


def test_where_shapes_differ_the_pilot_says_so() -> None:
    found = [report(tilt=0.2, noise=0.03, seed=seed) for seed in range(20)]
    assert all(one.shape_matters and one.pays and one.is_worth_a_search for one in found)
    # The root of the mean square of 0.2 · log(6/2), 0.2 · log(8/3) and 0.2 · log(10/4).
    expected = 0.2 * np.sqrt(np.mean(np.log([6 / 2, 8 / 3, 10 / 4]) ** 2))
    assert np.median([one.spread for one in found]) == pytest.approx(expected, rel=0.15)


def test_where_shapes_do_not_differ_the_pilot_hardly_ever_says_that_they_do() -> None:
    found = [report(tilt=0.0, noise=0.03, seed=seed) for seed in range(200)]
    assert sum(one.shape_matters for one in found) <= 12
    assert np.mean([one.noise for one in found]) == pytest.approx(0.03, rel=0.1)


def test_with_little_noise_the_pilot_says_that_a_search_does_not_pay() -> None:
    found = [report(tilt=0.0, noise=0.01, seed=seed) for seed in range(20)]
    assert sum(not one.pays for one in found) >= 18
    # A tilt that is worth the search is not overlooked.
    tilted = [report(tilt=0.1, noise=0.01, seed=seed) for seed in range(20)]
    assert all(one.pays for one in tilted)


def test_short_runs_that_do_not_gain_more_for_more_are_called_useless() -> None:
    assert not report(tilt=0.0, noise=0.01, seed=0, slope=-0.1).learns
    assert not report(tilt=0.0, noise=0.01, seed=0, slope=-0.1).is_worth_a_search
    assert "lengthen" in " ".join(report(0.0, 0.01, 0, slope=-0.1).sentences())


def test_the_interval_of_a_spread_covers_it() -> None:
    """Effects with a spread of 0.1 between 12 shapes, at 95 %."""
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        controls = 0.04 * random.standard_normal((5, 3))
        weights = np.eye(5)[[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]]
        effects = 0.1 * random.standard_normal((12, 1))
        shaped = effects + 0.04 * random.standard_normal((12, 3))
        found = shape_effect(shaped, controls, weights)
        covered += found.low <= 0.1 <= found.high
    assert 182 <= covered <= 199


def test_shapes_cost_as_much_as_one_rate_and_lie_in_the_space() -> None:
    study = StudySource("digits-cnn").load()
    network, _ = prepare(study, 0)
    space = SearchSpace(network.groups, study.max_rate)
    macs = MacCost(network.channels)
    shapes = [space.counts(params) for params in pilot_shapes(space, network, 1)]
    assert len(set(shapes)) == len(shapes) >= 8
    targets = [macs.training(space.counts(space.uniform()[index])) for index in (2, 4, 6)]
    smallest = space.counts(space.uniform()[-1])
    for counts in shapes:
        below = [1 - macs.training(counts) / target for target in targets]
        assert min(gap for gap in below if gap >= 0) < 0.15
        assert all(kept >= least for kept, least in zip(counts, smallest, strict=True))


# Filters don't matter: the last layer alone is trained, on what the first pixels are.
SHAPELESS = """
class Shapeless(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = model()[:-1]
        self.out = nn.Linear(8, 3)
        self.bias = nn.Linear(36, 3)

    def forward(self, x):
        features = self.features(x)
        return 0.0 * self.out(features) + self.bias(x.flatten(1))


study = replace(study, model=Shapeless, short_run=replace(study.short_run, replicates=4))
"""


def test_a_search_that_can_not_pay_ends_after_its_pilot_with_a_front_of_one_rate(
    tmp_path: Path,
) -> None:
    source = StudySource(str(write_study(tmp_path, change=SHAPELESS)))
    url, heard = f"sqlite:///{tmp_path}/search.db", list[SearchProgress]()
    front = search(SearchSettings(source, trials=60), url, heard.append)
    pilot = pilot_of(front)
    assert pilot is not None and not pilot.is_worth_a_search
    assert all(point.uniform for point in front.points)
    assert front.settings["trials"] < 30
    assert [one.pilot for one in heard if one.pilot is not None][0].seconds > 0
    assert search(SearchSettings(source, trials=60), url) == front  # it is not measured again
    anyway = search(SearchSettings(source, trials=40, pilot=False), url)
    assert anyway.settings["trials"] == 40 and pilot_of(anyway) is None


def test_a_fit_that_can_not_pay_ends_after_its_pilot_with_the_table_of_one_rate(
    tmp_path: Path,
) -> None:
    short = "\nstudy = replace(study, short_run=replace(study.short_run, table_mini_batches=4))\n"
    source = StudySource(str(write_study(tmp_path, change=SHAPELESS + short)))
    fleet = Budgets("half of it weak", (0.25, 1.0), (0.5, 0.5))
    url = f"sqlite:///{tmp_path}/search.db"
    front = search(SearchSettings(source, trials=20, fleet=fleet), url)
    pilot = pilot_of(front)
    assert isinstance(pilot, TablePilot) and not pilot.is_worth_a_search
    assert "does not matter" in " ".join(pilot.sentences())
    assert front.settings["trials"] == 6  # one rate and five shapes
    assert set(front.settings["table"]["elasticities"]) == {1.0}


def test_a_report_is_read_back_and_strange_ones_are_not() -> None:
    found = report(tilt=0.2, noise=0.03, seed=0)
    again = pilot_from(found.as_json())
    assert again is not None and again.as_json() == found.as_json()
    for strange in (None, [], {}, {**found.as_json(), "slope": "steep"}, {"slope": 1e999}):
        assert pilot_from(strange) is None


def test_a_family_of_dear_vectors_still_tells_whether_dearer_ones_gain_more() -> None:
    """As with a small largest rate: no vector costs less than half."""
    random = np.random.default_rng(0)
    family = [(n, n) for n in range(75, 101, 5)]
    shapes = [(100, 70), (70, 100), (95, 80)]
    costs = {counts: float(np.prod(counts)) for counts in [*family, *shapes]}
    measured = {
        counts: Convergence(
            tuple(
                Replicate(float(1 + np.log(cost / 1e4) + 0.001 * random.standard_normal()), 0.5)
                for _ in range(4)
            )
        )
        for counts, cost in costs.items()
    }
    found = vector_pilot(measured, costs, family, 4, 4, 0.1)
    assert found.learns and found.slope == pytest.approx(1, rel=0.05)


def test_a_search_has_no_more_short_runs_than_it_may_its_pilot_included(tmp_path: Path) -> None:
    four = "\nstudy = replace(study, short_run=replace(study.short_run, replicates=4))\n"
    source = StudySource(str(write_study(tmp_path, change=four)))
    url, heard = f"sqlite:///{tmp_path}/search.db", list[SearchProgress]()
    search(SearchSettings(source, trials=60, runs=15), url, heard.append)
    engine = open_database(url)
    (key,) = verification_keys(engine, "tiny")
    runs = [name for name, _ in load_verifications(engine, key, 0) if name.startswith("search ")]
    engine.dispose()
    assert len(runs) == 15
    assert all(one.pilot is None for one in heard)
