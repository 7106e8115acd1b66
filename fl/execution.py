"""Carrying out runs: every round is stored when it is done, and a run that stopped goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from distreal_dse.errors import InputError
from fl.checkpoints import drop_checkpoint, load_checkpoint, save_checkpoint
from fl.clients import InProcess, Processes
from fl.engine import Checkpoint, FederatedRun
from fl.results import RoundResult
from fl.runs import finish_run, forget_rounds, load_run, save_round, start_run
from fl.specs import RunSpec, make_training, run_spec

Listener = Callable[[RoundResult], None]


def begin_run(
    engine: Engine, spec: RunSpec, comparison: str | None = None
) -> tuple[int, FederatedRun]:
    """Store a run that is to be carried out; return its id, and the run for `carry_out`.

    Raises
    ------
    DistrealError
        If it can't be begun; then nothing is stored.
    """
    federated = spec.begin(engine)
    run_id = start_run(
        engine,
        federated.training.study.name,
        spec.strategy,
        federated.front,
        federated.fingerprint,
        spec.seed,
        spec.as_json(),
        comparison,
    )
    return run_id, federated


def carry_out(
    engine: Engine,
    run_id: int,
    begun: FederatedRun | None = None,
    listen: Listener = lambda result: None,
    workers: int = 1,
) -> None:
    """Carry a stored run out to its end, from its newest checkpoint on.

    Whatever stops it, the next call goes on, and the result is the same. Rounds behind the
    checkpoint are trained again.

    Parameters
    ----------
    engine
        The opened database.
    run_id
        A run that `begin_run` stored.
    begun
        What `begin_run` returned; None builds it anew.
    listen
        Called with each round when it is stored.
    workers
        Processes that train clients; 1 trains them here.

    Raises
    ------
    DistrealError
        If the run is not known, or can't go on.
    """
    run = load_run(engine, run_id)
    if run.finished:
        return
    spec = run_spec(run.settings)
    federated = begun or spec.begin(engine)
    found = federated.front.content_hash if federated.front else None
    if found != run.front_hash:
        raise InputError(
            f"front {spec.front} of run {run_id} has another content than when the run was begun: "
            "expected the same front; bring it back, or start the run anew"
        )
    if federated.fingerprint != run.model_fingerprint:
        raise InputError(
            f"study {run.study} of run {run_id} has another model than when the run was begun: "
            "expected the same model; bring it back, or start the run anew"
        )
    checkpoint = load_checkpoint(engine, run_id)
    if checkpoint is not None:
        federated.resume(checkpoint)
    forget_rounds(engine, run_id, after=checkpoint.round if checkpoint else -1)
    url = engine.url.render_as_string(hide_password=False)
    clients = (
        InProcess(federated.training)
        if workers == 1
        else Processes(workers, partial(make_training, spec, url))
    )
    # Of the round that was stored last: the engine may be further when it is interrupted.
    last: Checkpoint | None = None
    try:
        for result in federated.rounds(clients):
            save_round(engine, run_id, result)
            last = federated.checkpoint()
            listen(result)
            if result.round % spec.checkpoint_every == 0 and result.round:
                save_checkpoint(engine, run_id, last)
    except KeyboardInterrupt:
        if last is not None and last.round > 0:
            save_checkpoint(engine, run_id, last)
        raise
    finally:
        clients.close()
    finish_run(engine, run_id)
    drop_checkpoint(engine, run_id)
