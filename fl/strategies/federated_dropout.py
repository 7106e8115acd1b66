"""Federated Dropout: each device trains a random sub-model of one size for a round.

References
----------
Caldas, Konečný, McMahan, Talwalkar: Expanding the reach of federated learning by reducing client
resource requirements, 2018, arXiv 1812.07210, section "Federated Dropout".
"""

from __future__ import annotations

from fl.strategies.base import Strategy, Vector
from fl.strategies.context import StrategyContext
from fl.strategies.setting import AVERAGING


class FederatedDropout(Strategy):
    """Random masks per device and round, one rate for all devices and layers.

    As in the paper, a fixed number of filters is dropped, so that all sub-models have one reduced
    architecture, and only the sub-model travels. Our own choices, where the paper fixes rates by
    hand or says nothing:

    - the rate is the smallest that the slowest device can afford;
    - masks are drawn per device, so that a round trains more of the network than one sub-model,
      and channels that a shortcut ties together are dropped together;
    - "the server maps the update back to the global model": we average each element over the
      devices that had it. Averaging over the whole cohort would shrink every step by the share of
      the devices that had it (see `fl.averaging`);
    - scaling of what is kept is that of the study for all strategies.

    Parameters
    ----------
    context
        What is known of the run.
    """

    name = "federated-dropout"
    settings = {"averaging": AVERAGING}
    chosen = "per round"
    masks = "random-round"
    averaging = "contributors"

    def __init__(self, context: StrategyContext) -> None:
        super().__init__(context)
        self._vector = context.largest_within(context.weakest_budget)

    def pick(self, budget: float) -> Vector:
        """Return the vector of all devices, whatever the budget."""
        return self._vector
