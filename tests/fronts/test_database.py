from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, make_url, text

from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import (
    SCHEMA_VERSION,
    Base,
    ConflictError,
    load_front,
    normalise_url,
    open_database,
    save_front,
    writing,
)
from distreal_dse.fronts._database import _MIGRATION_LOCK
from distreal_dse.fronts._schema import FrontPointRow
from distreal_dse.fronts._urls import shown_url, without_secrets
from distreal_dse.search import tried_vectors
from distreal_dse.search.ledger import ClaimRow, DriverRow, SearchRow
from front_examples import OWN_TABLES, make_front

SEARCHED = {row.__tablename__ for row in (SearchRow, DriverRow, ClaimRow)}
MODELLED = {"fronts", "front_points", "verifications", "latencies", *SEARCHED}


def differences(engine: Engine) -> list[object]:
    options = {
        "version_table": "distreal_version",
        "include_name": lambda name, kind, _: kind != "table" or name in MODELLED,
        "include_object": lambda _object, name, kind, *_: kind != "table" or name in MODELLED,
    }
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))


def test_migrations_build_what_the_models_describe(database: Engine) -> None:
    assert set(inspect(database).get_table_names()) == OWN_TABLES | {"distreal_version"}
    assert differences(database) == []


def test_migrations_build_what_the_models_describe_on_postgres(postgres_url: str) -> None:
    engine = open_database(postgres_url)
    assert differences(engine) == []
    engine.dispose()


def test_the_schema_version_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "distreal_dse.fronts:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION


def test_an_up_to_date_database_opens_without_alembic_or_a_write(url: str, tmp_path: Path) -> None:
    open_database(url).dispose()
    before = (tmp_path / "fronts.db").read_bytes()
    code = (
        "import sys; from distreal_dse.fronts import open_database; "
        f"open_database({url!r}); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "fronts.db").read_bytes() == before


def test_the_room_is_light_to_import() -> None:
    code = (
        "import sys, distreal_dse.fronts; "
        "print({'optuna', 'plotly', 'torch', 'alembic'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optuna_first", [True, False])
def test_optuna_lives_in_the_same_file(url: str, optuna_first: bool) -> None:
    optuna = pytest.importorskip("optuna")
    if not optuna_first:
        open_database(url).dispose()
    study = optuna.create_study(storage=normalise_url(url), study_name="digits")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    engine = open_database(url)
    stored = save_front(engine, make_front())
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len(optuna.load_study(storage=url, study_name="digits").trials) == 3
    assert load_front(engine, "digits") == stored
    assert differences(engine) == []
    engine.dispose()


@pytest.mark.filterwarnings("ignore")
def test_optuna_lives_in_the_same_postgres_database(postgres_url: str) -> None:
    optuna = pytest.importorskip("optuna")
    engine = open_database(postgres_url)
    storage = optuna.storages.RDBStorage(normalise_url(postgres_url))
    study = optuna.create_study(storage=storage, study_name="digits")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    stored = save_front(engine, make_front(name="beside-optuna"))
    assert load_front(engine, "beside-optuna") == stored
    storage.engine.dispose()
    engine.dispose()


@pytest.fixture
def empty_postgres_urls(postgres_url: str) -> Iterator[list[str]]:
    """Databases without any table."""
    server = create_engine(normalise_url(postgres_url), isolation_level="AUTOCOMMIT")
    names = [f"empty_{number}" for number in range(3)]
    with server.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield [postgres_url.replace("/postgres?", f"/{name}?") for name in names]
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "sqlite in WAL mode", "postgres"])
def test_many_make_optunas_tables_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        urls = request.getfixturevalue("empty_postgres_urls")
    else:
        urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(4)]
    front, idle = make_front(), []
    for number, url in enumerate(urls):
        if "WAL" in kind:
            with closing(sqlite3.connect(tmp_path / f"{number}.db")) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        together = threading.Barrier(6)

        def first(url: str = url, together: threading.Barrier = together) -> Engine:
            together.wait()
            engine = open_database(url)
            assert tried_vectors(url, front) == []
            return engine  # open, as that of a search is

        with ThreadPoolExecutor(6) as pool:
            idle += [begun.result() for begun in [pool.submit(first) for _ in range(6)]]
        with idle[-1].connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
            assert connection.scalar(text("SELECT count(*) FROM version_info")) == 1
    for engine in idle:
        engine.dispose()


def test_a_process_that_dies_while_it_makes_optunas_tables_leaves_none(
    url: str, tmp_path: Path
) -> None:
    code = (
        "import os, sys; from sqlalchemy import Engine, event; from distreal_dse.search import "
        "open_trials\n"
        "made = []\n"
        "def count(_connection, _cursor, statement, *_):\n"
        "    made.append('CREATE TABLE trials' in statement)\n"
        "    if any(made[:-1]): os._exit(9)\n"
        "event.listen(Engine, 'before_cursor_execute', count)\n"
        "open_trials(sys.argv[1])"
    )
    open_database(url).dispose()
    assert subprocess.run([sys.executable, "-c", code, url]).returncode == 9
    with closing(sqlite3.connect(tmp_path / "fronts.db")) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "trials" not in found and "fronts" in found


def test_a_database_that_only_optuna_can_not_write_is_named_for_what_it_is(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(url).dispose()
    read_only = f"sqlite:///file:{tmp_path}/fronts.db?mode=ro&uri=true"
    with pytest.raises(StorageError, match="expected a writable database, found a read-only one"):
        tried_vectors(read_only, make_front())
    monkeypatch.setattr("distreal_dse.fronts._database._BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "fronts.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked by another process") as caught:
            tried_vectors(url, make_front())
    assert "writable" not in str(caught.value)


def test_foreign_keys_are_enforced(database: Engine) -> None:
    with pytest.raises(ConflictError), writing(database) as session:
        point = asdict(make_front().points[0])
        session.add(FrontPointRow(front_id=7, position=0, **point))


def test_a_transaction_is_kept_whole_or_not_at_all(database: Engine) -> None:
    with pytest.raises(ZeroDivisionError), writing(database) as session:
        session.execute(text("INSERT INTO verifications VALUES ('s', '1', 0, 0, 1.0, 1.0)"))
        raise ZeroDivisionError
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM verifications")) == 0


def test_an_interrupted_migration_is_done_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    create, left = Operations.create_table, iter(range(2))

    def fail_at_the_third(self: Operations, *args: Any, **kwargs: Any) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return create(self, *args, **kwargs)

    monkeypatch.setattr(Operations, "create_table", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        open_database(url)
    monkeypatch.undo()
    engine = open_database(url)
    assert differences(engine) == []
    engine.dispose()


def test_migrations_on_postgres_wait_for_each_other(fresh_postgres_url: str) -> None:
    other = create_engine(normalise_url(fresh_postgres_url))
    with ThreadPoolExecutor(1) as pool:
        with other.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            opening = pool.submit(open_database, fresh_postgres_url)
            with pytest.raises(TimeoutError):
                opening.result(timeout=0.5)
        engine = opening.result(timeout=30)
    assert set(inspect(engine).get_table_names()) >= OWN_TABLES
    engine.dispose()
    other.dispose()


def test_a_newer_schema_is_refused(url: str) -> None:
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE distreal_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StorageError, match="found 9999 of a newer distreal-dse; update"):
        open_database(url)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all " * 100)
    with pytest.raises(StorageError, match="expected a SQLite database, found another file"):
        open_database(f"sqlite:///{path}")


@pytest.mark.parametrize("where", [".", "missing/fronts.db"])
def test_a_folder_and_a_file_in_no_folder_are_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(StorageError, match="expected a file in an existing, writable folder"):
        open_database(f"sqlite:///{tmp_path / where}")


def test_a_fresh_read_only_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StorageError, match="expected a writable database"):
        open_database(f"sqlite:///file:{tmp_path}/empty.db?mode=ro&uri=true")


def test_a_locked_database_is_waited_for_and_then_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distreal_dse.fronts._database._BUSY_SECONDS", 0.1)
    engine = open_database(url)
    other = sqlite3.connect(tmp_path / "fronts.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked by another process"):
        save_front(engine, make_front())
    other.execute("ROLLBACK")
    other.close()
    assert save_front(engine, make_front()).version == 1
    engine.dispose()


def test_a_database_that_was_moved_away_is_not_called_read_only(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/here.db")
    (tmp_path / "here.db").rename(tmp_path / "there.db")
    with pytest.raises(StorageError, match="expected the file that was opened, found it moved"):
        save_front(engine, make_front())
    engine.dispose()  # what connects now finds an empty file
    with pytest.raises(StorageError, match="found a database without; it was moved away"):
        save_front(engine, make_front())
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "distreal.db",
        "postgresql//user:geheim@host/db",
        "postgresql://user:geheim@host:port/db",
        "user:geheim@host",
        "geheim@host",
        "mysql://user:geheim@host/db",
    ],
)
def test_a_malformed_url_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(InputError, match="storage URL: expected sqlite:///FILE") as caught:
        open_database(url)
    assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_driver_is_refused_without_showing_a_password() -> None:
    with pytest.raises(InputError, match="nodriver") as caught:
        open_database("postgresql+nodriver://user:geheim@host/db")
    assert "geheim" not in str(caught.value)


def test_an_unreachable_server_is_refused_without_showing_a_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError, match=r"user:\*\*\*@127.0.0.1.*refused") as caught:
        open_database("postgresql://user:geheim@127.0.0.1:1/db")
    assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_driver_says_is_shown_without_secrets() -> None:
    url = make_url("postgresql://u:p%40%2Bw@h/up?sslpassword=two words")
    said = 'of "p@+w" in u:p%40%2Bw@h, sslpassword=two+words or two words; p@+wide is none'
    assert without_secrets(said, url) == (
        'of "***" in u:***@h, sslpassword=*** or ***; p@+wide is none'
    )
    assert shown_url(url) == "postgresql://u:***@h/up?sslpassword=***"
    assert without_secrets("as it is", make_url("sqlite:///x.db")) == "as it is"


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"pip install 'distreal-dse\[postgres\]'") as caught:
        open_database("postgresql://user:geheim@127.0.0.1:1/db")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p%40w@h/db", "postgresql+psycopg://u:p%40w@h/db"),
        ("postgres://h/db?sslmode=require", "postgresql+psycopg://h/db?sslmode=require"),
        ("postgresql+psycopg2://h/db", "postgresql+psycopg2://h/db"),
        ("sqlite:///distreal.db", "sqlite:///distreal.db"),
    ],
)
def test_urls_of_postgres_go_through_psycopg_3(given: str, expected: str) -> None:
    assert normalise_url(given) == expected == normalise_url(expected)
