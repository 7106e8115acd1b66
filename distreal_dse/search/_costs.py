"""What a trial costs: training MACs, counted, or latency, measured beside the search."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distreal_dse.cost import (
    Latencies,
    LatencySamples,
    MacCost,
    StepTimer,
    VectorLatency,
    device_fingerprint,
    device_text,
    noise_verdict,
)
from distreal_dse.data.batches import fetch
from distreal_dse.dropout import DroppableNetwork, KeptCounts
from distreal_dse.errors import DistrealError, InputError
from distreal_dse.fronts import COST_UNITS, FrontPoint, kept_counts_key
from distreal_dse.pricing import ONE_RATE, one_rate_knots, one_rate_setting, timeable
from distreal_dse.search.ledger import TrialArchive
from distreal_dse.study import Data, Study

SEARCH_REPETITIONS = 15
VERIFICATION_REPETITIONS = 40
REFERENCE_MACS = "reference cost (training MACs)"
REFERENCE = "reference cost (s per mini-batch)"
VERIFIED = "verified latencies"

Progress = Callable[[int, int], None]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settled:
    """Verified points with their final costs, and why others have none, by their key."""

    points: tuple[FrontPoint, ...]
    failures: Mapping[str, str]


class TrialCost(ABC):
    """The first objective of a search, and the costs of its front.

    The driver calls ``begin`` once, ``restore`` for each finished trial that is stored, ``price``
    before the short runs of a vector that has no cost yet, and ``settle`` at the end.
    """

    metric: str
    #: Whether nothing else may run while a vector is priced.
    alone: bool
    #: What trials have in common that are comparable in cost; empty for MACs, as it always was.
    comparable: Mapping[str, Any]
    #: Fingerprint of the device; empty for MACs.
    device: Mapping[str, Any]
    #: For readers of the study in optuna-dashboard.
    attributes: Mapping[str, Any]
    #: Cost of the full network.
    reference: float

    def begin(self, archive: TrialArchive) -> None:  # noqa: B027
        """Find out the reference cost, where it is not known yet."""

    def restore(self, counts: KeptCounts, attributes: Mapping[str, Any]) -> None:  # noqa: B027
        """Remember what a vector cost from the attributes of its trial."""

    def price(self, counts: KeptCounts) -> str:
        """Find out what a vector costs; returns why that failed, or nothing."""
        return ""

    @abstractmethod
    def cost(self, counts: KeptCounts) -> float:
        """Cost of a vector that has a price."""

    @abstractmethod
    def predict(self, counts: Counts) -> tuple[Floats, Floats]:
        """Logarithms of the costs of vectors, [n, groups], and their standard errors, [n] each."""

    def estimate(self, counts: KeptCounts) -> float:
        """Cost of a vector that may have no price, as well as it is known."""
        return math.exp(float(self.predict(np.array([counts]))[0][0]))

    @abstractmethod
    def trial_attributes(self, counts: KeptCounts) -> dict[str, Any]:
        """What to store with a trial."""

    def settle(
        self, points: Sequence[FrontPoint], archive: TrialArchive, progress: Progress
    ) -> Settled:
        """Find out the final costs of the verified points."""
        return Settled(tuple(points), {})

    def front_settings(self, points: Sequence[FrontPoint]) -> dict[str, Any]:
        """What the front's settings say of its costs."""
        return {}


class TrialMacs(TrialCost):
    """Training MACs per sample."""

    metric, alone = "macs", False

    def __init__(self, network: DroppableNetwork) -> None:
        self._macs = MacCost(network.channels)
        self.reference = self._macs.full
        self.comparable, self.device = {}, {}
        self.attributes = {
            REFERENCE_MACS: self._macs.full,
            "read": _READ.format("training MACs per sample"),
        }

    def cost(self, counts: KeptCounts) -> float:
        """Training MACs of one sample."""
        return self._macs.training(counts)

    def estimate(self, counts: KeptCounts) -> float:
        """As `cost`: nothing has to be estimated."""
        return self.cost(counts)

    def predict(self, counts: Counts) -> tuple[Floats, Floats]:
        """Known without an error."""
        costs = np.log(self._macs.training_many(counts))
        return costs, np.zeros_like(costs)

    def trial_attributes(self, counts: KeptCounts) -> dict[str, Any]:
        """The share of the full network's cost."""
        return {"cost ratio": self.cost(counts) / self.reference}


class LatencyPredictor:
    """Latencies of vectors that were not measured, from those that were.

    A Gaussian process on the logarithms of kept counts and of MACs; its error is what steps of the
    hardware leave unexplained (Rasmussen, Williams: Gaussian Processes for Machine Learning, 2006).

    Parameters
    ----------
    macs
        Counts MACs.
    ratios
        Measured latencies over that of the full network, by kept counts; at least one.
    """

    def __init__(self, macs: MacCost, ratios: Mapping[KeptCounts, float]) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        self._macs, self.measured = macs, len(ratios)
        kernel = ConstantKernel(1.0, (0.05, 100.0)) * Matern(2.0, (0.1, 50.0), nu=2.5)
        process = GaussianProcessRegressor(kernel + WhiteKernel(0.01, (1e-6, 1.0)))
        logs = np.log([*ratios.values()])
        self._centre, self._scale = float(logs.mean()), float(logs.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hyperparameter at its bound is no fault
            self._process = process.fit(
                self._features(np.array([*ratios])), (logs - self._centre) / self._scale
            )

    def __call__(self, counts: Counts) -> tuple[Floats, Floats]:
        """Return the logarithms of ratios, and their standard errors, [n] each."""
        mean, error = self._process.predict(self._features(counts), return_std=True)
        return mean * self._scale + self._centre, error * self._scale

    def _features(self, counts: Counts) -> Floats:
        macs = self._macs.training_many(counts)
        found: Floats = np.column_stack([np.log(counts), np.log(macs)])
        return found


class TrialLatency(TrialCost):
    """Seconds per training mini-batch on this device, one thread.

    A trial is compared by its median ratio to the full network, times one reference that the whole
    search shares: what the full network took when it began. So a machine that grows slower does not
    make later trials dearer. At the end all candidates are measured again, in turn.
    """

    metric, alone = "latency", True

    def __init__(self, study: Study, network: DroppableNetwork, data: Data, seed: int) -> None:
        inputs, _ = fetch(data.train, torch.tensor([0]))
        self._timer = StepTimer(study, network, inputs.shape[1:], study.batch_size, seed=seed)
        self._full_counts = network.full_counts
        self._macs = MacCost(network.channels)
        self._measured: dict[KeptCounts, VectorLatency] = {}
        self._predictor: LatencyPredictor | None = None
        self._verified: Mapping[str, Any] = {}
        self._knots = one_rate_knots(network.groups, study.granularity)
        kind = next(network.module.parameters()).device.type
        self.device = device_fingerprint(kind, threads=1)
        self.comparable = {"cost": "latency", "measured on": device_text(self.device)}
        self.attributes = {
            "device": dict(self.device),
            "read": _READ.format("seconds per training mini-batch"),
        }

    def begin(self, archive: TrialArchive) -> None:
        """Measure the full network, or take what it took when the search began."""
        stored = archive.recall(REFERENCE)
        if stored is None:
            full = self._measure([self._full_counts], VERIFICATION_REPETITIONS).full
            stored = archive.remember(REFERENCE, full.median)
        self.reference = float(stored)

    def restore(self, counts: KeptCounts, attributes: Mapping[str, Any]) -> None:
        """Take the measurement that is stored with the trial."""
        self._measured[counts] = VectorLatency.from_json(attributes["latency"])

    def price(self, counts: KeptCounts) -> str:
        """Measure the vector in turn with the full network, unless it was measured before."""
        if counts not in self._measured:
            try:
                (found,) = self._measure([counts], SEARCH_REPETITIONS).vectors
            except DistrealError as error:
                return str(error)
            self._measured[counts] = found
        return ""

    def cost(self, counts: KeptCounts) -> float:
        """Median ratio × the reference."""
        return self._measured[counts].ratio.median * self.reference

    def predict(self, counts: Counts) -> tuple[Floats, Floats]:
        """From what was measured so far: latencies follow MACs and widths, with steps."""
        if self._predictor is None or self._predictor.measured != len(self._measured):
            medians = {key: one.ratio.median for key, one in self._measured.items()}
            self._predictor = LatencyPredictor(self._macs, medians)
        logs, errors = self._predictor(counts)
        return logs + math.log(self.reference), errors

    def trial_attributes(self, counts: KeptCounts) -> dict[str, Any]:
        """The measurement, the share of the full network's time, and training MACs."""
        measured = self._measured[counts]
        return {
            "cost ratio": measured.ratio.median,
            "training MACs": self._macs.training(counts),
            "latency": measured.as_json(),
        }

    def settle(
        self, points: Sequence[FrontPoint], archive: TrialArchive, progress: Progress
    ) -> Settled:
        """Measure all points again together; what a finished search measured is taken again.

        Raises
        ------
        DistrealError
            If none can be measured.
        """
        stored = archive.recall(VERIFIED)
        found = Latencies.from_json(stored) if stored else None
        known = found.costs() if found else {}
        failures = self._failures([p.kept_counts for p in points if p.kept_counts not in known])
        vectors = [p.kept_counts for p in points if kept_counts_key(p.kept_counts) not in failures]
        if points and not vectors:
            raise DistrealError(
                f"none of {len(points)} verified vectors can be timed; the last one: "
                f"{[*failures.values()][-1]}"
            )
        if found is None or not known.keys() >= set(vectors):
            stored = self._verify(vectors, progress)
            archive.remember(VERIFIED, stored)
            found = Latencies.from_json(stored)
        self._verified, costs = stored, found.costs()
        self.reference = found.full.median
        kept = [point for point in points if point.kept_counts in costs]
        return Settled(
            tuple(replace(point, cost=costs[point.kept_counts]) for point in kept), failures
        )

    def front_settings(self, points: Sequence[FrontPoint]) -> dict[str, Any]:
        """The measurements, and whether the points can be told apart."""
        kept = {point.kept_counts for point in points}
        timed = Latencies.from_json(self._verified).vectors
        noise = noise_verdict(one for one in timed if one.counts in kept)
        return {"latency": {**self._verified, "noise": asdict(noise)}}

    def _verify(self, vectors: Sequence[KeptCounts], progress: Progress) -> Mapping[str, Any]:
        """Measure vectors, and networks of one rate for the prices of others."""
        knots = timeable(self._timer, self._full_counts, self._knots)
        timed = tuple(dict.fromkeys((*vectors, *knots)))
        samples = LatencySamples(self._full_counts)
        self._timer.measure(timed, VERIFICATION_REPETITIONS, samples, progress, alone=knots)
        return {
            **samples.latencies(timed).as_json(),
            ONE_RATE: one_rate_setting(samples, knots),
        }

    def _failures(self, vectors: Sequence[KeptCounts]) -> dict[str, str]:
        """Why vectors can't be timed, by their key; some were never priced before."""
        failures: dict[str, str] = {}
        for counts in vectors:
            if counts not in self._measured:
                try:
                    self._measure([counts], 1)
                except DistrealError as error:
                    failures[kept_counts_key(counts)] = str(error)
        return failures

    def _measure(
        self,
        vectors: Sequence[KeptCounts],
        repetitions: int,
    ) -> Latencies:
        samples = LatencySamples(self._full_counts)
        self._timer.measure(vectors, repetitions, samples)
        return samples.latencies(vectors)


_READ = (
    "value 0: {}; value 1: fall of the validation loss of the full network in a short run, mean "
    "over replicates, the luck that all vectors share in a replicate taken away; a parameter is "
    "the kept share of a channel group"
)


def trial_cost(
    metric: str, study: Study, network: DroppableNetwork, data: Data, seed: int
) -> TrialCost:
    """Make the cost of a search."""
    if metric == "latency":
        return TrialLatency(study, network, data, seed)
    return TrialMacs(network)


def check_metric(metric: str) -> None:
    """Refuse a cost metric that there is none of.

    Raises
    ------
    InputError
        If it is neither macs nor latency.
    """
    if metric not in COST_UNITS:
        raise InputError(f"--cost is '{metric}': expected {' or '.join(COST_UNITS)}")
