"""Federated training that consumes a front.

The algorithm lies here. A `Strategy` picks the dropout vector of each mini-batch,
`fl.client.train_locally` trains a device's round with them in the time that a `Pacer` keeps,
`fl.merging` averages the updates, and a `ServerOptimizer` takes a step. `fl.engine.FederatedRun`
does it round by round on virtual time, and `fl.flower` on Flower. Beside it:

- `fl.world`: what each device can afford, which data it holds, and virtual seconds;
- `fl.store`: runs as text and numbers, carried out and kept in the database;
- `fl.compare`: strategies under the same conditions, and what that shows;
- `fl.cohort`: all devices of a cohort trained at once, as on a GPU;
- `fl.live`: what a real device has free.

Client and server are plain functions of tensors: whatever drives them gets the same weights.
Nothing here imports the search or a plotting library, and only training imports PyTorch.

From Python, `fl.run` and `fl.resume` carry a run out, `fl.compare_strategies` a comparison, and
`fl.advise` tries which strategy suits a fleet (`fl.api`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl.api import (
        ComparisonResult,
        FederatedResult,
        RunFailedWarning,
        advise,
        compare_strategies,
        resume,
        run,
    )

__all__ = [
    "ComparisonResult",
    "FederatedResult",
    "RunFailedWarning",
    "advise",
    "compare_strategies",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import the public names at first use: reading stored figures must not wait for PyTorch."""
    if name in __all__:
        return getattr(import_module("fl.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
