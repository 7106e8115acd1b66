"""Weights & Biases: a run of a project; offline where ``$WANDB_MODE`` says so."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fl.results import RoundResult
from fl.store.runs import Run
from fl.tracking.base import Tracker, figures_of, key, settings_of, title


class WeightsAndBiases(Tracker):
    """A run with the settings as its configuration.

    Its target is the project, by default the study's name.
    """

    name = extra = "wandb"
    _run: Any = None
    _next = 0

    @classmethod
    def package(cls) -> ModuleType:
        """As for `Tracker`."""
        import wandb

        return wandb

    def begin(self, run: Run) -> None:
        """Begin a run there, or go on with the one that this run began before."""
        wandb = self.package()
        self._run = wandb.init(
            project=self.target or run.study,
            id=key(run),
            name=title(run),
            group=run.comparison,
            config=dict(settings_of(run)),
            resume="allow",
            reinit="create_new",  # a comparison has one after the other
            settings=wandb.Settings(silent=True),
        )
        self._next = int(self._run.step or 0)

    def round(self, result: RoundResult) -> None:
        """Log the figures; rounds that are there from an earlier start are the same."""
        if result.round >= self._next:
            known = {name: one for name, one in figures_of(result).items() if one is not None}
            self._run.log(known, step=result.round)

    def end(self, failed: bool) -> None:
        """Say how it ended."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
