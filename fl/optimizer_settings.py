"""Settings of the devices' optimiser that a strategy may replace, beside the learning rate."""

from __future__ import annotations

import math

from torch.optim import Optimizer

from distreal_dse.errors import InputError


def check_momentum(momentum: float) -> None:
    """Refuse a momentum that is none.

    Raises
    ------
    InputError
        If it lies outside [0, 1).
    """
    if not 0 <= momentum < 1:
        raise InputError(
            f"momentum of a strategy: expected 0 ≤ momentum < 1 such as 0.9, found {momentum:g}"
        )


def check_weight_decay(decay: float) -> None:
    """Refuse a weight decay that is none.

    Raises
    ------
    InputError
        If it is below 0 or not finite.
    """
    if not 0 <= decay < math.inf:
        raise InputError(
            "weight-decay of a strategy: expected finite numbers from 0 on such as 0.0005, found "
            f"{decay:g}"
        )


def set_option(optimizer: Optimizer, option: str, value: float) -> None:
    """Give an optimiser another value of an option.

    Where its groups of parameters have several, the largest becomes this one, and the others keep
    their ratios to it, as learning rates do.

    Parameters
    ----------
    optimizer
        Without steps taken so far.
    option
        As PyTorch calls it, such as ``"momentum"`` or ``"weight_decay"``.
    value
        From 0 on.

    Raises
    ------
    InputError
        If the optimiser has no such option.
    """
    setting = option.replace("_", "-")
    if not all(option in group for group in optimizer.param_groups):
        raise InputError(
            f"{setting} of {type(optimizer).__name__}: expected groups of parameters with "
            f"'{option}', found none; leave {setting} out of the strategy, or take another "
            "optimiser in the study"
        )
    largest = max(group[option] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group[option] = value * (group[option] / largest) if largest else value
