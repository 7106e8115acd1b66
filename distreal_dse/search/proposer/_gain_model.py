"""The model of the gain: a Gaussian process with the known noise of each value.

References
----------
Rasmussen, Williams: Gaussian Processes for Machine Learning, 2006, algorithm 2.1 (prediction under
known noise) and section 5.4.1 (marginal likelihood).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Beyond this many dimensions all have one length scale: fifty can't be told from a few hundred
# noisy values, and a gradient over all of them takes seconds.
OWN_SCALES = 12


class GainModel:
    """A Gaussian process on standardised gains with given hyperparameters."""

    def __init__(self, points: Floats, gains: Floats, noise: Floats | None, kernel: Any) -> None:
        self._points, self._gains, self._noise, self._kernel = points, gains, noise, kernel
        self._centre, self._scale = _standard(gains)
        self._process = _process(kernel, None, noise, self._scale)
        self._process.fit(points, (gains - self._centre) / self._scale)

    def __call__(self, points: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the gain at points, [n] each."""
        mean, deviation = self._process.predict(points, return_std=True)
        if self._noise is None:  # the noise that was estimated is no error of the gain
            level = self._kernel.k2.noise_level
            deviation = np.sqrt(np.maximum(np.square(deviation) - level, 0))
        return np.asarray(mean) * self._scale + self._centre, np.asarray(deviation) * self._scale

    def given(self, points: Floats, gains: Floats) -> GainModel:
        """Return the process once these points have these gains, [n] each."""
        noise = self._noise
        if noise is not None:
            noise = np.concatenate([noise, np.full(len(points), noise.max())])
        return GainModel(
            np.vstack([self._points, points]),
            np.concatenate([self._gains, gains]),
            noise,
            self._kernel,
        )


def _standard(gains: Floats) -> tuple[float, float]:
    return float(gains.mean()), float(gains.std()) or 1.0


def fitted_kernel(points: Floats, gains: Floats, noise: Floats | None) -> Any:
    """Maximise the marginal likelihood; Matérn 5/2, as gains are smooth but not analytic."""
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    dimensions = points.shape[1]
    scales = [1.0] * dimensions if dimensions <= OWN_SCALES else math.sqrt(dimensions)
    kernel = ConstantKernel(1.0, (0.05, 100.0)) * Matern(scales, (0.05, 50.0), nu=2.5)
    if noise is None:
        kernel = kernel + WhiteKernel(0.1, (1e-5, 2.0))
    centre, scale = _standard(gains)
    process = _process(kernel, "fmin_l_bfgs_b", noise, scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound is no fault
        process.fit(points, (gains - centre) / scale)
    return process.kernel_


def _process(kernel: Any, optimizer: str | None, noise: Floats | None, scale: float) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor

    alpha = 1e-8 if noise is None else np.maximum(noise / scale**2, 1e-8)
    return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=optimizer)


def expected_gains(points: Floats, gains: Floats, noise: Floats | None) -> Floats:
    """Return what is expected of points whose gains were measured with noise, [n].

    Parameters
    ----------
    points
        In the unit cube, [n, dimensions]; see `Problem`.
    gains
        As measured, [n].
    noise
        Variance of each, [n]; None has one estimated for all.
    """
    if len(points) < 2:
        return gains
    kernel = fitted_kernel(points, gains, noise)
    means: Floats = GainModel(points, gains, noise, kernel)(points)[0]
    return means
