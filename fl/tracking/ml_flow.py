"""MLflow: a run of an experiment that is named after the study."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

from fl.results import RoundResult
from fl.store.runs import Run
from fl.tracking.base import Tracker, figures_of, key, settings_of, title

TAG = "distreal_dse.run"
# Longer values of parameters are cut by some of its stores.
LONGEST = 500


class MLflow(Tracker):
    """A run in the experiment of the study's name; settings are parameters, figures metrics.

    Its target is the address of a server or store; by default what MLflow itself is set up for
    (``$MLFLOW_TRACKING_URI``).
    """

    name = extra = "mlflow"
    _client: Any = None
    _id = ""
    _next = 0

    @classmethod
    def package(cls) -> ModuleType:
        """As for `Tracker`."""
        import mlflow.tracking

        return mlflow

    def begin(self, run: Run) -> None:
        """Begin a run there, or go on with the one that this run began before."""
        mlflow = self.package()
        client = mlflow.tracking.MlflowClient(tracking_uri=self.target or None)
        found = client.get_experiment_by_name(run.study)
        experiment = found.experiment_id if found else client.create_experiment(run.study)
        before = client.search_runs([experiment], f"tags.`{TAG}` = '{key(run)}'", max_results=1)
        self._client = client
        if before:
            self._id = before[0].info.run_id
            self._next = 1 + max(
                (one.step for one in client.get_metric_history(self._id, "virtual_seconds")),
                default=-1,
            )
            client.set_terminated(self._id, "RUNNING")
            return
        self._id = client.create_run(
            experiment, tags={TAG: key(run)}, run_name=title(run)
        ).info.run_id
        for name, value in settings_of(run).items():
            client.log_param(self._id, name, value[:LONGEST])

    def round(self, result: RoundResult) -> None:
        """Log a metric for each figure; those that are there from an earlier start are the same."""
        if result.round < self._next:
            return
        now = int(time.time() * 1000)
        metric = self.package().entities.Metric
        self._client.log_batch(
            self._id,
            metrics=[
                metric(_allowed(name), float(value), now, result.round)
                for name, value in figures_of(result).items()
                if name != "round" and value is not None
            ],
        )
        self._next = result.round + 1

    def end(self, failed: bool) -> None:
        """Say how it ended."""
        if self._id:
            self._client.set_terminated(self._id, "KILLED" if failed else "FINISHED")


def _allowed(name: str) -> str:
    """Names of metrics have letters, digits and some signs; classes of devices may have others."""
    return "".join(one if one.isalnum() or one in "_-. /" else "_" for one in name)
