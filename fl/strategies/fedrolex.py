"""FedRolex: a window of filters that rolls over every layer, one filter per round.

References
----------
Alam, Liu, Yan, Zhang: FedRolex: Model-heterogeneous federated learning with rolling sub-model
extraction, NeurIPS 2022, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from distreal_dse.dropout import ChannelMap, make_policy
from fl.averaging import average_over_contributors
from fl.results import State, Update
from fl.strategies.base import FixedPlan, LocalPlan, Strategy
from fl.strategies.context import StrategyContext
from fl.strategies.levels import make_levels
from fl.world.devices import Device

# As HeteroFL's, which the paper compares with on the same levels.
LEVELS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


class FedRolex(Strategy):
    """Rolling masks of the level that fits the budget at the beginning of the round.

    In round j, a device of keep ratio β trains the filters (j + 0 … βK − 1) mod K of a layer of K
    (section 3), so all parts of the network are trained equally often. Each element is averaged
    over the devices whose window holds it, weighted by samples as everywhere here.

    The authors' code differs from the paper: its window moves downwards, because ``torch.roll``
    shifts indices up; and it weights devices alike in convolutions, and by how often elements were
    trained before in other layers.

    Layers that a shortcut ties together roll together, and kept counts are rounded as everywhere
    in the study.

    Parameters
    ----------
    context
        What is known of the run.
    widths, costs
        Of the levels, in place of the default; see `fl.strategies.levels.make_levels`.

    Raises
    ------
    InputError
        If a share is out of range, or both are given.
    """

    name = "fedrolex"

    def __init__(
        self,
        context: StrategyContext,
        widths: Sequence[float] | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:
        self._levels = make_levels(context, LEVELS, widths, costs)

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains the window of the round, whatever happens to the budget."""
        return FixedPlan(self._levels.pick(budget), make_policy("rolling"))

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average each element over the devices whose window held it."""
        return average_over_contributors(state, updates, channels)
