"""Checkpoints of federated runs in the database: the newest of each run, and one to fall back to.

A checkpoint is stored with a hash, and believed only where it is whole: what it holds has the hash
that it was stored with, the names, shapes and types of the run's own state, and finite numbers.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from safetensors import SafetensorError
from sqlalchemy import Engine, Select, delete, select
from torch import Tensor

from distreal_dse.errors import StorageError, described
from distreal_dse.fronts import outlasting_restarts, reading, writing
from fl.merging import Checkpoint
from fl.store._schema import CheckpointRow
from fl.store.leases import Owner, check_owner
from fl.tensors import from_bytes, to_bytes

STATE, SERVER, TIME = "state.", "server.", "virtual_seconds"

KEPT = 2
"""Checkpoints of a run: the newest, and one for where that is damaged."""

_logger = logging.getLogger(__name__)


class _DamagedError(Exception):
    """A stored checkpoint is not what a run stored; says how."""


@outlasting_restarts
def save_checkpoint(
    engine: Engine, run_id: int, checkpoint: Checkpoint, owner: Owner | None = None
) -> None:
    """Store a checkpoint, and forget all of the run but the newest `KEPT`.

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
    content_hash = _hash(run_id, checkpoint.round, content)
    with writing(engine) as session:
        check_owner(session, run_id, owner)
        session.merge(
            CheckpointRow(
                run_id=run_id, round=checkpoint.round, content=content, content_hash=content_hash
            )
        )
        session.flush()
        older = session.scalars(_rounds(run_id)).all()[KEPT:]
        session.execute(
            delete(CheckpointRow).where(
                CheckpointRow.run_id == run_id, CheckpointRow.round.in_(older)
            )
        )


def load_checkpoint(
    engine: Engine, run_id: int, begun: Checkpoint | None = None, up_to: int | None = None
) -> Checkpoint | None:
    """Load the newest checkpoint of a run that is whole; None where none is stored.

    Those that are not are named in a warning of this module's logger.

    Parameters
    ----------
    engine
        The opened database.
    run_id
        The run's.
    begun
        What the run begins with, which has the names, shapes and types that are expected; None
        expects nothing of them.
    up_to
        The last round that a checkpoint may be of; None takes the newest.

    Raises
    ------
    StorageError
        Where the database can't be read, or there are checkpoints and none is whole.
    """
    damages = []
    for number in _stored_rounds(engine, run_id):
        if up_to is not None and number > up_to:
            continue
        try:
            checkpoint = _unpacked(engine, run_id, number)
            if begun is not None:
                _check_like(checkpoint, begun)
        except _DamagedError as damage:
            damages.append(f"that of round {number} is damaged: {damage}")
            continue
        if damages:
            _logger.warning(
                "checkpoints of run %d: %s; going on from that of round %d, which is whole",
                run_id, "; ".join(damages), number,
            )  # fmt: skip
        return checkpoint
    if damages:
        raise StorageError(
            f"checkpoints of run {run_id}: {'; '.join(damages)}: expected one that is whole, to go "
            "on from; bring the database back from a copy, or start the run anew"
        )
    return None


def _rounds(run_id: int) -> Select[int]:
    """Rounds of a run's checkpoints, the newest first."""
    of_run = select(CheckpointRow.round).where(CheckpointRow.run_id == run_id)
    return of_run.order_by(CheckpointRow.round.desc())


def _hash(run_id: int, number: int, content: bytes) -> str:
    """SHA-256 of a checkpoint and of whose it is, as hexadecimal digits."""
    return hashlib.sha256(f"{run_id} {number} ".encode() + content).hexdigest()


@outlasting_restarts
def _stored_rounds(engine: Engine, run_id: int) -> Sequence[int]:
    with reading(engine) as session:
        return session.scalars(_rounds(run_id)).all()


@outlasting_restarts
def _unpacked(engine: Engine, run_id: int, number: int) -> Checkpoint:
    with reading(engine) as session:
        row = session.get_one(CheckpointRow, (run_id, number))
        content, content_hash = row.content, row.content_hash
    # Those that an earlier version stored have no hash; all else is checked of them, too.
    if content_hash is not None and content_hash != _hash(run_id, number, content):
        raise _DamagedError("its content has another hash than when it was stored")
    try:
        tensors = from_bytes(content)
        seconds = tensors.pop(TIME).item()
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _DamagedError(f"expected tensors in safetensors, found {described(error)}") from error
    return Checkpoint(number, seconds, _part(tensors, STATE), _part(tensors, SERVER))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _check_like(checkpoint: Checkpoint, begun: Checkpoint) -> None:
    if missing := begun.state.keys() - checkpoint.state.keys():
        raise _DamagedError(f"it lacks tensor {min(missing)}")
    for name, tensor, expected in _pairs(checkpoint, begun):
        if expected is None:
            raise _DamagedError(f"tensor {name} is none of the run's")
        if (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
            raise _DamagedError(f"tensor {name} is {_kind(tensor)}, expected {_kind(expected)}")
        # What is infinite from the beginning, such as a mask, may be so.
        if not tensor.isfinite().all() and expected.isfinite().all():
            raise _DamagedError(f"tensor {name} holds numbers that are not finite")
    if not 0 <= checkpoint.virtual_seconds < math.inf:
        raise _DamagedError(f"its virtual time is {checkpoint.virtual_seconds} s")


def _pairs(
    checkpoint: Checkpoint, begun: Checkpoint
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Give each tensor and the one that it has to be like; None where there is none."""
    for name, tensor in checkpoint.state.items():
        yield name, tensor, begun.state.get(name)
    for name, tensor in checkpoint.server.items():  # KIND.NAME, like the tensor of that name
        yield name, tensor, begun.state.get(name.partition(".")[2])


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
