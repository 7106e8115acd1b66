"""Parameters of Optuna's trials as points of the unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

Floats = npt.NDArray[np.float64]
Params = dict[str, Any]


class UnitCube:
    """Parameters as points of the unit cube: logarithms where a distribution is logarithmic."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = space
        self.dimensions = sum(
            len(one.choices) if isinstance(one, CategoricalDistribution) else 1
            for one in space.values()
        )

    def point(self, params: Mapping[str, Any]) -> Floats:
        """Return the point of parameters, [dimensions]; a category is 1 in its own dimension."""
        values: list[float] = []
        for name, one in self._space.items():
            if isinstance(one, CategoricalDistribution):
                chosen = one.to_internal_repr(params[name])
                values += [float(index == chosen) for index in range(len(one.choices))]
            else:
                low, high = _bounds(one)
                value = math.log(params[name]) if one.log else float(params[name])  # type: ignore[attr-defined]
                values.append((value - low) / (high - low) if high > low else 0.0)
        return np.array(values)

    def points(self, trials: Sequence[FrozenTrial]) -> Floats:
        """Return the points of trials, [n, dimensions]."""
        points = [self.point(trial.params) for trial in trials]
        return np.array(points).reshape(-1, self.dimensions)

    def params(self, point: Floats) -> Params:
        """Return the parameters nearest to a point."""
        left = iter(point.tolist())
        found: Params = {}
        for name, one in self._space.items():
            if isinstance(one, CategoricalDistribution):
                weights = [next(left) for _ in one.choices]
                found[name] = one.choices[weights.index(max(weights))]
                continue
            low, high = _bounds(one)
            value = low + min(max(next(left), 0.0), 1.0) * (high - low)
            found[name] = _within(one, math.exp(value) if one.log else value)  # type: ignore[attr-defined]
        return found


def _bounds(one: Any) -> tuple[float, float]:
    return (math.log(one.low), math.log(one.high)) if one.log else (float(one.low), float(one.high))


def _within(one: Any, value: float) -> Any:
    """The value that a numerical distribution allows next to this one."""
    if one.step is not None:
        value = one.low + round((value - one.low) / one.step) * one.step
    value = min(max(value, one.low), one.high)
    return one.to_external_repr(value)
