"""Updates made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fl.results import Update


def update(
    device: int,
    samples: int,
    state: Mapping[str, Tensor],
    masks: Tensor | None = None,
    loss: float = 1.0,
) -> Update:
    """An update of a device that dropped nothing in one mini-batch, or what ``masks`` say."""
    masks = torch.ones(1, 0, dtype=torch.bool) if masks is None else masks
    return Update(
        device=device,
        samples=samples,
        state=state,
        masks=masks,
        loss=loss,
        seconds=1.0,
        complete=True,
        training_macs=1.0,
        cost_shares=(1.0,) * len(masks),
        over_budget=0,
        bytes_down=8,
        bytes_up=8,
    )
