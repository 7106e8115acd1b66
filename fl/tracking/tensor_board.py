"""TensorBoard: events in a folder, on an axis of rounds and one of virtual seconds."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from fl.results import RoundResult
from fl.store.runs import Run
from fl.tracking.base import Tracker, figures_of, key


class TensorBoard(Tracker):
    """Events in a folder for each run; ``tensorboard --logdir`` shows them.

    Its target is the folder, by default ``events``. The time axis shows virtual seconds.
    """

    name = extra = "tensorboard"
    _writer: Any = None

    @classmethod
    def package(cls) -> ModuleType:
        """As for `Tracker`."""
        import torch.utils.tensorboard

        return torch.utils.tensorboard

    def begin(self, run: Run) -> None:
        """Open the run's own folder; events that are there from an earlier start are purged."""
        folder = Path(self.target or "events") / folder_name(run)
        purged = 0 if folder.exists() else None
        self._writer = self.package().SummaryWriter(str(folder), purge_step=purged, flush_secs=5)

    def round(self, result: RoundResult) -> None:
        """Add a scalar for each figure."""
        write_scalars(self._writer, result)
        self._writer.flush()

    def end(self, failed: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def folder_name(run: Run) -> str:
    """The folder of a run among those of others, those of other databases too."""
    return f"{run.id}-{run.strategy.replace(':', '-')}-seed{run.seed}-{key(run)[:8]}"


def write_scalars(writer: Any, result: RoundResult) -> None:
    """Add a scalar for each figure of a round that is known."""
    for name, value in figures_of(result).items():
        if name not in ("round", "virtual_seconds") and value is not None:
            writer.add_scalar(name, value, result.round, result.virtual_seconds)
