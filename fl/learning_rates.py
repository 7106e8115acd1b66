"""The learning rate of devices, where it is not that of the study all the time."""

from __future__ import annotations

import math

from torch.optim import Optimizer

from distreal_dse.errors import InputError
from fl.optimizer_settings import set_option


def check_learning_rate(rate: float, what: str = "lr of a strategy") -> None:
    """Refuse a learning rate that is none; ``what`` begins the message.

    Raises
    ------
    InputError
        If it is not above 0, or infinite.
    """
    if not 0 < rate < math.inf:
        raise InputError(f"{what}: expected finite numbers above 0 such as 0.05, found {rate:g}")


def fastest_rate(optimizer: Optimizer) -> float:
    """Return the learning rate of an optimiser, that of its fastest group of parameters.

    Raises
    ------
    InputError
        If the optimiser has none.
    """
    _expect_rates(optimizer)
    return max(float(group["lr"]) for group in optimizer.param_groups)


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

    Raises
    ------
    InputError
        If the optimiser has no learning rate that could be replaced.
    """
    _expect_rates(optimizer)
    set_option(optimizer, "lr", rate)


def scale_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Multiply the learning rates of an optimiser; a factor of 1 changes no bit.

    Parameters
    ----------
    optimizer
        Without steps taken so far.
    factor
        From 0 to 1 (see `fl.schedules`).

    Raises
    ------
    InputError
        If the optimiser has no learning rate that could be changed.
    """
    if factor == 1:
        return
    _expect_rates(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor


def _expect_rates(optimizer: Optimizer) -> None:
    if not all("lr" in group for group in optimizer.param_groups):
        raise InputError(
            f"learning rate of {type(optimizer).__name__}: expected groups of parameters with 'lr',"
            " found none; leave lr and schedule out of the strategy, and --schedule and "
            "--learning-rates out of the run"
        )
