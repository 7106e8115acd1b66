"""Who trains the devices of a cohort: this process, or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distreal_dse.errors import DistrealError
from distreal_dse.workers import end_processes, process_pool
from fl.client import LocalTraining, train_locally
from fl.devices import Device
from fl.results import State, Update
from fl.tensors import from_bytes, to_bytes


@dataclass(frozen=True, eq=False)
class Task:
    """A device, and the indices of its samples, shape [N]."""

    device: Device
    samples: Tensor


class Clients(ABC):
    """Trains the devices of a cohort; whoever does it, the updates are the same."""

    @abstractmethod
    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: float,
        deadline: float,
    ) -> list[Update]:
        """Return the updates in the order of the tasks; see `fl.client.train_locally`."""

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Free processes and memory, whatever is under way."""


class InProcess(Clients):
    """One device after the other, here.

    Parameters
    ----------
    training
        The run's common part; its network is overwritten.
    """

    def __init__(self, training: LocalTraining) -> None:
        self._training = training

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: float,
        deadline: float,
    ) -> list[Update]:
        """Train one after the other."""
        return [
            train_locally(
                self._training, task.device, task.samples, state, round_number, now, deadline
            )
            for task in tasks
        ]


class Processes(Clients):
    """Several devices at once, in worker processes of one thread each.

    Parameters
    ----------
    workers
        Number of processes.
    make_training
        Builds the run's common part in each process, from what can be sent to it.
    """

    def __init__(self, workers: int, make_training: Callable[[], LocalTraining]) -> None:
        self._pool = process_pool(workers, _start_worker, (make_training,))
        self._busy = False

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: float,
        deadline: float,
    ) -> list[Update]:
        """Train them as processes get free.

        Raises
        ------
        DistrealError
            If a process dies.
        """
        # As bytes: tensors would travel as shared memory, a file handle for each of them.
        content = to_bytes(state)
        self._busy = True
        try:
            asked = [
                self._pool.submit(_train, task, content, round_number, now, deadline)
                for task in tasks
            ]
            where = next(iter(state.values())).device
            updates = [_unpacked(*future.result(), where) for future in asked]
        except BrokenProcessPool as error:
            raise DistrealError(
                f"a worker process died in round {round_number}: expected it to fit into memory; "
                "take fewer --workers and resume the run"
            ) from error
        self._busy = False
        return updates

    def close(self) -> None:
        """End the processes, busy or not."""
        end_processes(self._pool, self._busy)


class _Worker:
    """What a worker process knows; made by the first task, so that errors show."""

    make_training: Callable[[], LocalTraining]
    training: LocalTraining | None = None


def _start_worker(make_training: Callable[[], LocalTraining]) -> None:
    torch.set_num_threads(1)
    _Worker.make_training = staticmethod(make_training)


def _train(
    task: Task, content: bytes, round_number: int, now: float, deadline: float
) -> tuple[Update, bytes]:
    if _Worker.training is None:
        _Worker.training = _Worker.make_training()
    where = next(_Worker.training.network.module.parameters()).device
    state = from_bytes(content, where)
    update = train_locally(
        _Worker.training, task.device, task.samples, state, round_number, now, deadline
    )
    tensors = {"state." + name: tensor for name, tensor in update.state.items()}
    packed = to_bytes(tensors | {"masks": update.masks})
    return replace(update, state={}, masks=update.masks[:0, :0]), packed


def _unpacked(update: Update, content: bytes, where: torch.device) -> Update:
    tensors = from_bytes(content, where)
    masks = tensors.pop("masks").cpu()
    state = {name.removeprefix("state."): tensor for name, tensor in tensors.items()}
    return replace(update, state=state, masks=masks)
