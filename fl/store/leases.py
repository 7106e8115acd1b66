"""Who carries out a run: one process at a time, also on several machines."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from distreal_dse.fronts import leases
from distreal_dse.support.owners import Owner
from fl.store._schema import RunRow

__all__ = ["Owner", "RunHeldError", "check_owner", "holding"]

RunHeldError = leases.HeldError
"""Another process carries out the run."""


def holding(engine: Engine, run_id: int) -> AbstractContextManager[Owner]:
    """Own a run; gives the owner, for those who store something of it.

    Raises
    ------
    RunHeldError, InputError, StorageError
        As `distreal_dse.fronts.leases.holding`, on entering.
    """
    return leases.holding(engine, _lease(run_id))


def check_owner(session: Session, run_id: int, owner: Owner | None) -> None:
    """Refuse what somebody stores who is not the owner any more; None for those who never were.

    To be called in the transaction that stores it.

    Raises
    ------
    RunHeldError
        If the run was taken over.
    """
    leases.check_owner(session, _lease(run_id), owner)


def _lease(run_id: int) -> leases.Lease:
    return leases.Lease(RunRow, run_id, f"run {run_id}")
