"""What a candidate is expected to add to the best so far, in closed form.

References
----------
Jones, Schonlau, Welch: Efficient global optimization of expensive black-box functions, 1998,
equation 15 (expected improvement).

Emmerich, Giannakoglou, Naujoks: Single- and multiobjective evolutionary optimization assisted by
Gaussian random field metamodels, 2006 (expected hypervolume improvement).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Nodes and weights of the integral over a cost that is known with a normal error.
GAUSS_HERMITE = (-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)


def expected_improvement(mean: Floats, deviation: Floats, levels: Floats) -> Floats:
    """Expected excess of normal variables over levels, [n, m] (Jones et al., equation 15).

    Parameters
    ----------
    mean, deviation
        Of the variables, [n] each.
    levels
        [m].
    """
    from scipy.special import ndtr

    deviation = np.maximum(deviation, 1e-12)[:, None]
    z = (mean[:, None] - levels) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    found: Floats = deviation * (z * ndtr(z) + density)
    return found


def expected_hypervolume_improvement(
    mean: Floats,
    deviation: Floats,
    costs: Floats,
    cost_errors: Floats,
    starts: Floats,
    levels: Floats,
    end: float,
) -> Floats:
    """Expected growth of the area below a front's steps, over the (logarithm of the) cost.

    Right of a candidate's cost, the step of the front at a level grows by the candidate's excess
    over it: a sum over steps of width × expected improvement.

    Parameters
    ----------
    mean, deviation
        Of the candidates' gains, [n] each.
    costs, cost_errors
        Mean and standard deviation of the candidates' costs, [n] each.
    starts, levels
        Where each step of the front begins, rising, and its gain, [m] each. Left of the first one
        the first level counts, so that nothing is gained by being cheap and bad.
    end
        Where the last step ends.

    Returns
    -------
    array
        [n].
    """
    excess = expected_improvement(mean, deviation, levels)
    edges = np.concatenate([starts, [max(end, float(starts[-1]))]])
    left = np.concatenate([[-np.inf], edges[1:-1]])
    found = np.zeros(len(mean))
    for node, weight in GAUSS_HERMITE if np.any(cost_errors > 0) else ((0.0, 1.0),):
        at = (costs + node * cost_errors)[:, None]
        widths = np.maximum(edges[1:] - np.maximum(left, at), 0)
        found += weight * (widths * excess).sum(1)
    return found
