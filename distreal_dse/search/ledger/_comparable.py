"""What has to be the same for short runs to be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch.optim import Optimizer

from distreal_dse.dropout import DroppableNetwork, make_policy
from distreal_dse.errors import DistrealError, StudyError, described
from distreal_dse.study import Study

# Far above rounding, far below what a change of data or model does to a snapshot's loss.
SAME_LOSS = 1e-3


def comparable_settings(
    study: Study, network: DroppableNetwork, seed: int, device: str
) -> dict[str, Any]:
    """Return how short runs are made; all of it fits into JSON.

    Raises
    ------
    StudyError
        If the study's optimiser can't be made.
    """
    try:
        optimizer = study.optimizer(network.module.parameters())
    except Exception as error:  # the user's function may raise anything
        raise StudyError(f"optimizer() of study {study.name} fails: {described(error)}") from error
    if not isinstance(optimizer, Optimizer):
        raise StudyError(
            f"optimizer() of study {study.name} returned a {type(optimizer).__name__}: expected "
            "an optimiser of torch.optim"
        )
    return {
        "study": study.name,
        "seed": seed,
        "device": device,
        "model": network.channels.fingerprint,
        "scaling": network.scaling,
        "batch size": study.batch_size,
        "max rate": study.max_rate,
        "masks": make_policy(study.masks).spec,
        "clip norm": study.clip_norm,
        "granularity": study.granularity,
        "short run": {
            name: value
            for name, value in asdict(study.short_run).items()
            # Says nothing of trials.
            if name not in ("verification_replicates", "table_mini_batches")
        },
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
    }


def check_agreement(losses: Sequence[float], what: str) -> None:
    """Refuse workers that trained different snapshots.

    Parameters
    ----------
    losses
        Of the snapshot of each.
    what
        What they work on, such as ``"search 'digits'"``.

    Raises
    ------
    DistrealError
        If they differ by more than `SAME_LOSS`.
    """
    if max(losses) - min(losses) > SAME_LOSS:
        raise DistrealError(
            f"the workers of {what} trained different snapshots (validation loss "
            f"{min(losses):.4f} to {max(losses):.4f}): expected equal ones; is there randomness in "
            "the study that is not PyTorch's own?"
        )
