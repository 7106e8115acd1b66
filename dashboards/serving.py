"""optuna-dashboard on a storage, with our figures kept up to date."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi
from sqlalchemy import Engine, make_url

from dashboards.publishing import open_storage, publish
from distreal_dse.errors import DistrealError, InputError
from distreal_dse.fronts import list_fronts, normalise_url, open_database

LOOPBACK = "127.0.0.1"
PORT = 8080
# Between two looks for new trials, in seconds; optuna-dashboard's pages ask as often.
POLL = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing of requests: a page makes one every few seconds."""


@contextmanager
def dashboard_server(
    url: str,
    host: str = LOOPBACK,
    port: int = PORT,
    artifacts: Path | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[WSGIServer, str]]:
    """Serve optuna-dashboard while the context is open, and draw searches anew as they grow.

    Parameters
    ----------
    url
        Of the database.
    host, port
        Where to listen; port 0 takes any that is free.
    artifacts
        Folder of the artifact store, made where it is missing; None for `artifact_folder`.
    warn
        Hears why figures could not be drawn, once for each reason.

    Yields
    ------
    tuple
        The server, to be run with ``serve_forever``, and the address of its pages.

    Raises
    ------
    InputError
        If the port is taken, or the folder can't be made.
    StorageError
        If there is no such database.
    """
    engine = open_database(url, create=False)
    storage = open_storage(url)
    folder = artifact_folder(url) if artifacts is None else artifacts
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--artifacts {folder}: expected a folder that can be written, found: "
            f"{error.strerror}; give another one"
        ) from error
    application = wsgi(storage, artifact_store=FileSystemArtifactStore(folder))
    try:
        server = make_server(host, port, application, _Server, _Quiet)
    except OSError as error:
        raise InputError(
            f"{host}:{port}: expected a free port of this machine, found: {error.strerror}; give "
            "another one with --port, 0 for any"
        ) from error
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(storage, engine, ended, warn), daemon=True)
    watcher.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield server, f"http://{shown}:{server.server_port}/dashboard"
    finally:
        ended.set()
        server.server_close()
        watcher.join(timeout=POLL)
        storage.remove_session()
        storage.engine.dispose()
        engine.dispose()


def artifact_folder(url: str) -> Path:
    """Where artifacts of a database lie: beside the file of a SQLite database, else here."""
    parsed = make_url(normalise_url(url))
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        return file.with_name(f"{file.stem}-artifacts")
    return Path("distreal-artifacts")


def refresh(storage: RDBStorage, engine: Engine, drawn: dict[str, tuple[int, int]]) -> None:
    """Draw the searches anew that have grown since they were drawn.

    Parameters
    ----------
    storage, engine
        Optuna's and our part of the database.
    drawn
        By name, the trials and fronts that each search had then; is brought up to date.

    Raises
    ------
    StorageError
        If the database can't be read or written.
    """
    fronts: dict[str, int] = {}
    for one in list_fronts(engine):
        fronts[one.name] = max(one.version, fronts.get(one.name, 0))
    for summary in optuna.get_all_study_summaries(storage):
        state = (summary.n_trials, fronts.get(summary.study_name, 0))
        if drawn.get(summary.study_name) != state:
            publish(storage, engine, summary.study_name)
            drawn[summary.study_name] = state


def _watch(
    storage: RDBStorage, engine: Engine, ended: threading.Event, warn: Callable[[str], None]
) -> None:
    drawn: dict[str, tuple[int, int]] = {}
    said = set[str]()
    while not ended.is_set():
        try:
            refresh(storage, engine, drawn)
        except (DistrealError, optuna.exceptions.OptunaError) as error:  # the pages work without
            if str(error) not in said:
                said.add(str(error))
                warn(str(error))
        ended.wait(POLL)
