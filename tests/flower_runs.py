"""Runs on Flower of a tiny study, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Message
from sqlalchemy import Engine

from distreal_dse.fronts import Front, export_front, load_front, open_database, save_front
from distreal_dse.study.preparation import prepare
from fl.engine import FederatedRun
from fl.flower import make_client_app
from fl.flower.client import _equipment
from fl.flower.config import read_config
from fl.flower.server import serve
from fl.flower.serving import Serving
from fl.results import RoundResult, State
from fl.store.runs import load_run
from fl.testing import hand_made_front
from flower_grid import LoopbackGrid, simulated
from tiny_study import study_object, write_study

DEVICES, COHORT = 6, 3
OPTIONS = {"split": "dirichlet:alpha=0.5", "epochs": 2, "seed": 2, "rounds": 3}


@cache
def tiny_front() -> Front:
    """Three vectors of the network of the study, to be read only."""
    network = prepare(study_object(), 0)[0]
    return hand_made_front(network, (2, 3), (4, 5), (6, 8), name="tiny", study="tiny")


@dataclass(frozen=True)
class Ground:
    """A study file, and a database with a front of it.

    ``export`` is the front as a device has it.
    """

    folder: Path
    study: Path
    database: Engine
    export: Path

    @classmethod
    def make(cls, folder: Path) -> Ground:
        study = write_study(folder)
        database = open_database(f"sqlite:///{folder}/runs.db")
        save_front(database, tiny_front())
        export_front(load_front(database, "tiny"), folder / "tiny.json")
        return cls(folder, study, database, folder / "tiny.json")

    def config(self, strategy: str = "distreal", **more: Any) -> dict[str, Any]:
        """What the app is told."""
        named = {key.replace("_", "-"): value for key, value in more.items()}
        return {
            "study": str(self.study), "front": "tiny", "strategy": strategy,
            "devices": DEVICES, "cohort": COHORT,
            "storage": self.database.url.render_as_string(), **OPTIONS, **named,
        }  # fmt: skip

    def on_flower(
        self,
        config: dict[str, Any],
        nodes: Sequence[dict[str, Any]] | None = None,
        change: Callable[[Message], Message | None] = lambda reply: reply,
    ) -> OnFlower:
        """Carry a run out on a loopback grid."""
        _equipment.cache_clear()
        serving = Serving(read_config(config, self.folder), self.database)
        app = make_client_app(self.folder)
        grid = LoopbackGrid(app, config, nodes or simulated(config["devices"]), change)
        run_id = serve(grid, serving, self.database)
        rounds = load_run(self.database, run_id).rounds
        return OnFlower(run_id, serving.state, rounds, grid)

    def in_process(self, config: dict[str, Any]) -> tuple[State, list[RoundResult]]:
        """The same by the engine."""
        run: FederatedRun = read_config(config, self.folder).spec.begin(self.database)
        rounds = list(run.rounds())
        return run.checkpoint().state, rounds


@dataclass(frozen=True)
class OnFlower:
    """A run that was carried out."""

    run_id: int
    state: State
    rounds: tuple[RoundResult, ...]
    grid: LoopbackGrid
