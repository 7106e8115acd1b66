"""Federated Dropout: each device trains a random sub-model of one size for a round.

References
----------
Caldas, Konečný, McMahan, Talwalkar: Expanding the reach of federated learning by reducing client
resource requirements, 2018, arXiv 1812.07210, section "Federated Dropout".
"""

from __future__ import annotations

from distreal_dse.support.specs import unknown_name
from fl.strategies.base import Strategy, Vector
from fl.strategies.context import StrategyContext
from fl.strategies.setting import AVERAGING, Setting, as_text

RATES = ("common", "own")


def check_rates(rates: str) -> None:
    """Refuse rates that are none.

    Raises
    ------
    InputError
        If they are none of `RATES`.
    """
    if rates not in RATES:
        raise unknown_name("rates of federated-dropout", rates, rates, RATES)


class FederatedDropout(Strategy):
    """Random masks per device and round, one rate for all devices and layers.

    As in the paper, a fixed number of filters is dropped, so that all sub-models have one reduced
    architecture, and only the sub-model travels. Our own choices, where the paper fixes rates by
    hand or says nothing:

    - the rate is the smallest that the slowest device can afford;
    - with ``rates=own``, it is instead the smallest that each device can afford at the beginning of
      the round, so that sub-models differ in size, and strong devices train larger ones. That is
      not the paper's, whose sub-models are all of one size;
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
    rates
        ``"common"``, one rate for all devices as in the paper, or ``"own"``, a rate for each.

    Raises
    ------
    InputError
        If there are no such rates.
    """

    name = "federated-dropout"
    settings = {"rates": Setting(as_text, check_rates), "averaging": AVERAGING}
    chosen = "per round"
    masks = "random-round"
    averaging = "contributors"

    def __init__(self, context: StrategyContext, rates: str = "common") -> None:
        super().__init__(context)
        check_rates(rates)
        self._own = rates == "own"
        self._common = context.largest_within(context.weakest_budget)

    def pick(self, budget: float) -> Vector:
        """Return the vector of all devices, or the largest that fits the budget of this one."""
        return self.context.largest_within(budget) if self._own else self._common
