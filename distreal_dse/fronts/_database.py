"""Opening the database: SQLite or PostgreSQL, its tables up to date, its errors in plain words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os.path import exists
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    StaticPool,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session

from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts._urls import described_text, secrets_of, shown_url, without_secrets

SCHEMA_VERSION = "0008"
"""The newest revision in ``migrations/versions``; here so that reading it needs no Alembic."""

VERSION_TABLE = "distreal_version"
"""Where Alembic keeps our revision; ``alembic_version`` in the same database is Optuna's."""

_MIGRATION_LOCK = 0x64697374  # any number that all processes of this project agree on
_BUSY_SECONDS = 30  # how long a SQLite connection waits for another process's transaction
_CONNECT_SECONDS = 10  # libpq's default is to wait for an unreachable server without end

_ADVICE = {
    "file is not a database": "expected a SQLite database, found another file; give another path",
    "SQLITE_READONLY_DBMOVED": "expected the file that was opened, found it moved away or deleted; "
    "bring it back, or start again with its new path",
    "readonly database": "expected a writable database, found a read-only one; change its "
    "permissions or give another path",
    "unable to open database file": "expected a file in an existing, writable folder, found none "
    "that can be opened; create the folder or give another path",
    "no such table": "expected the tables of this project, found a database without; it was moved "
    "away, deleted or replaced while it was in use: bring it back",
    "database is locked": f"found it locked by another process for {_BUSY_SECONDS} s; "
    "try again when that is done",
}


class ConflictError(StorageError):
    """Another process stored a row with the same key first."""


class ConnectionLostError(StorageError):
    """The server of a database that answered before ended the connection, or refuses a new one.

    Parameters
    ----------
    what
        The storage, without a password.
    found
        What its driver says, in a line.
    waited
        Seconds that it was waited for.
    again
        What to run when the server is back.
    """

    def __init__(
        self, what: str, found: str, waited: float = 0.0, again: str = "the same command again"
    ) -> None:
        super().__init__(what, found, waited, again)
        self.what, self.found, self.waited, self.again = what, found, waited, again

    def __str__(self) -> str:
        """Say what to do, in a line."""
        lost = f"did not come back within {self.waited:g} s" if self.waited else "went away"
        return (
            f"{self.what}: the database {lost}: expected a running server, found: {self.found}; "
            f"start it and run {self.again}: everything finished is kept"
        )


def normalise_url(url: str) -> str:
    """Return the URL to give to SQLAlchemy and Optuna: PostgreSQL goes through psycopg 3.

    Raises
    ------
    InputError
        Where the text is no URL of a SQLite or PostgreSQL database.
    """
    return _parse(url).render_as_string(hide_password=False)


def engine_options(url: str) -> dict[str, Any]:
    """Return what SQLAlchemy and Optuna are to make an engine with: how long it waits, for whom.

    Raises
    ------
    InputError
        As `normalise_url`.
    """
    return _options(_parse(url))


def shown_storage(url: str) -> str:
    """The URL of a database with asterisks in place of its secrets.

    Raises
    ------
    InputError
        Where the text is no URL of a SQLite or PostgreSQL database.
    """
    return shown_url(_parse(url))


def has_secret(url: str) -> bool:
    """Whether a URL holds what nobody else should read; so does what is no URL of ours."""
    try:
        return bool(secrets_of(_parse(url)))
    except InputError:
        return True


def open_database(url: str, create: bool = True) -> Engine:
    """Open a database and bring our tables up to date.

    Any number of processes may open one database, fresh or not, at the same time. An up-to-date
    one may be read-only.

    Parameters
    ----------
    url
        ``sqlite:///distreal.db`` or ``postgresql://user:password@host/database``.
    create
        Whether to make a SQLite file that isn't there; what only reads should not.

    Raises
    ------
    InputError
        Where the text is no URL of a SQLite or PostgreSQL database.
    StorageError
        Where the database can't be reached, opened, or read by this version.
    """
    return _open(url, create, answered=False)


def _open(url: str, create: bool, answered: bool) -> Engine:
    engine = _create_engine(_parse(url))
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if not create and file and not file.startswith((":memory:", "file:")) and not exists(file):
        raise StorageError(
            f"storage {shown_url(engine.url)}: expected a database, found no such file; make one "
            "with `distreal-dse optimize`, or name another with --storage"
        )
    try:
        with _plain_errors(engine.url, answered):
            _bring_up_to_date(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def make_tables(url: str, filled_last: str, make: Callable[[dict[str, Any]], None]) -> None:
    """Let somebody else's code make its tables, unless it has; in one process at a time.

    Parameters
    ----------
    url
        The database.
    filled_last
        A table that has a row when all is made.
    make
        Called with what it has to give to `sqlalchemy.create_engine` beside the URL. It may be
        called again where it made a part only.

    Raises
    ------
    StorageError
        Where the database can't be read, locked or written. Other errors of ``make`` get out.
    """
    engine = _create_engine(_parse(url))
    try:
        with _plain_errors(engine.url), engine.connect() as connection:
            if _has_row(connection, filled_last):
                return
        with _plain_errors(engine.url), _alone(engine) as connection:
            # Whoever waited finds the work done.
            if not _has_row(connection, filled_last):
                make(_sharing(connection))
    finally:
        engine.dispose()


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """Read in one transaction; database errors come out as `StorageError`.

    A function that does nothing else may be decorated with `outlasting_restarts`.
    """
    with _plain_errors(engine.url), Session(engine) as session, session.begin():
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """Read and write in one transaction, which is kept whole or not at all.

    On SQLite the write lock is taken at once: a transaction that reads first and then writes
    would fail, without waiting, if another process wrote in between.

    Raises
    ------
    ConflictError
        Where a constraint is broken, e.g. by a row that another process stored first.
    ConnectionLostError
        Where the server went away; `outlasting_restarts` waits for it.
    StorageError
        On any other error of the database.
    """
    with _plain_errors(engine.url), Session(_locking(engine)) as session, session.begin():
        yield session


def check_writable(engine: Engine) -> None:
    """Write what is there already.

    Raises
    ------
    StorageError
        Where the database can't be written.
    """
    with writing(engine) as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = version_num"))


def _locking(engine: Engine) -> Engine:
    return engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        known = parsed.get_backend_name() in ("sqlite", "postgresql")
    except (ArgumentError, ValueError):
        known = False
    if not known:
        raise InputError(
            "storage URL: expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE, "
            f"found {described_text(url)}; set --storage or $DISTREAL_STORAGE"
        ) from None  # the original error may quote all of it
    return parsed


def _create_engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, **_options(url))
    except ImportError as error:
        raise StorageError(
            f"storage {shown_url(url)}: expected the driver of {url.drivername}, found: {error}; "
            f"`pip install 'distreal-dse[postgres]'` and give postgresql://… without a driver"
        ) from error
    except SQLAlchemyError as error:
        raise InputError(
            f"storage {shown_url(url)}: expected a driver that SQLAlchemy knows, found "
            f"{url.drivername!r}; leave the driver out of the URL"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_SECONDS}}
    # A search runs for days; the server may restart in between.
    connect = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
    return {"connect_args": connect, "pool_pre_ping": True}


def _configure_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, late and not for DDL.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _bring_up_to_date(engine: Engine) -> None:
    with engine.connect() as connection:
        version = _schema_version(connection)
    if version is None or version < SCHEMA_VERSION:
        _migrate(engine)
    elif version > SCHEMA_VERSION:
        raise StorageError(
            f"storage {shown_url(engine.url)}: expected schema {SCHEMA_VERSION} or older, found "
            f"{version} of a newer distreal-dse; update with `pip install -U distreal-dse`"
        )


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    with _alone(engine) as connection:
        # Whoever waited for the lock finds the work done: Alembic then has nothing to do.
        config = Config()
        config.set_main_option("script_location", "distreal_dse.fronts:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Make tables in one transaction, while no other process makes any."""
    with _locking(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        yield connection


def _has_row(connection: Connection, table: str) -> bool:
    if not inspect(connection).has_table(table):
        return False
    return connection.scalar(text(f"SELECT 1 FROM {table} LIMIT 1")) is not None


def _sharing(connection: Connection) -> dict[str, Any]:
    """Options of an engine that works beside a connection that locks out all others.

    On SQLite that is the same connection: any other would wait for the lock.
    """
    if connection.dialect.name == "postgresql":
        return _options(connection.engine.url)
    lent = _Lent(connection.connection.driver_connection)
    return {"creator": lambda: lent, "poolclass": StaticPool}


class _Lent:
    """A connection of DB-API whose transaction is not the borrower's to end."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to the owner."""

    rollback = close = commit


@contextmanager
def _plain_errors(url: URL, answered: bool = True) -> Iterator[None]:
    """Turn SQLAlchemy's errors into ours: one line, what to do, no password, no SQL.

    ``answered`` tells whether the database did so before: then its URL is right.
    """
    try:
        yield
    except SQLAlchemyError as error:
        shown = f"storage {shown_url(url)}"
        if answered and is_connection_lost(error):
            raise ConnectionLostError(shown, without_secrets(said_by_driver(error), url)) from error
        kind = ConflictError if isinstance(error, IntegrityError) else StorageError
        raise kind(f"{shown}: {without_secrets(explained(error), url)}") from error


def is_connection_lost(error: SQLAlchemyError) -> bool:
    """Whether the server ended the connection, or refused it, rather than what was asked for.

    SQLite has no server, and waits for other processes by itself.
    """
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    # Whoever can't connect has neither a statement nor a code of the server.
    refused = isinstance(error, OperationalError) and error.statement is None
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or (refused and code is None)


def explained(error: BaseException) -> str:
    """What was expected of a database, what was found, and what to do: a line without SQL."""
    own = _own(error)
    # SQLite's code says more than its text: of a file that was moved, too, it says "readonly".
    signs = f"{getattr(own, 'sqlite_errorname', '')} {own}"
    default = f"expected a working database, found: {said_by_driver(error)}; check the URL"
    return next((words for sign, words in _ADVICE.items() if sign in signs), default)


def said_by_driver(error: BaseException) -> str:
    """What the database's driver says, in a line."""
    return " ".join(str(_own(error)).split())


def _own(error: BaseException) -> BaseException:
    return (error.orig or error) if isinstance(error, DBAPIError) else error
