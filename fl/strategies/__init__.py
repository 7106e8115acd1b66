"""What a device trains, and how updates are merged: one file per strategy."""

from fl.strategies.base import PricedVector, Strategy
from fl.strategies.distreal import Distreal, masks_of

__all__ = ["Distreal", "PricedVector", "Strategy", "masks_of"]
