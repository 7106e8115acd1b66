"""Training all devices of a cohort at once: one small network leaves a large GPU idle."""

from fl.cohort.batched import Batched, BatchingWarning
from fl.cohort.choosing import AUTO, CLIENTS, check_clients, clients_here

__all__ = ["AUTO", "CLIENTS", "Batched", "BatchingWarning", "check_clients", "clients_here"]
