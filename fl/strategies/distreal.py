"""DISTREAL: each device looks its dropout vector up by itself, mini-batch by mini-batch.

References
----------
Rapp, Khalili, Pfeiffer, Henkel: DISTREAL, AAAI 2022, doi 10.1609/aaai.v36i7.20778.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distreal_dse.dropout import MaskPolicy, make_policy
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, LookupTable, TableVector
from distreal_dse.study import Study
from fl.strategies.base import Strategy
from fl.strategies.context import StrategyContext
from fl.strategies.nested import Nested
from fl.strategies.setting import AVERAGING, CHOOSE

# What fronts stand for that were stored before mask policies were recorded.
IMPLIED_MASKS = "random"

# Forms: vectors of a front with the masks that it was searched with, and levels without a front.
PUBLISHED, NESTED = "random", "nested"


class Distreal(Strategy):
    """Vectors from a front, masks as in the search of the front; without a front, `Nested`.

    Parameters
    ----------
    lookup
        The front as each device has it.
    policy
        Which filters are kept; None takes `masks_of` the front.
    """

    name = "distreal"
    settings = {"averaging": AVERAGING, "choose": CHOOSE}
    forms = (PUBLISHED, NESTED)
    takes_front = True
    chosen = "per mini-batch"
    averaging = "plain"  # the server need not know what was dropped

    def __init__(self, lookup: LookupTable, policy: MaskPolicy | None = None) -> None:
        self._lookup = lookup
        self.masks = masks_of(lookup.front) if policy is None else policy

    @classmethod
    def form(
        cls, settings: Mapping[str, str], with_front: bool
    ) -> tuple[type[Strategy], Mapping[str, str]]:
        """Return the form that is asked for; else this one with a front, and nested without.

        Raises
        ------
        InputError
            If there is no such form, or no front for this one.
        """
        others = {name: text for name, text in settings.items() if name != "form"}
        asked = settings.get("form", PUBLISHED if with_front else NESTED)
        if asked == NESTED:
            return Nested, others
        if asked not in cls.forms:
            expected = " or ".join(cls.forms)
            raise InputError(f"form of strategy 'distreal': expected {expected}, found '{asked}'")
        return super().form(others, with_front)

    @classmethod
    def make(cls, context: StrategyContext, **settings: Any) -> Distreal:
        """Make it of the run's front.

        Raises
        ------
        InputError
            If there is none.
        """
        front = context.front
        if front is None:
            raise InputError("strategy 'distreal': expected a front, found none")
        return cls(LookupTable(front), masks_of(front, context.study), **settings)

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
