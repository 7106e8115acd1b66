"""Who trains the devices of a run in this process."""

from __future__ import annotations

from distreal_dse.errors import InputError
from fl.client import VirtualTraining
from fl.clients import Clients, InProcess
from fl.cohort.batched import Batched

AUTO, ONE_BY_ONE, BATCHED = "auto", "one-by-one", "batched"
CLIENTS = (AUTO, ONE_BY_ONE, BATCHED)


def check_clients(clients: str, workers: int = 1) -> None:
    """Refuse what is no way to train a cohort.

    Raises
    ------
    InputError
        If it is none of `CLIENTS`, or a way for one process and there are several.
    """
    if clients not in CLIENTS:
        raise InputError(
            f"devices of a cohort (--clients): expected {', '.join(CLIENTS[:-1])} or {CLIENTS[-1]},"
            f" found '{clients}'"
        )
    if clients == BATCHED and workers > 1:
        raise InputError(
            f"devices of a cohort (--clients {clients}): expected one process, found --workers "
            f"{workers}, which train one by one; leave one of the two out"
        )


def clients_here(training: VirtualTraining, clients: str = AUTO) -> Clients:
    """Return who trains the devices of a run.

    On a CPU that is one device after the other, unless asked otherwise: stacked steps of all but
    the smallest networks are slower there (docs/performance.md).

    Parameters
    ----------
    training
        The run's common part.
    clients
        ``"one-by-one"``, ``"batched"``, or ``"auto"``, which batches on a GPU.

    Raises
    ------
    InputError
        If there is no such way.
    """
    check_clients(clients)
    where = next(training.network.module.parameters()).device.type
    if clients == BATCHED or (clients == AUTO and where == "cuda"):
        return Batched(training)
    return InProcess(training)
