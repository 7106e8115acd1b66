"""Carrying out runs: every round is stored when it is done, and a run that stopped goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import Engine

from distreal_dse.errors import DistrealError, InputError, StorageError, described
from distreal_dse.fronts import ConnectionLostError, not_waiting
from distreal_dse.study.given import GivenStudy
from distreal_dse.support.temporary import sweep
from fl.clients import Processes
from fl.cohort import AUTO, clients_here
from fl.engine import FederatedRun
from fl.merging import Checkpoint
from fl.results import RoundResult
from fl.store.checkpoints import load_checkpoint, save_checkpoint
from fl.store.conditions import check_contents
from fl.store.leases import Owner, RunHeldError, holding
from fl.store.runs import (
    Run,
    finish_run,
    forget_rounds,
    last_round,
    load_run,
    missing_round,
    note_failure,
    save_round,
    start_run,
)
from fl.store.specs import RunSpec, make_training, trusted_spec

Listener = Callable[[RoundResult], None]


def begin_run(
    engine: Engine,
    spec: RunSpec,
    comparison: str | None = None,
    given: GivenStudy | None = None,
) -> tuple[int, FederatedRun]:
    """Store a run that is to be carried out; return its id, and the run for `carry_out`.

    Parameters
    ----------
    engine
        The opened database.
    spec
        The run.
    comparison
        Name of the comparison that it belongs to, if it does.
    given
        Its study, where that is an object of this program.

    Raises
    ------
    ConflictError
        If the comparison has a run of this strategy and seed.
    DistrealError
        If it can't be begun; then nothing is stored.
    """
    federated = spec.begin(engine, given)
    run_id = start_run(
        engine,
        federated.training.study.name,
        spec.strategy,
        federated.front,
        federated.fingerprint,
        spec.seed,
        spec.as_json(),
        comparison,
        federated.contents,
    )
    return run_id, federated


def carry_out(
    engine: Engine,
    run_id: int,
    begun: FederatedRun | None = None,
    listen: Listener = lambda result: None,
    workers: int = 1,
    study: str | GivenStudy | None = None,
    clients: str = AUTO,
) -> FederatedRun | None:
    """Carry a stored run out to its end, from its newest checkpoint that is whole on.

    Whatever stops it, the next call goes on, and the result is the same. Rounds behind the
    checkpoint are trained again. Why it failed is stored with it. A restart of the database's
    server is waited for (`outlasting_restarts`).

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
    study
        File or name of the study, where the caller knows it, as on another machine, or the study
        as an object. None takes that of the database; a file only if the user gave it before
        (`distreal_dse.study.trusted`).
    clients
        How devices are trained where ``workers`` is 1; see `fl.cohort.clients_here`.

    Returns
    -------
    FederatedRun
        As it ended: its network holds the trained values. None where the run was finished before.

    Raises
    ------
    RunHeldError
        If another process carries it out.
    ConnectionLostError
        If the server of the database goes away and does not come back.
    DistrealError
        If the run is not known, or can't go on.
    """
    if load_run(engine, run_id).finished:
        return None
    sweep()
    with holding(engine, run_id) as owner:
        run = load_run(engine, run_id)
        if run.finished:  # by another process, in between
            return None
        try:
            # Before anything is imported: whoever can write to the database names the study.
            spec = trusted_spec(run.settings, f"run {run_id}", study)
            given = study if isinstance(study, GivenStudy) else None
            return _go_on(engine, run, spec, begun, listen, workers, owner, given, clients)
        except (RunHeldError, ConnectionLostError):
            raise
        except Exception as error:
            with suppress(StorageError, RunHeldError):
                note_failure(engine, run_id, reason(error), owner)
            raise


def reason(error: Exception) -> str:
    """Why a run failed, in a line."""
    return str(error) if isinstance(error, DistrealError) else described(error)


def go_back(engine: Engine, run: Run, begun: Checkpoint, owner: Owner) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from, and forget the rounds behind it.

    Parameters
    ----------
    engine, run
        The opened database; the run, which its owner carries out.
    begun
        What the run begins with.
    owner
        Who carries it out.

    Returns
    -------
    Checkpoint
        The newest that is whole; None where the run begins again.

    Raises
    ------
    StorageError
        As for `load_checkpoint`.
    """
    # A checkpoint has no figures of rounds before it that are missing.
    numbers = [result.round for result in run.rounds]
    missing = missing_round(numbers)
    up_to = (len(numbers) if missing is None else missing) - 1
    checkpoint = load_checkpoint(engine, run.id, begun, up_to)
    forget_rounds(engine, run.id, after=checkpoint.round if checkpoint else -1, owner=owner)
    return checkpoint


def _go_on(
    engine: Engine,
    run: Run,
    spec: RunSpec,
    begun: FederatedRun | None,
    listen: Listener,
    workers: int,
    owner: Owner,
    given: GivenStudy | None,
    clients: str,
) -> FederatedRun:
    federated = begun or spec.begin(engine, given)
    _check_unchanged(run, spec, federated)
    if run.failure is not None:
        note_failure(engine, run.id, None, owner)
    checkpoint = go_back(engine, run, federated.checkpoint(), owner)
    if checkpoint is not None:
        federated.resume(checkpoint)
    url = engine.url.render_as_string(hide_password=False)
    trained_by = (
        clients_here(federated.training, clients)
        if workers == 1
        else Processes(workers, partial(make_training, spec, url, given))
    )
    # Of the two newest rounds: an interrupt may come before or after the last one is stored.
    newest: list[Checkpoint] = []
    try:
        for result in federated.rounds(trained_by):
            newest = [*newest[-1:], federated.checkpoint()]
            save_round(engine, run.id, result, owner)
            listen(result)
            if result.round % spec.checkpoint_every == 0 and result.round:
                save_checkpoint(engine, run.id, newest[-1], owner)
    except KeyboardInterrupt:
        # Where the database is away, the checkpoint before will do.
        with not_waiting(), suppress(ConnectionLostError):
            stored = last_round(engine, run.id)
            for one in newest:
                if one.round == stored and one.round > 0:
                    save_checkpoint(engine, run.id, one, owner)
        raise
    finally:
        trained_by.close()
    finish_run(engine, run.id, owner)
    return federated


def _check_unchanged(run: Run, spec: RunSpec, federated: FederatedRun) -> None:
    found = federated.front.content_hash if federated.front else None
    if found != run.front_hash:
        raise InputError(
            f"front {spec.front} of run {run.id} has another content than when the run was begun: "
            "expected the same front; bring it back, or start the run anew"
        )
    if federated.fingerprint != run.model_fingerprint:
        raise InputError(
            f"study {run.study} of run {run.id} has another model than when the run was begun: "
            "expected the same model; bring it back, or start the run anew"
        )
    contents = federated.contents
    check_contents(f"run {run.id}", contents, run.contents, "start the run anew")
