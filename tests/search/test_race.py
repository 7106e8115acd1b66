from __future__ import annotations

import numpy as np
import pytest

from distreal_dse.search.verdicts import PairedGains

LUCK = np.array([0.3, -0.1, 0.0, -0.2])  # of each replicate, common to all vectors


def gains_with_controls(noise: float = 0.01, seed: int = 0) -> PairedGains:
    random = np.random.default_rng(seed)
    gains = PairedGains()
    for kept in range(1, 10):
        own = 0.1 * kept + LUCK + noise * random.standard_normal(4)
        gains.add((kept, kept), kept**2, own.tolist(), control=True)
    return gains


def test_the_common_luck_of_a_replicate_is_taken_away() -> None:
    gains = gains_with_controls()
    assert gains.effects(4) == pytest.approx(LUCK, abs=0.02)
    assert gains.value([0.5 + LUCK[0]], 4) == pytest.approx(0.5, abs=0.02)
    assert gains.value([0.5 + LUCK[0], 0.5 + LUCK[1]], 4) == pytest.approx(0.5, abs=0.02)
    variances = [gains_with_controls(seed=seed).variance(4) for seed in range(20)]
    assert np.mean(variances) == pytest.approx(0.01**2, rel=0.25)


def test_what_lies_below_the_front_is_out_after_one_run() -> None:
    gains = gains_with_controls()
    # At the cost of (5, 5), which gains 0.5.
    assert gains.is_decided((5, 4), 25, [0.3 + LUCK[0]], 4)
    assert not gains.is_decided((5, 6), 25, [0.7 + LUCK[0]], 4)
    assert not gains.is_decided((5, 6), 25, [0.7 + LUCK[0], 0.7 + LUCK[1]], 4)
    assert gains.is_decided((5, 6), 25, (0.7 + LUCK).tolist(), 4)


def test_a_cheap_vector_is_not_held_against_dearer_ones() -> None:
    gains = gains_with_controls()
    assert not gains.is_decided((1, 2), 2, [0.25 + LUCK[0]], 4)  # better than (1, 1), 0.1
    assert not gains.is_decided((0, 0), 0.5, [-0.5], 4)  # nothing is cheaper


def test_nothing_is_out_before_the_noise_is_known() -> None:
    gains = PairedGains()
    gains.add((9, 9), 81, [1.0], control=False)
    assert not gains.is_decided((8, 8), 82, [0.2], 4)
