"""The `ServerApp`: carries a run out on the devices that are connected, and stores it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from sqlalchemy import Engine

from distreal_dse.errors import DistrealError
from distreal_dse.fronts import open_database
from fl.flower.config import read_config
from fl.flower.serving import Serving
from fl.flower.storing import StoredRun
from fl.flower.strategy import FlowerStrategy

_logger = logging.getLogger("flwr")


def make_server_app(folder: Path) -> ServerApp:
    """Make the app that runs on the server.

    Parameters
    ----------
    folder
        Of the app; its study file lies there.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with _said_in_a_line():
            config = read_config(context.run_config, folder)
            engine = open_database(config.storage)
            try:
                serve(grid, Serving(config, engine), engine)
            finally:
                engine.dispose()

    return app


def serve(grid: Grid, serving: Serving, engine: Engine) -> int:
    """Carry a run out to its end; return its id.

    An unfinished run of the same settings in the database is gone on with, from its newest
    checkpoint; else one begins.

    Parameters
    ----------
    grid
        Where the devices are.
    serving
        The server's half of the run, as it begins.
    engine
        The opened database.

    Raises
    ------
    DistrealError
        If it can't be begun or gone on with, or no device is there.
    """
    with StoredRun.of(engine, serving) as stored:
        strategy = FlowerStrategy(serving, stored.keep)
        strategy.start(
            grid,
            ArrayRecord(dict(serving.state)),
            num_rounds=serving.app.spec.rounds - serving.round,
            timeout=serving.app.timeout,
            evaluate_fn=strategy.evaluate,
        )
        stored.finish()
    return stored.id


@contextmanager
def _said_in_a_line() -> Iterator[None]:
    """Log an error as a line before Flower ends the run with it."""
    try:
        yield
    except DistrealError as error:
        _logger.error("error: %s", error)
        raise
