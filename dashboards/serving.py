"""optuna-dashboard on a storage, with our figures kept up to date."""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi
from sqlalchemy import Engine, make_url

from dashboards.access import Access, guarded, host_name
from dashboards.publishing import open_storage, publish
from distreal_dse.errors import DistrealError, InputError, StorageError
from distreal_dse.fronts import list_fronts, normalise_url, open_database

LOOPBACK = "127.0.0.1"
PORT = 8080
# Between two looks for new trials, in seconds; optuna-dashboard's pages ask as often.
POLL = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


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
    allow_hosts: Sequence[str] = (),
    read_only: bool = False,
) -> Iterator[tuple[WSGIServer, str]]:
    """Serve optuna-dashboard while the context is open, and draw searches anew as they grow.

    Requests are refused that come by another name than those of this machine or through a page of
    another site (`Access`). Where others than this machine are to reach it, a new token is needed.

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
    allow_hosts
        Further names that it is reached by, such as that of a proxy; they ask for the token.
    read_only
        Refuse all requests that change something.

    Yields
    ------
    tuple
        The server, to be run with ``serve_forever``, and the address of its pages, with the token
        where there is one.

    Raises
    ------
    InputError
        If the port is taken, the folder can't be made, or a name is none.
    StorageError
        If there is no such database.
    """
    names = [host_name(name) for name in allow_hosts]
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
        kind = _ServerV6 if ":" in host else _Server
        server = make_server(host, port, application, kind, _Quiet)
    except OSError as error:
        raise InputError(
            f"{host}:{port}: expected a free port of this machine, found: {error.strerror}; give "
            "another one with --port, 0 for any"
        ) from error
    access = _access(server, host, names, read_only)
    server.set_app(guarded(application, access))
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(storage, engine, ended, warn), daemon=True)
    watcher.start()
    try:
        yield server, _address(server, host, access)
    finally:
        ended.set()
        server.server_close()
        watcher.join(timeout=POLL)
        storage.remove_session()
        storage.engine.dispose()
        engine.dispose()


def _access(server: WSGIServer, host: str, names: Sequence[str], read_only: bool) -> Access:
    bound = ip_address(str(server.server_address[0]))
    everywhere = bound.is_unspecified
    own = {socket.gethostname().lower()} if everywhere else {host.lower(), str(bound)}
    return Access(
        names=frozenset((*names, *own)),
        any_address=everywhere,
        token=None if bound.is_loopback and not names else secrets.token_urlsafe(24),
        cookie=f"distreal_dse_token_{server.server_port}",
        read_only=read_only,
    )


def _address(server: WSGIServer, host: str, access: Access) -> str:
    shown = socket.gethostname() if access.any_address else f"[{host}]" if ":" in host else host
    query = f"?token={access.token}" if access.token else ""
    return f"http://{shown}:{server.server_port}/dashboard{query}"


def artifact_folder(url: str) -> Path:
    """Where artifacts of a database lie: beside the file of a SQLite database, else here."""
    parsed = make_url(normalise_url(url))
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        return file.with_name(f"{file.stem}-artifacts")
    return Path("distreal-artifacts")


def refresh(storage: RDBStorage, engine: Engine, drawn: dict[str, tuple[int, int, int]]) -> None:
    """Draw the searches anew that have grown since they were drawn.

    Parameters
    ----------
    storage, engine
        Optuna's and our part of the database.
    drawn
        By name, the trials that each search had then, its fronts, and those of its networks, which
        are drawn beside its own; is brought up to date.

    Raises
    ------
    StorageError
        If the database can't be read or written.
    """
    fronts: dict[str, int] = {}
    networks: dict[str, set[str]] = {}
    of_network = Counter[str]()
    for one in list_fronts(engine):
        fronts[one.name] = max(one.version, fronts.get(one.name, 0))
        networks.setdefault(one.name, set()).add(one.model_fingerprint)
        of_network[one.model_fingerprint] += 1
    for summary in optuna.get_all_study_summaries(storage):
        name = summary.study_name
        beside = sum(of_network[one] for one in networks.get(name, ()))
        state = (summary.n_trials, fronts.get(name, 0), beside)
        if drawn.get(name) != state:
            with _unless_deleted(storage, name):
                publish(storage, engine, name)
            drawn[name] = state


@contextmanager
def _unless_deleted(storage: RDBStorage, name: str) -> Iterator[None]:
    """Pass over what fails as a study is gone: a page can delete it while it is drawn."""
    try:
        yield
    except (KeyError, StorageError):
        if name in optuna.get_all_study_names(storage):
            raise


def _watch(
    storage: RDBStorage, engine: Engine, ended: threading.Event, warn: Callable[[str], None]
) -> None:
    drawn: dict[str, tuple[int, int, int]] = {}
    said = set[str]()
    while not ended.is_set():
        try:
            refresh(storage, engine, drawn)
        except (DistrealError, optuna.exceptions.OptunaError) as error:  # the pages work without
            if str(error) not in said:
                said.add(str(error))
                warn(str(error))
        ended.wait(POLL)
