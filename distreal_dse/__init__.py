"""Design space exploration of filter dropout for federated learning.

From a study to a front, a picture and a federated run:

>>> import fl
>>> from distreal_dse import optimize, plot
>>> front = optimize("digits-cnn", trials=30)  # doctest: +SKIP
>>> front.lookup("20%")  # doctest: +SKIP
>>> plot(front)  # doctest: +SKIP
>>> fl.run("digits-cnn", front=front, rounds=30).accuracy  # doctest: +SKIP

A study of one's own is a `Study` of a model, `Data` and a `ShortRun`. `DropoutTrainer` trains
sub-networks in a loop of one's own. The names below are the stable ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distreal_dse.api import load_front, optimize, plot, reprice, save_front, verify
    from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, kept_counts, make_policy
    from distreal_dse.errors import DistrealError, DistrealWarning
    from distreal_dse.fronts import Front, FrontPoint, LookupTable
    from distreal_dse.study import Data, ShortRun, Study
    from fl.world.fleet import Fleet, make_fleet

__all__ = [
    "Data",
    "DistrealError",
    "DistrealWarning",
    "DroppableNetwork",
    "DropoutTrainer",
    "Fleet",
    "Front",
    "FrontPoint",
    "LookupTable",
    "ShortRun",
    "Study",
    "kept_counts",
    "load_front",
    "make_fleet",
    "make_policy",
    "optimize",
    "plot",
    "reprice",
    "save_front",
    "verify",
]

_HOMES = {
    "distreal_dse.api": ("load_front", "optimize", "plot", "reprice", "save_front", "verify"),
    "distreal_dse.dropout": ("DroppableNetwork", "DropoutTrainer", "kept_counts", "make_policy"),
    "distreal_dse.errors": ("DistrealError", "DistrealWarning"),
    "distreal_dse.fronts": ("Front", "FrontPoint", "LookupTable"),
    "distreal_dse.study": ("Data", "ShortRun", "Study"),
    "fl.world.fleet": ("Fleet", "make_fleet"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the public names at first use: the command line must not wait for PyTorch."""
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
