"""Prices on this device: measuring the latency of vectors, and re-pricing fronts with it.

A device needs for it what it needs for training, and no data: neither Optuna nor Plotly.
"""

from distreal_dse.pricing._measure import Measurement, MeasureSettings, measure, stored_latencies
from distreal_dse.pricing._reprice import Repricing, reprice
from distreal_dse.pricing._subject import (
    Subject,
    Wanted,
    find_subject,
    source_of_front,
    subject_of_front,
)

__all__ = [
    "MeasureSettings",
    "Measurement",
    "Repricing",
    "Subject",
    "Wanted",
    "find_subject",
    "measure",
    "reprice",
    "source_of_front",
    "stored_latencies",
    "subject_of_front",
]
