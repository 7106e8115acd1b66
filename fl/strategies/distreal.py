"""DISTREAL: each device looks its dropout vector up by itself, mini-batch by mini-batch.

References
----------
Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from distreal_dse.dropout import ChannelMap, MaskPolicy, make_policy
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front, LookupTable, TableVector
from distreal_dse.study import Study
from fl.averaging import make_averaging
from fl.results import State, Update
from fl.strategies.base import LocalPlan, Strategy
from fl.world.devices import Device

# What fronts stand for that were stored before mask policies were recorded.
IMPLIED_MASKS = "random"


class Distreal(Strategy):
    """Vectors from a front, masks as in the search of the front.

    Parameters
    ----------
    lookup
        The front as each device has it.
    policy
        Which filters are kept; None takes `masks_of` the front.
    averaging
        ``"plain"`` averages over all updates, whatever was dropped in them: the server need not
        know. ``"contributors"`` and ``"pooled"`` heed it (see `fl.averaging`; our own choices).

    Raises
    ------
    InputError
        If there is no such averaging.
    """

    name = "distreal"

    def __init__(
        self, lookup: LookupTable, policy: MaskPolicy | None = None, averaging: str = "plain"
    ) -> None:
        self._lookup = lookup
        self._average = make_averaging(averaging)
        self.policy = masks_of(lookup.front) if policy is None else policy

    def plan(self, device: Device, round_number: int, budget: float, seed: int) -> LocalPlan:
        """Return a plan that looks up the budget of each mini-batch."""
        # A copy of the policy, so that no two devices share its state.
        return LookupPlan(self._lookup, copy.deepcopy(self.policy))

    def aggregate(self, state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        """Average as was asked for."""
        return self._average(state, updates, channels)


class LookupPlan(LocalPlan):
    """The best vector of a lookup table that fits the budget of the mini-batch.

    Parameters
    ----------
    lookup
        The table as the device has it.
    masks
        Which filters are kept.
    """

    def __init__(self, lookup: LookupTable, masks: MaskPolicy) -> None:
        super().__init__(masks)
        self._lookup = lookup

    def pick(self, budget: float) -> TableVector:
        """Return the best vector that fits, or the cheapest where none does (our own choice)."""
        return self._lookup.pick_or_cheapest(budget)


def masks_of(front: Front, study: Study | None = None) -> MaskPolicy:
    """Make the mask policy that a front was searched with.

    Parameters
    ----------
    front
        The front; its settings hold the text of the policy.
    study
        Where its own policy is that of the front, it is taken; so it need not be one that text
        can make.

    Raises
    ------
    FrontError
        If the front's settings hold something else than text there.
    InputError
        If there is no policy of this text.
    """
    spec = front.settings.get("masks", IMPLIED_MASKS)
    if not isinstance(spec, str):
        raise FrontError(
            f"front {front.label}: masks in its settings: expected text such as "
            f"'{IMPLIED_MASKS}', found {spec!r}"
        )
    if study is not None:
        own = make_policy(study.masks)
        if own.spec == spec:
            return own
    return make_policy(spec)
