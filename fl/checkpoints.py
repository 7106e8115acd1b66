"""Checkpoints of federated runs in the database: the newest one of each run."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from sqlalchemy import Engine
from torch import Tensor

from distreal_dse.errors import StorageError
from distreal_dse.fronts import reading, writing
from fl._schema import CheckpointRow
from fl.engine import Checkpoint
from fl.leases import Owner, check_owner
from fl.tensors import from_bytes, to_bytes

STATE, SERVER, TIME = "state.", "server.", "virtual_seconds"


def save_checkpoint(
    engine: Engine, run_id: int, checkpoint: Checkpoint, owner: Owner | None = None
) -> None:
    """Store a checkpoint in place of an earlier one of the run.

    Raises
    ------
    RunHeldError
        If ``owner`` does not carry it out any more.
    StorageError
        Where the database can't be written.
    """
    content = to_bytes(
        {STATE + name: tensor for name, tensor in checkpoint.state.items()}
        | {SERVER + name: tensor for name, tensor in checkpoint.server.items()}
        | {TIME: torch.tensor(checkpoint.virtual_seconds, dtype=torch.float64)}
    )
    with writing(engine) as session:
        check_owner(session, run_id, owner)
        session.merge(CheckpointRow(run_id=run_id, round=checkpoint.round, content=content))


def load_checkpoint(engine: Engine, run_id: int) -> Checkpoint | None:
    """Load the newest checkpoint of a run; None where it has none.

    Raises
    ------
    StorageError
        Where the database can't be read, or what it holds is no checkpoint.
    """
    with reading(engine) as session:
        row = session.get(CheckpointRow, run_id)
        if row is None:
            return None
        number, content = row.round, row.content
    try:
        tensors = from_bytes(content)
        seconds = tensors.pop(TIME).item()
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise StorageError(
            f"checkpoint of run {run_id} is damaged ({error}): expected tensors in the format of "
            "safetensors; start the run anew"
        ) from error
    return Checkpoint(number, seconds, _part(tensors, STATE), _part(tensors, SERVER))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
