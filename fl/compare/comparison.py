"""Comparisons: several strategies under the same conditions, with several seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from distreal_dse.errors import DistrealError, described
from distreal_dse.fronts import ConflictError, ConnectionLostError, find_front, reopen_database
from distreal_dse.study.given import GivenStudy
from distreal_dse.support.workers import end_processes, interruptible_task, process_pool
from fl.contents import file_hashes
from fl.store.conditions import Conditions, check_same
from fl.store.execution import begin_run, carry_out, reason
from fl.store.leases import RunHeldError
from fl.store.runs import Run, find_run, finished_rounds, list_runs, load_run
from fl.store.specs import RunSpec
from fl.strategies import check_strategy
from fl.tracking import check_trackers, tracked

Listener = Callable[[int, int], None]
"""Called with the rounds that are done, and all there are."""

# Between two looks at the database for progress, in seconds.
POLL = 0.5
# What processes have to store a checkpoint when they are interrupted, in seconds: as long as they
# may wait for a locked database.
GRACE = 30.0


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why, in a line."""

    strategy: str
    seed: int
    reason: str

    def __str__(self) -> str:
        return f"run of {self.strategy}, seed {self.seed}: {self.reason}"


class RunsFailedError(DistrealError):
    """Runs of a comparison failed, after all others were carried out.

    Parameters
    ----------
    failures
        At least one.
    runs
        The others.
    """

    def __init__(self, failures: Sequence[Failure], runs: Sequence[Run]) -> None:
        super().__init__("; ".join(map(str, failures)))
        self.failures, self.runs = tuple(failures), tuple(runs)


def compare(
    engine: Engine,
    name: str,
    specs: Sequence[RunSpec],
    listen: Listener = lambda done, total: None,
    workers: int = 1,
    given: GivenStudy | None = None,
    track: str = "",
) -> list[Run]:
    """Carry out the runs of a comparison that are not finished; return all, in the specs' order.

    Whatever stops it, the same call goes on with what is left. Strategies or seeds may be added
    later. Several processes may do so at the same time, on several machines: each run is carried
    out by one of them, and all wait for the last.

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
    given
        The study, where it is an object of this program.
    track
        Who hears of each round as well; see `fl.tracking.make_trackers`.

    Raises
    ------
    InputError
        If a spec can't be begun, or runs of this comparison were stored under other conditions;
        then nothing is trained.
    RunsFailedError
        If runs fail; the others go on first.
    ConnectionLostError
        If the server of the database goes away and does not come back.
    """
    check_trackers(track)
    wanted = {(spec.strategy, spec.seed): spec for spec in specs}
    stored = check_comparison(engine, name, list(wanted.values()))
    finished = {(run.strategy, run.seed) for run in stored if run.finished}
    left = [spec for key, spec in wanted.items() if key not in finished]
    total = sum(spec.rounds + 1 for spec in wanted.values())

    def tell() -> None:
        done = finished_rounds(engine, name)
        # A run that its virtual time ended has fewer rounds than it may have.
        counted = sum(
            specs[0].rounds + 1 if over else count
            for key, (count, over) in done.items()
            if key in wanted
        )
        listen(min(total, counted), total)

    tell()
    if workers == 1:
        failures = _one_by_one(engine, name, left, given, track, tell)
    else:
        failures = _in_processes(engine, name, left, given, track, workers, tell) if left else []
    by_key = {(run.strategy, run.seed): run for run in list_runs(engine, name)}
    runs = [by_key[key] for key in wanted if key in by_key]
    if failures:
        order = list(wanted)
        failures.sort(key=lambda one: order.index((one.strategy, one.seed)))
        raise RunsFailedError(failures, [run for run in runs if run.finished])
    return runs


def check_comparison(engine: Engine, name: str, specs: Sequence[RunSpec]) -> list[Run]:
    """Refuse what `compare` would before it trains anything; return the runs that there are.

    Raises
    ------
    InputError
        If a spec can't be begun, or runs of this comparison were stored under other conditions.
    """
    first, stored = specs[0], list_runs(engine, name)
    front = find_front(engine, first.front) if first.front else None
    first.check()
    for spec in specs:
        check_strategy(spec.strategy, front, spec.rounds)
    contents = file_hashes(first.settings()) | ({"front": front.content_hash} if front else {})
    given = Conditions(first.as_json(), contents)
    for spec in specs[1:]:
        check_same(name, Conditions(spec.as_json(), {}), given)
    for run in stored:
        check_same(name, given, run.conditions)
    return stored


def _one_by_one(
    engine: Engine,
    name: str,
    left: Sequence[RunSpec],
    study: GivenStudy | None,
    track: str,
    tell: Callable[[], None],
) -> list[Failure]:
    failures: list[Failure] = []
    while left:
        held = []
        for spec in left:
            try:
                _carry_out(engine, name, spec, study, track, lambda _: tell())
            except RunHeldError:
                held.append(spec)
            except ConnectionLostError:  # so would all others
                raise
            except Exception as error:
                failures.append(Failure(spec.strategy, spec.seed, reason(error)))
        left = held
        if left:
            time.sleep(POLL)
            tell()
    return failures


def _in_processes(
    engine: Engine,
    name: str,
    left: Sequence[RunSpec],
    study: GivenStudy | None,
    track: str,
    workers: int,
    tell: Callable[[], None],
) -> list[Failure]:
    url = engine.url.render_as_string(hide_password=False)
    pool = process_pool(min(workers, len(left)), _start_worker, ())
    under_way: dict[Future[Failure | None], RunSpec] = {}
    failures: list[Failure] = []
    try:
        while left or under_way:
            under_way |= {pool.submit(_run, url, name, spec, study, track): spec for spec in left}
            done, _ = wait(under_way, timeout=POLL)
            left = []
            for future in done:
                spec = under_way.pop(future)
                try:
                    if failure := future.result():
                        failures.append(failure)
                except RunHeldError:
                    left.append(spec)
            if left and not under_way:
                time.sleep(POLL)
            tell()
    except BrokenProcessPool as error:
        raise DistrealError(
            f"a worker process of comparison '{name}' failed ({described(error)}): run the "
            "same command again to go on, with fewer --workers if memory is short"
        ) from error
    finally:
        end_processes(pool, busy=bool(under_way), grace=GRACE)
    return failures


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)


def _run(
    url: str, name: str, spec: RunSpec, study: GivenStudy | None, track: str
) -> Failure | None:
    with interruptible_task():
        engine = reopen_database(url)
        try:
            _carry_out(engine, name, spec, study, track)
        except (RunHeldError, ConnectionLostError):
            raise
        except Exception as error:  # not sent as it is: whatever it holds may not travel
            return Failure(spec.strategy, spec.seed, reason(error))
        finally:
            engine.dispose()
    return None


def _carry_out(
    engine: Engine,
    name: str,
    spec: RunSpec,
    study: GivenStudy | None,
    track: str,
    listen: Callable[[Any], None] = lambda result: None,
) -> None:
    run_id, begun = find_run(engine, name, spec.strategy, spec.seed), None
    if run_id is None:
        try:
            run_id, begun = begin_run(engine, spec, name, study)
        except ConflictError:  # another process was faster: it is the same run
            run_id = find_run(engine, name, spec.strategy, spec.seed)
            if run_id is None:
                raise
    with tracked(track, load_run(engine, run_id), listen) as hear:
        carry_out(engine, run_id, begun, hear, study=study or spec.study)
