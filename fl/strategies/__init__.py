"""What a device trains, and how updates are merged: one file per strategy."""

from fl.strategies.base import FixedPlan, LocalPlan, PricedVector, Strategy, Vector
from fl.strategies.distreal import Distreal, LookupPlan, masks_of

__all__ = [
    "Distreal",
    "FixedPlan",
    "LocalPlan",
    "LookupPlan",
    "PricedVector",
    "Strategy",
    "Vector",
    "masks_of",
]
