"""How much of its compute a device has free, over virtual time: one file per kind."""

from fl.world.availability.base import Availability, Timeline
from fl.world.availability.constant import ConstantAvailability
from fl.world.availability.markov import MarkovAvailability
from fl.world.availability.redrawn import RedrawnAvailability
from fl.world.availability.specs import make_availability
from fl.world.availability.trace import TraceAvailability

__all__ = [
    "Availability",
    "ConstantAvailability",
    "MarkovAvailability",
    "RedrawnAvailability",
    "Timeline",
    "TraceAvailability",
    "make_availability",
]
