"""What is searched: the `Study` a user describes, where it is found, what is trained of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distreal_dse.study._study import Data, ShortRun, Study

__all__ = ["Data", "ShortRun", "Study"]


def __getattr__(name: str) -> Any:
    """Import the classes at first use: finding a study must not wait for PyTorch."""
    if name in __all__:
        from distreal_dse.study import _study

        return getattr(_study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
