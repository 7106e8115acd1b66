"""Measuring what vectors cost on this device, and storing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Engine

from distreal_dse.cost import (
    Latencies,
    LatencySamples,
    MacCost,
    NoiseVerdict,
    StepTimer,
    device_fingerprint,
    fingerprint_hash,
    noise_verdict,
)
from distreal_dse.dropout import KeptCounts
from distreal_dse.fronts import StoredLatency, load_latencies, save_latencies
from distreal_dse.pricing._memory import VectorMemory
from distreal_dse.pricing._one_rate import one_rate_setting, timeable
from distreal_dse.pricing._subject import Subject


@dataclass(frozen=True)
class MeasureSettings:
    """How to measure: see `StepTimer`. The batch size is the study's where it is None."""

    repetitions: int = 30
    threads: int = 1
    batch_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """Latencies of vectors of a network on this device; ``macs`` are training MACs per sample.

    ``one_rate`` is what a front keeps of knots, where there are any (see `one_rate_setting`).
    ``memory`` is what a step takes, where that was asked for (see `memory_of`).
    """

    subject: Subject
    device: Mapping[str, Any] = field(hash=False)
    batch_size: int
    threads: int
    latencies: Latencies
    macs: Mapping[KeptCounts, float] = field(hash=False)
    one_rate: Mapping[str, Any] = field(hash=False, default_factory=dict)
    memory: Mapping[KeptCounts, VectorMemory] = field(hash=False, default_factory=dict)

    @property
    def noise(self) -> NoiseVerdict:
        """Whether the vectors can be ranked."""
        return noise_verdict(self.latencies.vectors)

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        full_macs = self.macs[self.subject.network.full_counts]
        costs = self.latencies.costs()
        return {
            "study": self.subject.study.name,
            "front": self.subject.front.label if self.subject.front else None,
            "model_fingerprint": self.subject.network.channels.fingerprint,
            "device": dict(self.device),
            "device_hash": fingerprint_hash(self.device),
            "batch_size": self.batch_size,
            "threads": self.threads,
            "full_network_seconds": asdict(self.latencies.full),
            "vectors": [
                {
                    "kept_counts": list(one.counts),
                    "kept_channels": list(self.subject.channel_counts.of(one.counts)),
                    "macs": self.macs[one.counts],
                    "macs_ratio": self.macs[one.counts] / full_macs,
                    "latency": costs[one.counts],
                    "seconds": asdict(one.seconds),
                    "ratio": asdict(one.ratio),
                    "repetitions": one.repetitions,
                    "memory": asdict(self.memory[one.counts]) if self.memory else None,
                }
                for one in self.latencies.vectors
            ],
            "noise": asdict(self.noise),
        }


def measure(
    subject: Subject,
    settings: MeasureSettings,
    engine: Engine,
    progress: Callable[[int, int], None] = lambda done, total: None,
    vectors: Sequence[KeptCounts] | None = None,
    knots: Sequence[KeptCounts] = (),
) -> Measurement:
    """Measure the subject's vectors and the full network, and store what was measured.

    An interrupted measurement stores the rounds that it has, before the interrupt goes on.

    Parameters
    ----------
    subject
        What to measure.
    settings
        How.
    engine
        An opened database.
    progress
        Called with (done, total) rounds.
    vectors
        Others than those of the subject.
    knots
        Vectors of one rate to time as well, both cut and alone; those that can't be are left out.

    Raises
    ------
    InputError
        If a setting is out of range.
    StudyError
        If the study's code fails.
    StorageError
        If the database can't be written.
    """
    network = subject.network
    batch_size = subject.study.batch_size if settings.batch_size is None else settings.batch_size
    timer = StepTimer(
        subject.study, network, subject.input_shape, batch_size, settings.threads, settings.seed
    )
    wanted = subject.vectors if vectors is None else vectors
    knots = timeable(timer, network.full_counts, knots) if settings.repetitions > 0 else ()
    timed = tuple(dict.fromkeys((network.full_counts, *wanted, *knots)))
    samples = LatencySamples(network.full_counts)
    macs = MacCost(network.channels)
    kind = next(network.module.parameters()).device.type

    def measured() -> Measurement:
        return Measurement(
            subject=subject,
            device=device_fingerprint(kind, settings.threads),
            batch_size=batch_size,
            threads=settings.threads,
            latencies=samples.latencies(timed),
            macs={counts: macs.training(counts) for counts in timed},
            one_rate=one_rate_setting(samples, knots) if knots else {},
        )

    try:
        timer.measure(timed, settings.repetitions, samples, progress, alone=knots)
    except KeyboardInterrupt:
        if len(samples):
            save_latencies(engine, _rows(measured()))
        raise
    done = measured()
    save_latencies(engine, _rows(done))
    return done


def stored_latencies(subject: Subject, engine: Engine) -> list[StoredLatency]:
    """What is stored of the subject's network, from all devices, the oldest first.

    Of a front, that of its points and the full network alone.

    Raises
    ------
    StorageError
        If the database can't be read.
    """
    network = subject.network
    stored = load_latencies(engine, network.channels.fingerprint)
    if subject.front is None:
        return stored
    wanted = {network.full_counts, *subject.vectors}
    return [latency for latency in stored if latency.kept_counts in wanted]


def _rows(measurement: Measurement) -> list[StoredLatency]:
    costs = measurement.latencies.costs()
    return [
        StoredLatency(
            study=measurement.subject.study.name,
            model_fingerprint=measurement.subject.network.channels.fingerprint,
            kept_counts=one.counts,
            device=measurement.device,
            device_hash=fingerprint_hash(measurement.device),
            batch_size=measurement.batch_size,
            threads=measurement.threads,
            latency=costs[one.counts],
            seconds_low=one.seconds.low,
            seconds_median=one.seconds.median,
            seconds_high=one.seconds.high,
            ratio_low=one.ratio.low,
            ratio_median=one.ratio.median,
            ratio_high=one.ratio.high,
            repetitions=one.repetitions,
        )
        for one in measurement.latencies.vectors
    ]
