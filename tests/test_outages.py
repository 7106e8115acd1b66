"""Runs, comparisons and searches outlast a restart of their database's server."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from distreal_dse.cli._federated import _shown
from distreal_dse.errors import StorageError
from distreal_dse.fronts import (
    ConnectionLostError,
    list_fronts,
    open_database,
    outlasting_restarts,
    reading,
    reopen_database,
    save_front,
)
from distreal_dse.search import plain_errors
from distreal_dse.search.ledger import TrialArchive
from fl.compare.comparison import compare
from fl.merging import Checkpoint
from fl.results import RoundResult
from fl.store.checkpoints import load_checkpoint, save_checkpoint
from fl.store.execution import begin_run, carry_out
from fl.store.leases import holding
from fl.store.runs import finish_run, list_runs, load_run, save_round, start_run
from fl.store.specs import RunSpec
from front_examples import make_front
from postgres import Server, running_server
from tiny_study import write_study

LOGGER = "distreal_dse.fronts._outages"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[Engine]:
    if not server.is_up:  # a test that failed may leave it so
        server.start()
    engine = open_database(server.url)
    yield engine
    engine.dispose()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/runs.db")
    yield engine
    engine.dispose()


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """A run of four rounds that needs no front."""
    return RunSpec(str(write_study(tmp_path)), strategy="small", rounds=4, devices=6, cohort=3)


class WhenTold(logging.Handler):
    """Does something as soon as somebody is told that the database went away."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.told: list[str] = []
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        self._act()


@contextmanager
def when_told(act: Callable[[], object]) -> Iterator[list[str]]:
    handler = WhenTold(act)
    logging.getLogger(LOGGER).addHandler(handler)
    try:
        yield handler.told
    finally:
        logging.getLogger(LOGGER).removeHandler(handler)


@contextmanager
def down(server: Server) -> Iterator[list[str]]:
    """Stop the server; it starts when somebody was told of it. Gives what was told."""
    server.stop()
    with ExitStack() as stack:
        stack.callback(lambda: server.is_up or server.start())
        yield stack.enter_context(when_told(server.start))


def test_a_run_outlasts_a_restart_and_says_so_once(
    database: Engine, server: Server, file: Engine, spec: RunSpec
) -> None:
    through, begun = begin_run(file, spec)
    carry_out(file, through, begun)
    run_id, begun = begin_run(database, spec)

    def stop(result: RoundResult) -> None:
        if result.round in (1, 3):
            server.stop()

    with when_told(server.start) as told:
        carry_out(database, run_id, begun, stop)
    run = load_run(database, run_id)
    assert run.finished and run.failure is None
    assert run.rounds == load_run(file, through).rounds
    assert len(told) == 2  # once for each
    for line in told:
        assert "the database went away" in line and "trying again for up to 120 s" in line
        assert "geheim" not in line and "\n" not in line


def test_a_server_that_crashes_within_a_transaction_is_waited_for(
    database: Engine, server: Server, spec: RunSpec
) -> None:
    run_id, begun = begin_run(database, spec)

    def crash(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO run_rounds"):
            event.remove(database, "after_cursor_execute", crash)
            server.stop("immediate")

    event.listen(database, "after_cursor_execute", crash)
    with when_told(server.start) as told:
        carry_out(database, run_id, begun)
    assert len(told) == 1
    run = load_run(database, run_id)
    assert run.finished and [result.round for result in run.rounds] == list(range(5))


def end_leases(database: Engine) -> None:
    """Let runs go on as if this process, which could not give them back, had ended."""
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET owner = NULL"))


def lost() -> OperationalError:
    """What SQLAlchemy raises where a connection ends."""
    reason = ConnectionError("server closed the connection unexpectedly")
    return OperationalError("COMMIT", {}, reason, connection_invalidated=True)


@contextmanager
def answers_lost(target: object, name: str) -> Iterator[list[str]]:
    """Let the next commit be kept, and its answer be lost."""

    def lose(*_: object) -> None:
        event.remove(target, name, lose)
        raise lost()

    event.listen(target, name, lose)
    with when_told(lambda: None) as told:
        yield told
    assert not event.contains(target, name, lose)


def test_what_was_kept_although_the_answer_was_lost_is_not_done_twice(
    file: Engine, spec: RunSpec
) -> None:
    settings = spec.as_json()
    with answers_lost(Session, "after_commit"):
        run_id = start_run(file, "noise", "small", None, "abc", 0, settings)
    assert [run.id for run in list_runs(file)] == [run_id]
    with answers_lost(Session, "after_commit"):
        in_comparison = start_run(file, "noise", "small", None, "abc", 0, settings, "c")
    assert [run.id for run in list_runs(file, "c")] == [in_comparison]
    result = RoundResult(0, 0.0, 0.1, 2.3, cohort=(1, 4))
    with answers_lost(Session, "after_commit"):
        save_round(file, run_id, result)
    assert load_run(file, run_id).rounds == (result,)
    with answers_lost(Session, "after_commit"):
        save_checkpoint(file, run_id, Checkpoint(0, 0.0, {}, {}))
    assert load_checkpoint(file, run_id) is not None
    with answers_lost(Session, "after_commit"), holding(file, run_id) as owner:
        finish_run(file, run_id, owner)
    assert load_run(file, run_id).finished
    with answers_lost(Session, "after_commit"):
        front = save_front(file, make_front())
    assert [one.label for one in list_fronts(file)] == [front.label]


def trial(number: int) -> FrozenTrial:
    return optuna.trial.create_trial(
        params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, values=[1.0, float(number)]
    )


def test_a_search_outlasts_a_restart(server: Server, database: Engine) -> None:
    archive = TrialArchive(server.url, "outage", {"seed": 0}, {})
    assert archive.add(trial(0)) == 0
    with down(server) as told:
        assert archive.remember("snapshot", 1.5) == 1.5
    assert len(told) == 1
    with down(server) as told:
        assert [one.values for one in archive.trials()] == [[1.0, 0.0]]
    archive.close()
    with down(server):  # its connections are closed: it connects anew
        assert archive.recall("snapshot") == 1.5
    archive.close()


def test_a_trial_that_was_kept_although_the_answer_was_lost_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = TrialArchive(f"sqlite:///{tmp_path}/search.db", "lost", {"seed": 0}, {})
    monkeypatch.setattr("random.random", lambda: 0.0)  # pauses of Optuna's own attempts
    number_of = archive._storage.get_trial_number_from_id
    left = iter([True])

    def lose(trial_id: int) -> int:
        if next(left, False):
            raise lost()
        return number_of(trial_id)

    monkeypatch.setattr(archive._storage, "get_trial_number_from_id", lose)
    first = trial(1)
    assert archive.add(first) == 0
    assert archive.add(trial(2)) == 1
    assert [one.values for one in archive.trials()] == [[1.0, 1.0], [1.0, 2.0]]
    archive.close()


def test_the_outermost_of_functions_that_call_each_other_waits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{LOGGER}.PATIENCE", 0.5)
    begun: list[str] = []

    @outlasting_restarts
    def inner() -> None:
        begun.append("inner")
        raise ConnectionLostError("storage x", "it is gone")

    @outlasting_restarts
    def outer() -> None:
        begun.append("outer")
        inner()

    with when_told(lambda: None) as told, pytest.raises(ConnectionLostError):
        outer()
    assert len(told) == 1
    assert len(begun) > 2 and begun == ["outer", "inner"] * (len(begun) // 2)


def test_of_a_lost_connection_of_the_search_the_url_is_not_to_be_checked() -> None:
    with pytest.raises(ConnectionLostError) as error, plain_errors("storage of search 'x'"):
        raise lost()
    assert "found: server closed the connection unexpectedly; start it" in str(error.value)
    assert "check the URL" not in str(error.value)


def test_a_process_that_opens_the_database_again_waits_for_it(
    server: Server, database: Engine
) -> None:
    with down(server) as told:
        engine = reopen_database(server.url)
    assert len(told) == 1 and list_runs(engine) is not None
    engine.dispose()


def test_a_server_that_does_not_come_back_ends_a_comparison_with_the_right_advice(
    server: Server, database: Engine, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{LOGGER}.PATIENCE", 0.5)
    begun: list[int] = []

    def stop(done: int, total: int) -> None:
        if done and not begun:
            begun.append(done)
            server.stop()

    specs = [spec, RunSpec(**{**vars(spec), "seed": 1})]
    with when_told(lambda: None) as told, pytest.raises(ConnectionLostError) as error:
        compare(database, "gone", specs, stop)
    server.start()
    assert len(told) == 1  # the second run is not tried
    message = str(error.value)
    assert "the database did not come back within 0.5 s" in message and "geheim" not in message
    assert message.endswith("run the same command again: everything finished is kept")
    assert "check the URL" not in message and "\n" not in message
    (run,) = list_runs(database, "gone")
    assert run.rounds and not run.finished and run.failure is None
    end_leases(database)
    runs = compare(database, "gone", specs)
    assert [run.finished for run in runs] == [True, True]


def test_a_run_whose_database_does_not_come_back_is_resumed_and_not_begun_again(
    server: Server, database: Engine, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{LOGGER}.PATIENCE", 0.5)
    run_id, begun = begin_run(database, spec)
    stored = load_run(database, run_id)
    server.stop()
    with pytest.raises(ConnectionLostError) as error, _shown([], True, stored) as listen:
        carry_out(database, run_id, begun, listen)
    server.start()
    advice = f"start it and run `distreal-dse fl resume {run_id}`: everything finished is kept"
    assert str(error.value).endswith(advice) and "within 0.5 s" in str(error.value)


def test_ctrl_c_is_heard_while_the_database_is_waited_for(
    server: Server, database: Engine, spec: RunSpec
) -> None:
    run_id, begun = begin_run(database, spec)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop(result: RoundResult) -> None:
        if result.round == 2:
            server.stop()

    interrupt = partial(signal.raise_signal, signal.SIGINT)
    try:
        with when_told(interrupt) as told, pytest.raises(KeyboardInterrupt):
            carry_out(database, run_id, begun, stop)
    finally:
        signal.signal(signal.SIGINT, before)
        server.start()
    assert len(told) == 1  # the checkpoint is not waited for
    end_leases(database)
    carry_out(database, run_id)
    assert load_run(database, run_id).finished


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1 FROM nowhere", "SELECT 1/0", "SET statement_timeout = 1; SELECT pg_sleep(9)"],
)
def test_other_errors_are_not_tried_again(database: Engine, statement: str) -> None:
    tried: list[str] = []

    @outlasting_restarts
    def work() -> None:
        tried.append(statement)
        with reading(database) as session:
            session.execute(text(statement))

    with pytest.raises(StorageError) as error:
        work()
    assert len(tried) == 1 and not isinstance(error.value, ConnectionLostError)
    database.dispose()
