"""Federated averaging of the full network: an upper bound, and what deadlines make of it.

References
----------
McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-efficient learning of deep networks
from decentralized data, AISTATS 2017, algorithm 1.

Bonawitz et al.: Towards federated learning at scale: system design, MLSys 2019, section 2.2
(devices that do not report in time are ignored).
"""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.dropout import ChannelMap, RandomMasks
from fl.averaging import fedavg
from fl.results import State, Update
from fl.strategies.base import FixedPlan, LocalPlan, Strategy
from fl.strategies.context import StrategyContext
from fl.world.devices import Device


class FedAvg(Strategy):
    """The full network on every device, and no deadlines: what there is to lose.

    Rounds wait for the slowest device that they need, so over rounds no other strategy learns from
    more; over virtual time many do. With over-commitment more devices begin and the fastest count,
    as for all strategies: what bounds the others from above is a run without it.

    Parameters
    ----------
    context
        What is known of the run.
    """

    name = "fedavg"
    limited = False

    def __init__(self, context: StrategyContext) -> None:
        self._full = context.full

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains everything."""
        return FixedPlan(self._full, RandomMasks())  # which draw nothing where nothing is dropped

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average over all updates."""
        return fedavg(updates)


class FedAvgDrop(FedAvg):
    """The full network on every device; those that miss the deadline of a round are left out."""

    name = "fedavg-drop"
    limited = True
