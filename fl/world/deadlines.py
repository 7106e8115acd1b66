"""Which updates a round waits for, and how long it lasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from distreal_dse.errors import InputError
from fl.results import MERGED, Outcome, Update

LatePolicy = Literal["drop", "partial", "wait"]


@dataclass(frozen=True)
class RoundRules:
    """When a round ends, and what becomes of devices that are not done by then.

    Parameters
    ----------
    deadline
        Over the time allotted to a device's mini-batches: a slot for each of those that an average
        device has. None waits for every device.
    late
        What becomes of devices that would miss the deadline: ``"drop"`` leaves their updates out,
        ``"partial"`` takes what they have trained until then, ``"wait"`` waits for them and
        counts them.
    overcommit
        So many more devices train than the cohort needs, as a share of the cohort, ≥ 0; the
        fastest count (Bonawitz et al.: Towards federated learning at scale, MLSys 2019,
        section 4.2).

    Raises
    ------
    InputError
        If a value is out of range.
    """

    deadline: float | None = None
    late: LatePolicy = "drop"
    overcommit: float = 0.0

    def __post_init__(self) -> None:
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise InputError(f"deadline of rounds: expected more than 0, found {self.deadline}")
        if self.late not in get_args(LatePolicy):
            known = ", ".join(get_args(LatePolicy))
            raise InputError(f"late devices: expected one of {known}, found {self.late!r}")
        if not 0 <= self.overcommit < math.inf:
            raise InputError(f"overcommit: expected 0 or more, found {self.overcommit}")

    def begun(self, cohort: int) -> int:
        """Return how many devices train so that ``cohort`` of them count."""
        return math.ceil(round(cohort * (1 + self.overcommit), 6))


def arrived(update: Update, late: LatePolicy) -> bool:
    """Whether the server has an update in time, so that it may be merged if it can be trusted.

    Devices know the deadline, unless they are waited for: what is complete came in time.
    """
    return update.mini_batches > 0 and (update.complete or late == "partial")


def settle(
    updates: Sequence[Update],
    trusted: Sequence[bool],
    due: Sequence[int],
    cohort: int,
    deadline: float,
    late: LatePolicy,
) -> tuple[list[Outcome], float]:
    """Say what becomes of each update, and after how many virtual seconds the round ends.

    Parameters
    ----------
    updates
        Of all devices that trained.
    trusted
        Whether each of them may be merged.
    due
        Mini-batches that each of them had to train, ≥ 1.
    cohort
        Updates that the server needs.
    deadline
        Virtual seconds since the start of the round; infinite for none.
    late
        See `RoundRules`.

    Returns
    -------
    tuple
        Outcomes in the order of the updates; the seconds. The round ends with the last update
        that it needs, and not before the deadline where it lacks some that are still to come.
    """
    outcomes = [
        _outcome(update, is_trusted, deadline, late)
        for update, is_trusted in zip(updates, trusted, strict=True)
    ]
    merged = sorted(
        (i for i, outcome in enumerate(outcomes) if outcome in MERGED),
        key=lambda i: _rank(updates[i], due[i]),
    )
    for index in merged[cohort:]:
        outcomes[index] = "surplus"
    if len(merged) >= cohort and updates[merged[cohort - 1]].complete:
        return outcomes, updates[merged[cohort - 1]].seconds
    if math.isfinite(deadline) and {"missed", "partial"} & set(outcomes):
        return outcomes, deadline
    return outcomes, max((one.seconds for one in updates if arrived(one, late)), default=0.0)


def _rank(update: Update, due: int) -> tuple[float, float, int]:
    """The fastest of those that are done, then those that are nearest to it.

    Who gives up early is not fast.
    """
    left = 0.0 if update.complete else 1 - update.mini_batches / due
    return left, update.seconds, update.device


def _outcome(update: Update, trusted: bool, deadline: float, late: LatePolicy) -> Outcome:
    if not arrived(update, late):
        return "missed"
    if not trusted:
        return "rejected"
    if not update.complete:
        return "partial"
    return "late" if late == "wait" and update.seconds > deadline else "accepted"
