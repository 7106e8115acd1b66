"""Prices on a device: measuring vectors and re-pricing fronts here, and vectors nobody timed.

A device needs for it what it needs for training, and no data: neither Optuna nor Plotly.
"""

from distreal_dse.pricing._measure import Measurement, MeasureSettings, measure, stored_latencies
from distreal_dse.pricing._memory import VectorMemory, memory_of
from distreal_dse.pricing._one_rate import ONE_RATE, one_rate_knots, one_rate_setting, timeable
from distreal_dse.pricing._reprice import Repricing, reprice
from distreal_dse.pricing._seconds import SecondsPrices, StepPrices, check_priced, seconds_of
from distreal_dse.pricing._subject import (
    Subject,
    Wanted,
    find_subject,
    source_of_front,
    subject_of_front,
)

__all__ = [
    "ONE_RATE",
    "MeasureSettings",
    "Measurement",
    "Repricing",
    "SecondsPrices",
    "StepPrices",
    "Subject",
    "VectorMemory",
    "Wanted",
    "check_priced",
    "find_subject",
    "measure",
    "memory_of",
    "one_rate_knots",
    "one_rate_setting",
    "reprice",
    "seconds_of",
    "source_of_front",
    "stored_latencies",
    "subject_of_front",
    "timeable",
]
