"""HeteroFL: each device trains the first filters of every layer, as many as its level allows.

References
----------
Diao, Ding, Tarokh: HeteroFL: Computation and communication efficient federated learning for
heterogeneous clients, ICLR 2021, section 3.
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

# Hidden-channel shrinkage to the power of 0 … 4, with the shrinkage ratio 0.5: levels a to e of the
# paper's experiments.
LEVELS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


class HeteroFl(Strategy):
    """Ordered masks of the level that fits the budget at the beginning of the round.

    The element-wise average over the devices that hold an element is the paper's, weighted by
    samples as everywhere here (the authors' code weights devices alike). Of its other ingredients:

    - *Scaler* (training outputs of each layer over the keep ratio): the study's scaling, whose
      ``"inverted"`` multiplies the inputs of the next layer by the same factor;
    - *static batch normalisation* (no running statistics in training, measured on all data
      afterwards): mini-batches normalise by their own statistics anyway, and evaluations measure
      the running ones again (`distreal_dse.evaluation`);
    - *masked cross-entropy* (logits of classes that a device has no samples of are set to zero, and
      the rows of the output layer are averaged over the devices that hold their class): both are
      no matter of masks, and so an option of the run for all strategies
      (`fl.settings.RunSettings.masked_loss`). Without it, as by default, this strategy has neither.

    Kept counts are rounded as everywhere in the study; the authors' code rounds up.

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

    name = "heterofl"

    def __init__(
        self,
        context: StrategyContext,
        widths: Sequence[float] | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:
        self._levels = make_levels(context, LEVELS, widths, costs)

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that trains the level of the device, whatever happens to its budget."""
        return FixedPlan(self._levels.pick(budget), make_policy("ordered"))

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average each element over the devices whose level has it."""
        return average_over_contributors(state, updates, channels)
