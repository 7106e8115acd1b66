"""How much of its compute a device has free, over virtual time: one file per kind."""

from fl.availability.base import Availability, Timeline
from fl.availability.constant import ConstantAvailability
from fl.availability.markov import MarkovAvailability
from fl.availability.redrawn import RedrawnAvailability
from fl.availability.specs import make_availability
from fl.availability.trace import TraceAvailability

__all__ = [
    "Availability",
    "ConstantAvailability",
    "MarkovAvailability",
    "RedrawnAvailability",
    "Timeline",
    "TraceAvailability",
    "make_availability",
]
