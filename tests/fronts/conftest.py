from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from distreal_dse.fronts import open_database
from front_examples import OWN_TABLES


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fronts.db"


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own on a unix socket, with a role that has a password."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not installed:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql")
    binaries = installed[-1].parent
    # The server refuses to run as root.
    as_owner: list[str] = []
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("root can't run PostgreSQL and there is no user postgres")
        as_owner = ["runuser", "-u", "postgres", "--"]
    # Not in tmp_path: its parents are closed to other users, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="distreal-pg-", dir="/tmp"))
    if as_owner:
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def run(name: str, *arguments: str) -> None:
        command = [*as_owner, str(binaries / name), *arguments]
        # No pipes: the server would inherit them, and the test would wait for it to close them.
        with (folder / "test.log").open("ab") as log:
            subprocess.run(command, check=True, cwd="/", stdout=log, stderr=log, timeout=60)

    data = folder / "data"
    try:
        run("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", str(data), "-o", options, "-w", "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql://tester:geheim@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fresh_postgres_url(postgres_url: str) -> str:
    """The same server without our tables."""
    engine = open_database(postgres_url)
    with engine.begin() as connection:
        for table in inspect(connection).get_table_names():
            if table == "distreal_version" or table in OWN_TABLES:
                connection.execute(text(f"DROP TABLE {table} CASCADE"))
    engine.dispose()
    return postgres_url
