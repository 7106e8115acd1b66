"""Copies of a user's network, and why there can be none."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from distreal_dse.errors import UnsupportedModelError, described


def copied(model: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """A deep copy of ``model``; ``memo`` maps the ``id`` of objects to what takes their place.

    Raises
    ------
    UnsupportedModelError
        Naming the layer and its attribute, if there can be none.
    """
    try:
        return copy.deepcopy(model, dict(memo or {}))
    except Exception as error:  # the user's layers hold what they like
        raise UnsupportedModelError(
            f"{_culprit(model) or f'model {type(model).__name__}'} can't be copied "
            f"({described(error)}): expected a network that copy.deepcopy() takes; keep there "
            "neither outputs of a forward pass nor open files, locks or generators"
        ) from error


def refuse_lazy_layers(model: nn.Module) -> None:
    """Raise an error that names the first layer whose weights have no shape yet.

    Raises
    ------
    UnsupportedModelError
        If there is one.
    """
    for name, layer in model.named_modules():
        tensors = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        if any(map(is_lazy, tensors)):
            raise UnsupportedModelError(
                f"layer {name or type(model).__name__} ({type(layer).__name__}) has no weights "
                "yet: expected a network with weights; run it once on a batch before"
            )


def _culprit(model: nn.Module) -> str:
    """The first attribute that can't be copied on its own, and its layer, or an empty text."""
    for name, layer in model.named_modules():
        for attribute, value in vars(layer).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value)
            except Exception:  # likewise
                return f"attribute {attribute} of layer {name or type(model).__name__}"
    return ""
