"""Federated Dropout: each device trains a random sub-model of one size for a round.

References
----------
Caldas, Konečný, McMahan, Talwalkar: Expanding the reach of federated learning by reducing client
resource requirements, 2018, arXiv 1812.07210, section "Federated Dropout".
"""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.dropout import ChannelMap, make_policy
from fl.averaging import average_over_contributors
from fl.results import State, Update
from fl.strategies.base import FixedPlan, LocalPlan, Strategy
from fl.strategies.context import StrategyContext
from fl.world.devices import Device


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

    def __init__(self, context: StrategyContext) -> None:
        self._vector = context.largest_within(context.weakest_budget)

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains one random sub-model, whatever the budget."""
        return FixedPlan(self._vector, make_policy("random-round"))

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average each element over the devices whose sub-model had it."""
        return average_over_contributors(state, updates, channels)
