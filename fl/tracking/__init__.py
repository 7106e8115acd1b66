"""Figures of a run sent to TensorBoard, MLflow or Weights & Biases while it goes."""

from fl.tracking.base import Tracker, TrackingWarning, figures_of
from fl.tracking.registry import check_trackers, make_trackers, tracker_names
from fl.tracking.tracked import tracked

__all__ = [
    "Tracker",
    "TrackingWarning",
    "check_trackers",
    "figures_of",
    "make_trackers",
    "tracked",
    "tracker_names",
]
