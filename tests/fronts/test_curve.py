"""The area under a curve of vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distreal_dse.fronts import curve_hypervolume, hypervolume

POINTS = [(2.0, 0.1), (10.0, 0.4), (40.0, 0.9), (100.0, 1.0)]


def test_it_is_the_integral_of_the_curve_over_the_cost() -> None:
    costs = np.linspace(2.0, 100.0, 400_001)
    gains = np.interp(np.log(costs), [math.log(cost) for cost, _ in POINTS], [g for _, g in POINTS])
    assert curve_hypervolume(POINTS, 100.0) == pytest.approx(np.trapezoid(gains, costs) / 100, 1e-6)


def test_more_points_of_the_same_curve_do_not_change_it() -> None:
    between = (20.0, 0.4 + 0.5 * math.log(2) / math.log(4))
    assert curve_hypervolume([*POINTS, between], 100.0) == pytest.approx(
        curve_hypervolume(POINTS, 100.0)
    )
    assert hypervolume([*POINTS, between], 100.0) > hypervolume(POINTS, 100.0)


def test_it_is_never_below_the_area_of_the_steps() -> None:
    assert curve_hypervolume(POINTS, 100.0) > hypervolume(POINTS, 100.0)
    assert curve_hypervolume(POINTS[1:2], 100.0) == hypervolume(POINTS[1:2], 100.0)


def test_dominated_dear_and_useless_points_add_nothing() -> None:
    useless = [(50.0, 0.5), (120.0, 2.0), (1.0, -0.5), (3.0, 0.0)]
    assert curve_hypervolume([*POINTS, *useless], 100.0) == curve_hypervolume(POINTS, 100.0)
    assert curve_hypervolume([], 100.0) == 0.0
