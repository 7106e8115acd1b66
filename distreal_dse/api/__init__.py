"""What people call from Python, and the command line too: studies, searches, fronts, pictures.

`distreal_dse` has the names that matter; federated runs are in `fl`.
"""

from distreal_dse.api._again import reprice, verify
from distreal_dse.api._fronts import load_front, save_front
from distreal_dse.api._optimize import optimize
from distreal_dse.api._pictures import plot
from distreal_dse.api._stages import shown_search, stage_listener
from distreal_dse.api._status import status

__all__ = [
    "load_front",
    "optimize",
    "plot",
    "reprice",
    "save_front",
    "shown_search",
    "stage_listener",
    "status",
    "verify",
]
