from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.budgets import Budgets
from distreal_dse.cost import MemoryCost
from distreal_dse.dropout import ChannelGroup, uniform_rate
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, table_of
from distreal_dse.search import SearchSettings, SearchSpace, open_trials, search, stored_search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import Finished

GROUPS = tuple(ChannelGroup(name, width, (name,)) for name, width in (("a", 16), ("b", 64)))
TRIALS = 12


def memory_of(source: StudySource) -> MemoryCost:
    study = source.load()
    network, _ = prepare(study, 0)
    return MemoryCost(study, network, (1, 6, 6))


@pytest.fixture(scope="module")
def limit(source: StudySource) -> int:
    """What a vector of some two thirds of the filters needs."""
    return memory_of(source).peak((4, 5))


@pytest.fixture(scope="module")
def limited(
    source: StudySource, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Front, str, SearchSettings]:
    url = f"sqlite:///{tmp_path_factory.mktemp('limited')}/a.db"
    settings = SearchSettings(source, trials=TRIALS, memory=limit, pilot=False)
    return search(settings, url), url, settings


def test_no_vector_is_tried_verified_or_looked_up_that_needs_more_than_the_limit(
    limited: tuple[Front, str, SearchSettings], source: StudySource, limit: int
) -> None:
    front, url, _ = limited
    memory = memory_of(source)
    import optuna

    stored = stored_search(optuna.load_study(study_name=front.name, storage=open_trials(url)))
    assert stored is not None and len(stored.tried) == TRIALS
    tried = [one.kept_counts for one in stored.tried]
    verified = [tuple(one["kept_counts"]) for one in front.settings["verification"]]
    table = [one.kept_counts for one in table_of(front)]
    assert (memory.peak_many([*tried, *verified, *table]) <= limit).all()
    assert [one.memory for one in front.points] == [
        memory.peak(p.kept_counts) for p in front.points
    ]
    assert [one.memory for one in table_of(front)] == [memory.peak(counts) for counts in table]
    assert front.settings["memory"] == limit
    # Rates are those of what was tried, not of the parameters that stand for it.
    for one in stored.tried:
        assert one.rates == tuple(
            1 - kept / width for kept, width in zip(one.kept_counts, (6, 8), strict=True)
        )


def test_a_search_goes_on_under_the_same_limit_alone(
    limited: tuple[Front, str, SearchSettings], limit: int
) -> None:
    front, url, settings = limited
    assert search(settings, url).version == front.version
    for other in (None, limit + 1):
        with pytest.raises(InputError, match=f"begun with memory = {limit}, now it is {other}"):
            search(replace(settings, memory=other), url)


def test_a_sampler_of_optuna_respects_the_limit(source: StudySource, limit: int, url: str) -> None:
    settings = SearchSettings(source, trials=TRIALS, memory=limit, sampler="tpe", pilot=False)
    assert all((point.memory or limit + 1) <= limit for point in search(settings, url).points)


def test_a_limit_below_the_smallest_vector_is_refused_before_anything_is_trained(
    source: StudySource, url: str
) -> None:
    with pytest.raises(
        InputError, match=r"--memory is 1.0 kB: expected at least [0-9.]+ kB"
    ) as one:
        search(SearchSettings(source, memory=1000), url)
    assert "\n" not in str(one.value)
    with pytest.raises(InputError, match="--memory is 0: expected 1 byte or more"):
        search(SearchSettings(source, memory=0), url)


def test_a_search_without_a_limit_tells_what_its_points_need(finished: Finished) -> None:
    memory = memory_of(finished.settings.source)  # type: ignore[arg-type]
    for point in finished.front.points:
        assert point.memory == memory.peak(point.kept_counts)


@given(points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10))
def test_every_point_stands_for_a_vector_that_fits(points: list[tuple[float, float]]) -> None:
    space = SearchSpace(GROUPS, 0.8, fits=lambda counts: counts @ np.array([4, 1]) <= 60)
    free = SearchSpace(GROUPS, 0.8)
    many = np.array(points)
    counts = space.counts_at(many)
    assert (counts @ np.array([4, 1]) <= 60).all()
    before = free.counts_at(many)
    assert (counts <= before).all()
    fitted = before @ np.array([4, 1]) <= 60
    assert (counts[fitted] == before[fitted]).all()
    for point in many:
        shares = np.exp(np.log(1 - 0.8) * (1 - point)).tolist()
        params = dict(zip(space.distributions, shares, strict=True))
        assert np.array(space.counts(params)) @ np.array([4, 1]) <= 60


def test_one_rate_vectors_begin_with_the_largest_that_fits() -> None:
    space = SearchSpace(GROUPS, 0.8, fits=lambda counts: counts.sum(1) <= 60)
    vectors = [space.counts(params) for params in space.uniform()]
    assert len(set(vectors)) == len(vectors) and max(map(sum, vectors)) in range(55, 61)
    assert all(uniform_rate(counts, (16, 64), 1) is not None for counts in vectors)
    assert vectors[-1] == (3, 13)


def test_a_table_has_no_vector_that_needs_more_than_the_limit(
    source: StudySource, limit: int, url: str
) -> None:
    memory, fleet = memory_of(source), Budgets("all", (0.5, 1.0), (0.5, 0.5))
    settings = SearchSettings(source, trials=2, fleet=fleet, memory=limit, pilot=False)
    front = search(settings, url)
    peaks = [memory.peak(one.kept_counts) for one in table_of(front)]
    assert max(peaks) <= limit < memory.peak((6, 8))
    assert [one.memory for one in table_of(front)] == peaks
    assert all(memory.peak(point.kept_counts) <= limit for point in front.points)
    with pytest.raises(InputError, match=r"smallest vector takes \(kept channels 2-2, mini-batch"):
        search(replace(settings, name="less", memory=1000), url)
