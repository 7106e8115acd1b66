"""A PostgreSQL server of one's own, on a unix socket, that can be stopped and started."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    """A server; its folder holds its data, its socket and its log."""

    folder: Path
    binaries: Path
    as_owner: tuple[str, ...]

    @property
    def url(self) -> str:
        """With a password, which errors must not show."""
        return f"postgresql://tester:geheim@/postgres?host={self.folder}"

    def create(self) -> None:
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._control("-o", options, "-w", "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """End it and its connections: "fast" as a restart does, "immediate" as a crash does."""
        self._control("-m", mode, "stop")

    @property
    def is_up(self) -> bool:
        return (self.folder / "data" / "postmaster.pid").exists()

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self.as_owner, str(self.binaries / name), *arguments]
        # No pipes: the server would inherit them, and the test would wait for it to close them.
        with (self.folder / "test.log").open("ab") as log:
            subprocess.run(command, check=True, cwd="/", stdout=log, stderr=log, timeout=60)


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server with a role that has a password; skip the test where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not installed:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql")
    # The server refuses to run as root.
    as_owner: tuple[str, ...] = ()
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("root can't run PostgreSQL and there is no user postgres")
        as_owner = ("runuser", "-u", "postgres", "--")
    # Not in tmp_path: its parents are closed to other users, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="distreal-pg-", dir="/tmp"))
    if as_owner:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = Server(folder, installed[-1].parent, as_owner)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            if server.is_up:
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
