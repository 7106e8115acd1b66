"""Federated averaging of the full network: an upper bound, and what deadlines make of it.

References
----------
McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-efficient learning of deep networks
from decentralized data, AISTATS 2017, algorithm 1.

Bonawitz et al.: Towards federated learning at scale: system design, MLSys 2019, section 2.2
(devices that do not report in time are ignored).
"""

from __future__ import annotations

from fl.strategies.base import Strategy, Vector


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
    chosen = "per round"
    masks = "ordered"  # nothing is dropped

    def pick(self, budget: float) -> Vector:
        """Return the vector that drops nothing."""
        return self.context.full


class FedAvgDrop(FedAvg):
    """The full network on every device; those that miss the deadline of a round are left out."""

    name = "fedavg-drop"
    limited = True
