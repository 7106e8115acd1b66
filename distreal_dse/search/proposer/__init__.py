"""What is tried next: the spaces of vectors and of curves, and the samplers that draw from them."""

from distreal_dse.search.proposer._cost_aware import CostAwareSampler, Problem
from distreal_dse.search.proposer._curve import CONTROL_POINTS, MOST_VECTORS, CurveSpace
from distreal_dse.search.proposer._gain_model import expected_gains
from distreal_dse.search.proposer._improvement import (
    expected_hypervolume_improvement,
    expected_improvement,
)
from distreal_dse.search.proposer._samplers import DEFAULT, SAMPLERS, make_sampler
from distreal_dse.search.proposer._space import SearchSpace

__all__ = [
    "CONTROL_POINTS",
    "CostAwareSampler",
    "CurveSpace",
    "DEFAULT",
    "MOST_VECTORS",
    "Problem",
    "SAMPLERS",
    "SearchSpace",
    "expected_gains",
    "expected_hypervolume_improvement",
    "expected_improvement",
    "make_sampler",
]
