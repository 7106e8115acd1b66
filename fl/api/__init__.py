"""Federated training from Python, with the names of `fl`; the command line calls the same."""

from fl.api._comparisons import (
    ComparisonResult,
    Conditions,
    RunFailedWarning,
    advise,
    compare_strategies,
)
from fl.api._runs import FederatedResult, resume, run, shown_rounds

__all__ = [
    "ComparisonResult",
    "Conditions",
    "FederatedResult",
    "RunFailedWarning",
    "advise",
    "compare_strategies",
    "resume",
    "run",
    "shown_rounds",
]
