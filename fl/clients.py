"""Who trains the devices of a cohort: this process, or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distreal_dse.errors import DistrealError
from distreal_dse.support.temporary import TemporaryFolder
from distreal_dse.support.workers import end_processes, process_pool
from fl.client import VirtualTraining, train_virtually
from fl.results import State, Update
from fl.tensors import from_file, to_file
from fl.world.devices import Device
from fl.world.exact import Seconds


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
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Return the updates in the order of the tasks; see `fl.client.train_virtually`."""

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Free processes and memory, whatever is under way."""


class InProcess(Clients):
    """One device after the other, here.

    Parameters
    ----------
    training
        The run's common part; its network is overwritten.
    """

    def __init__(self, training: VirtualTraining) -> None:
        self._training = training

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Train one after the other."""
        return [
            train_virtually(
                self._training, task.device, task.samples, state, round_number, now, deadline
            )
            for task in tasks
        ]


class Processes(Clients):
    """Several devices at once, in worker processes of one thread each.

    States travel in files of a temporary folder. Through the pipes of the processes, they would be
    copied several times, and the global one once for each device rather than for each process. No
    tensor goes through them at all: PyTorch would open a socket for it, in a temporary folder that
    is left behind where processes are killed.

    Parameters
    ----------
    workers
        Number of processes.
    make_training
        Builds the run's common part in each process, from what can be sent to it.
    """

    def __init__(self, workers: int, make_training: Callable[[], VirtualTraining]) -> None:
        self._folder = TemporaryFolder()
        leave_nothing = partial(rmtree, self._folder.path, ignore_errors=True)
        self._pool = process_pool(workers, _start_worker, (make_training,), leave_nothing)
        self._calls = count()
        self._busy = False

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Train them as processes get free.

        Raises
        ------
        DistrealError
            If a process dies, or there is no room for states in the temporary folder.
        """
        folder = self._folder.path
        # A name of its own, as processes keep what they read until there is another one.
        given = folder / f"state-{next(self._calls)}.safetensors"
        to_file(state, given)
        self._busy = True
        try:
            asked = [
                self._pool.submit(
                    _train, one.device, one.samples.numpy(), given, round_number, now, deadline
                )
                for one in tasks
            ]
            where = next(iter(state.values())).device
            updates = [_received(future.result(), folder, where) for future in asked]
        except BrokenProcessPool as error:
            raise DistrealError(
                f"a worker process died in round {round_number}: expected it to fit into memory; "
                "take fewer --workers and resume the run"
            ) from error
        self._busy = False
        given.unlink()
        return updates

    def close(self) -> None:
        """End the processes, busy or not."""
        end_processes(self._pool, self._busy)
        self._folder.close()


class _Worker:
    """What a worker process knows; made by the first task, so that errors show."""

    make_training: Callable[[], VirtualTraining]
    training: VirtualTraining | None = None
    given: Path | None = None
    state: State


def _start_worker(make_training: Callable[[], VirtualTraining]) -> None:
    torch.set_num_threads(1)
    _Worker.make_training = staticmethod(make_training)


def _train(
    device: Device,
    samples: NDArray[np.int64],
    given: Path,
    round_number: int,
    now: Seconds,
    deadline: Seconds,
) -> Update:
    """Train a device; what is large of its update goes to a file beside the given state."""
    if _Worker.training is None:
        _Worker.training = _Worker.make_training()
    if _Worker.given != given:
        where = next(_Worker.training.network.module.parameters()).device
        _Worker.given, _Worker.state = given, from_file(given, where)
    update = train_virtually(
        _Worker.training,
        device,
        torch.from_numpy(samples),
        _Worker.state,
        round_number,
        now,
        deadline,
    )
    tensors = {"state." + name: tensor for name, tensor in update.state.items()}
    to_file(tensors | {"masks": update.masks}, _place(given.parent, update))
    return replace(update, state={}, masks=torch.empty(0, 0, dtype=update.masks.dtype))


def _received(update: Update, folder: Path, where: torch.device) -> Update:
    place = _place(folder, update)
    tensors = from_file(place, where)
    place.unlink()
    masks = tensors.pop("masks").cpu()
    state = {name.removeprefix("state."): tensor for name, tensor in tensors.items()}
    return replace(update, state=state, masks=masks)


def _place(folder: Path, update: Update) -> Path:
    return folder / f"device-{update.device}.safetensors"
