"""Runs on Flower in the database, in the rows that others have: what reads those reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine

from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import ConnectionLostError
from fl.flower.serving import Serving
from fl.results import RoundResult
from fl.store.checkpoints import save_checkpoint
from fl.store.conditions import check_contents
from fl.store.execution import go_back, reason
from fl.store.leases import Owner, RunHeldError, holding
from fl.store.runs import (
    Run,
    finish_run,
    list_runs,
    note_failure,
    save_round,
    start_run,
)
from fl.store.specs import ON_FLOWER

_logger = logging.getLogger("flwr")

ANEW = "change a setting to begin another"


class StoredRun:
    """A run on Flower while it is carried out; each round is stored when it is done.

    Parameters
    ----------
    engine
        The opened database.
    run_id
        Of the run.
    serving
        Its state.
    owner
        Who carries it out.
    """

    def __init__(self, engine: Engine, run_id: int, serving: Serving, owner: Owner) -> None:
        self.id = run_id
        self._engine, self._serving, self._owner = engine, serving, owner

    @classmethod
    @contextmanager
    def of(cls, engine: Engine, serving: Serving) -> Iterator[StoredRun]:
        """Begin a run, or go on with the newest that is unfinished and has the same settings.

        Raises
        ------
        RunHeldError
            If another process carries it out.
        InputError
            If study, front or data are not those that it was begun with.
        """
        found = _unfinished(engine, serving)
        run_id = found.id if found else _start(engine, serving)
        with holding(engine, run_id) as owner:
            stored = cls(engine, run_id, serving, owner)
            try:
                stored._go_on(found)
                yield stored
            except (RunHeldError, ConnectionLostError):  # which notes would wait for, too
                raise
            except Exception as error:
                with suppress(StorageError, RunHeldError):
                    note_failure(engine, run_id, reason(error), owner)
                raise

    def keep(self, result: RoundResult) -> None:
        """Store a round, and a checkpoint where one is due."""
        save_round(self._engine, self.id, result, self._owner)
        every = self._serving.app.spec.checkpoint_every
        if result.round and result.round % every == 0:
            save_checkpoint(self._engine, self.id, self._serving.checkpoint(), self._owner)

    def finish(self) -> None:
        """Mark the run as complete."""
        finish_run(self._engine, self.id, self._owner)
        _logger.info("run %d is complete; see it with `distreal-dse report %d`", self.id, self.id)

    def _go_on(self, found: Run | None) -> None:
        if found is None:
            _logger.info("run %d begins", self.id)
            return
        serving = self._serving
        _check_unchanged(found, serving)
        if found.failure is not None:
            note_failure(self._engine, self.id, None, self._owner)
        checkpoint = go_back(self._engine, found, serving.checkpoint(), self._owner)
        if checkpoint is not None:
            serving.resume(checkpoint)
        _logger.info(
            "run %d goes on after round %d", self.id, checkpoint.round if checkpoint else 0
        )


def settings_of(serving: Serving) -> dict[str, object]:
    """Return what a run on Flower is stored with: its spec, and how it is carried out."""
    app = serving.app
    own = {"time": app.time, "timeout": app.timeout}
    return {**app.spec.as_json(), ON_FLOWER: own}


def _start(engine: Engine, serving: Serving) -> int:
    spec = serving.app.spec
    return start_run(
        engine,
        serving.study,
        spec.strategy,
        serving.front,
        serving.fingerprint,
        spec.seed,
        settings_of(serving),
        contents=serving.contents,
    )


def _unfinished(engine: Engine, serving: Serving) -> Run | None:
    settings = json.loads(json.dumps(settings_of(serving)))
    runs = [run for run in list_runs(engine) if not run.finished and run.settings == settings]
    return runs[-1] if runs else None


def _check_unchanged(run: Run, serving: Serving) -> None:
    front = serving.front.content_hash if serving.front else None
    for what, expected, found in (
        ("front", run.front_hash, front),
        ("model", run.model_fingerprint, serving.fingerprint),
    ):
        if expected != found:
            raise InputError(
                f"{what} of unfinished run {run.id} is not what it was begun with: expected hash "
                f"{expected}, found {found}; bring it back, or {ANEW}"
            )
    check_contents(f"unfinished run {run.id}", serving.contents, run.contents, ANEW)
