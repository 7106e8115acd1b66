"""The optimisers that sub-networks can be trained with."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer

from distreal_dse.errors import UnsupportedOptimizerError

# Optimisers that update each element from the state of that element alone, so that the state of
# kept filters can be cut out and put back.
ELEMENTWISE_OPTIMIZERS = (
    torch.optim.Adadelta, torch.optim.Adagrad, torch.optim.Adam, torch.optim.Adamax,
    torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.SGD,
)  # fmt: skip
# What makes the step of an optimiser; a subclass with its own may do anything.
STEP = ("step", "_init_group")


def elementwise_kind(optimizer: Optimizer) -> type[Optimizer]:
    """The known element-wise optimiser whose step this one takes.

    Raises
    ------
    UnsupportedOptimizerError
        If there is none.
    """
    found = type(optimizer)
    for kind in found.__mro__:
        if kind not in ELEMENTWISE_OPTIMIZERS:
            continue
        for name in STEP:
            if _method(found, name) is not _method(kind, name):
                raise UnsupportedOptimizerError(
                    f"optimiser {found.__name__} is not supported: it has a {name}() of its own, "
                    f"which may not be element-wise; expected that of {kind.__name__}"
                )
        return kind
    raise UnsupportedOptimizerError(
        f"optimiser {found.__name__} is not supported: expected one of "
        + ", ".join(sorted(kind.__name__ for kind in ELEMENTWISE_OPTIMIZERS))
    )


def _method(kind: type[Optimizer], name: str) -> Any:
    # PyTorch wraps step() of each class anew when the first object of it is made.
    return inspect.unwrap(getattr(kind, name))
