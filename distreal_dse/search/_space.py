"""What is searched: a common level of dropout and an offset for each channel group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution, FloatDistribution

from distreal_dse.dropout import ChannelGroup
from distreal_dse.fronts import FrontGroup

LEVEL = "level"
# How far a group's rate may lie from the common level.
MAX_OFFSET = 0.4
# Uniform rates that are always evaluated first; 0 is the full network.
UNIFORM_RATES = 9


class SearchSpace:
    """Dropout vectors as parameters of a trial: ``rate = level + offset``, clipped.

    With a level of its own, the family of uniform vectors is a line in the space rather than its
    diagonal, and samplers move along the cost axis with one parameter. (Our own choice; not
    measured against one rate per group.)

    Parameters
    ----------
    groups
        The channel groups, in the order of a vector.
    max_rate
        Largest rate, in (0, 1).
    """

    def __init__(self, groups: Sequence[ChannelGroup | FrontGroup], max_rate: float) -> None:
        self._offsets = [f"offset {group.name}" for group in groups]
        self._max_rate = max_rate
        self.distributions: dict[str, BaseDistribution] = {
            LEVEL: FloatDistribution(0.0, max_rate),
            **{name: FloatDistribution(-MAX_OFFSET, MAX_OFFSET) for name in self._offsets},
        }

    def rates(self, params: Mapping[str, float]) -> tuple[float, ...]:
        """The dropout vector of a trial's parameters."""
        return tuple(
            min(max(params[LEVEL] + params[name], 0.0), self._max_rate) for name in self._offsets
        )

    def uniform(self) -> list[dict[str, float]]:
        """Parameters of the uniform vectors, from no dropout to the largest rate."""
        steps = UNIFORM_RATES - 1
        return [
            {LEVEL: self._max_rate * step / steps, **dict.fromkeys(self._offsets, 0.0)}
            for step in range(UNIFORM_RATES)
        ]
