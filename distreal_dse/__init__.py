"""Design space exploration of filter dropout for federated learning.

What a study file needs: `Study`, `Data`, `ShortRun`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distreal_dse.study import Data, ShortRun, Study

__all__ = ["Data", "ShortRun", "Study"]


def __getattr__(name: str) -> Any:
    """Import the public names at first use: the command line must not wait for PyTorch."""
    if name in __all__:
        return getattr(import_module("distreal_dse.study"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
