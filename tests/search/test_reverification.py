"""Fronts that are measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine

from distreal_dse.errors import DivergedError, FrontError, InputError
from distreal_dse.fronts import (
    MeasuredVector,
    measured_vectors,
    open_database,
    verification_setting,
)
from distreal_dse.search import Reverified, SearchProgress, reverify
from distreal_dse.study.catalogue import StudySource
from tiny_study import Finished, write_study


@pytest.fixture
def database(url: str) -> Engine:
    return open_database(url)


def test_the_seed_of_the_search_gives_its_values_again(
    finished: Finished, source: StudySource, database: Engine
) -> None:
    again = reverify(finished.front, source, database, seed=0)
    for before, now in again.pairs:
        assert now.convergence == pytest.approx(before.convergence)
        assert (now.kept_counts, now.cost, now.trial) == (
            before.kept_counts,
            before.cost,
            before.trial,
        )
    before = {one.kept_counts: one for one in measured_vectors(finished.front)}
    for measured in again.measured:
        assert measured.gains == pytest.approx(before[measured.kept_counts].gains)
    assert all(claim.holds for claim in again.claims)
    assert all(again.non_dominated) and again.failures == {}
    assert again.hypervolume == pytest.approx(finished.front.hypervolume)


def test_another_seed_gives_other_values_and_what_is_done_is_kept(
    finished: Finished, source: StudySource, database: Engine
) -> None:
    heard: list[SearchProgress] = []
    again = reverify(finished.front, source, database, replicates=3, listen=heard.append)
    assert [point.replicates for point in again.points] == [3] * len(finished.front.points)
    assert all(now.convergence != before.convergence for before, now in again.pairs)
    # One rate is measured again, too, whether it is on the front or not.
    family = {one.kept_counts for one in measured_vectors(finished.front) if one.uniform}
    wanted = family | {point.kept_counts for point in finished.front.points}
    assert {one.kept_counts for one in again.measured} == wanted
    total = 3 * len(wanted)
    counted = [(one.done, one.total) for one in heard if one.stage == "verification"]
    assert counted == [(done, total) for done in range(total + 1)]
    heard.clear()
    assert reverify(
        finished.front, source, database, replicates=3, workers=2, listen=heard.append
    ) == replace(again)
    assert [(one.done, one.total) for one in heard if one.stage == "verification"] == [
        (total, total)
    ]


def test_masks_and_granularity_are_those_of_the_search(
    finished: Finished, source: StudySource, database: Engine
) -> None:
    front = finished.front
    ordered = replace(front, settings={**front.settings, "masks": "ordered"})
    found = [reverify(one, source, database, seed=0) for one in (front, ordered)]
    assert found[0].points != found[1].points


def test_runs_of_other_lengths_are_not_mixed(
    finished: Finished, source: StudySource, database: Engine, tmp_path: Path
) -> None:
    longer = "study = replace(study, short_run=replace(study.short_run, mini_batches=9))"
    other = StudySource(str(write_study(tmp_path, "tiny", longer)))
    short, long = (reverify(finished.front, one, database) for one in (source, other))
    fresh = open_database(f"sqlite:///{tmp_path}/fresh.db")
    assert long.points == reverify(finished.front, other, fresh).points != short.points


def test_what_holds_by_hand(finished: Finished) -> None:
    one, two = finished.front.points[0], finished.front.points[-1]
    swapped = tuple(replace(point, convergence=gain) for point, gain in ((one, 0.5), (two, 0.25)))
    again = Reverified(finished.front, swapped, {})
    assert again.non_dominated == [True, False]
    share = one.cost / finished.front.reference_cost
    assert again.hypervolume == pytest.approx(0.5 * (1 - share))


def test_a_claim_that_does_not_hold_is_told(finished: Finished) -> None:
    def measured(cost: float, gain: float, uniform: bool) -> MeasuredVector:
        gains = tuple(gain + one for one in (-0.01, 0.0, 0.01))
        return MeasuredVector((round(cost), 1), cost, gains, uniform)

    family = [measured(cost, gain, True) for cost, gain in ((1, 0.1), (2, 0.2), (4, 0.3))]
    before = [*family, measured(1.5, 0.25, False)]
    front = replace(finished.front, settings={"verification": verification_setting(before)})
    again = Reverified(front, (), {}, tuple(before))
    (claim,) = again.claims
    assert claim.before.at_least == 2 and claim.difference == pytest.approx(0.05) and claim.holds
    worse = Reverified(front, (), {}, (*family, measured(1.5, 0.15, False)))
    (claim,) = worse.claims
    assert claim.difference == pytest.approx(-0.05) and not claim.holds
    assert worse.verdict is not None and not worse.verdict.better


def test_what_can_not_be_measured_again_is_refused(
    finished: Finished, source: StudySource, database: Engine, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--replicates is 1: expected 2 or more"):
        reverify(finished.front, source, database, replicates=1)
    with pytest.raises(InputError, match="--replicates is 0: expected 2 or more"):
        reverify(finished.front, source, database, replicates=0)
    with pytest.raises(InputError, match="--workers is 0: expected 1 or more"):
        reverify(finished.front, source, database, workers=0)
    with pytest.raises(FrontError, match="model"):
        reverify(finished.front, StudySource("digits-cnn"), database)
    spoilt = "study = replace(study, loss=lambda outputs, _: outputs.sum() * float('nan'))"
    diverging = write_study(tmp_path, "diverging", spoilt)
    with pytest.raises(DivergedError, match="training loss is nan"):
        reverify(finished.front, StudySource(str(diverging)), database)


def test_a_front_that_is_measured_again_leaves_its_caller_the_threads(
    finished: Finished, source: StudySource, url: str, two_threads: None
) -> None:
    engine = open_database(url)
    reverify(finished.front, source, engine)
    assert torch.get_num_threads() == 2
    engine.dispose()
