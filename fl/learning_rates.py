"""The learning rate of devices, where a strategy has one of its own."""

from __future__ import annotations

import math

from torch.optim import Optimizer

from distreal_dse.errors import InputError


def check_learning_rate(rate: float) -> None:
    """Refuse a learning rate that is none.

    Raises
    ------
    InputError
        If it is not above 0, or infinite.
    """
    if not 0 < rate < math.inf:
        raise InputError(f"learning rate: expected a number above 0, found {rate:g}")


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give an optimiser another learning rate.

    Where its groups of parameters have several, this is that of the fastest; the others keep
    their ratios to it.

    Parameters
    ----------
    optimizer
        Without steps taken so far.
    rate
        Above 0.
    """
    fastest = max(group["lr"] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["lr"] = rate * (group["lr"] / fastest) if fastest else rate
