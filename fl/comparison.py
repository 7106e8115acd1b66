"""Comparisons: several strategies under the same conditions, with several seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from sqlalchemy import Engine

from distreal_dse.errors import DistrealError, InputError, described
from distreal_dse.fronts import open_database
from distreal_dse.workers import end_processes, process_pool
from fl.execution import begin_run, carry_out
from fl.runs import Run, finished_rounds, list_runs
from fl.specs import RunSpec

Listener = Callable[[int, int], None]
"""Called with the rounds that are done, and all there are."""

# Between two looks at the database for progress, in seconds.
POLL = 0.5
# What may differ between the runs of a comparison.
COMPARED = ("strategy", "seed")


def compare(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    listen: Listener = lambda done, total: None,
    workers: int = 1,
) -> list[Run]:
    """Carry out the runs of a comparison that are not finished, and return all of them.

    Whatever stops it, the same call goes on with what is left. Strategies or seeds may be added
    later.

    Parameters
    ----------
    engine
        The opened database.
    name
        Of the comparison.
    specs
        Runs that differ in strategy and seed alone.
    listen
        Told of progress.
    workers
        Runs that are trained at the same time, in processes of one thread.

    Raises
    ------
    InputError
        If runs of this comparison were stored with other settings.
    DistrealError
        If a run fails; the others go on first.
    """
    specs = list({_identity(spec.as_json()): spec for spec in specs}.values())
    stored = {_identity(run.settings): run for run in list_runs(engine, name)}
    for run in stored.values():
        _check_same(name, specs[0].as_json(), run.settings)
    left = [spec for spec in specs if not _is_finished(stored, spec)]
    total = sum(spec.rounds + 1 for spec in specs)

    def tell() -> None:
        done = finished_rounds(engine, name)
        # A run that its virtual time ended has fewer rounds than it may have.
        counted = sum(specs[0].rounds + 1 if over else count for count, over in done.values())
        listen(min(total, counted), total)

    tell()
    known = {_identity(spec.as_json()): stored.get(_identity(spec.as_json())) for spec in left}
    tasks = [
        (spec, run.id if run else None) for spec, run in zip(left, known.values(), strict=True)
    ]
    if workers == 1:
        for spec, run_id in tasks:
            _carry_out(engine, name, spec, run_id, lambda _: tell())
    elif tasks:
        _in_processes(engine, name, tasks, workers, tell)
    wanted = {_identity(spec.as_json()) for spec in specs}
    return [run for run in list_runs(engine, name) if _identity(run.settings) in wanted]


def _carry_out(
    engine: Engine,
    name: str,
    spec: RunSpec,
    run_id: int | None,
    listen: Callable[[Any], None] = lambda result: None,
) -> None:
    begun = None
    if run_id is None:
        run_id, begun = begin_run(engine, spec, name)
    carry_out(engine, run_id, begun, listen)


def _in_processes(
    engine: Engine,
    name: str,
    tasks: Sequence[tuple[RunSpec, int | None]],
    workers: int,
    tell: Callable[[], None],
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    pool = process_pool(min(workers, len(tasks)), _start_worker, ())
    under_way: set[Future[None]] = set()
    try:
        under_way = {pool.submit(_run, url, name, spec, run_id) for spec, run_id in tasks}
        failed: list[Exception] = []
        while under_way:
            done, under_way = wait(under_way, timeout=POLL, return_when=FIRST_EXCEPTION)
            failed += [e for one in done if isinstance(e := one.exception(), Exception)]
            tell()
        for error in failed:
            if isinstance(error, DistrealError):
                raise error
            raise DistrealError(
                f"a worker process of comparison '{name}' failed ({described(error)}): run the "
                "same command again to go on, with fewer --workers if memory is short"
            ) from error
    finally:
        end_processes(pool, busy=bool(under_way))


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)


def _run(url: str, name: str, spec: RunSpec, run_id: int | None) -> None:
    engine = open_database(url, create=False)
    try:
        _carry_out(engine, name, spec, run_id)
    finally:
        engine.dispose()


def _identity(settings: Mapping[str, Any]) -> str:
    """Equal text, equal runs; how often checkpoints are made does not matter."""
    counted = {key: value for key, value in settings.items() if key != "checkpoint_every"}
    return json.dumps(counted, sort_keys=True)


def _is_finished(stored: Mapping[str, Run], spec: RunSpec) -> bool:
    run = stored.get(_identity(spec.as_json()))
    return run is not None and run.finished


def _check_same(name: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    given = json.loads(json.dumps(given))
    for key, value in given.items():
        if key not in (*COMPARED, "checkpoint_every") and stored.get(key) != value:
            raise InputError(
                f"comparison '{name}' was begun with {key} = {stored.get(key)}, now it is {value}: "
                "use the same, or start a comparison of its own with --name"
            )
