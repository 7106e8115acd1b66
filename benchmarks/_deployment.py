"""A SuperLink and SuperNodes as processes on loopback, over TLS, with keys of nodes."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil

from distreal_dse.fronts import open_database
from fl.engine import FederatedRun
from fl.flower.config import read_config
from fl.flower.writing import Project, write_project
from fl.store.runs import Run, list_runs

COMMANDS = Path(sys.executable).parent
PATIENCE = 60.0
"""Seconds that a process has to be ready, or to end."""


class Deployment:
    """Processes of a project of `fl flower-init`; all are ended by `close`, with their children."""

    def __init__(self, project: Path, devices: int) -> None:
        self.project = project
        self.port = free_port()
        self._ports = [free_port() for _ in range(devices)]
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        config = project / "flower" / "config.toml"
        config.write_text(config.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))
        self.environment = {
            **os.environ,
            "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(project / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        self.call(sys.executable, "certificates.py", "--devices", str(devices))

    def call(self, *command: str, timeout: float = PATIENCE) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, timeout=timeout, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def start_link(self) -> None:
        """Start the SuperLink and wait until it answers over TLS."""
        keys = self.project / "certificates"
        self._start(
            "link", "flower-superlink", "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            "--host", "127.0.0.1", "--port", str(self.port), "--database", "link.db",
            "--ssl-ca-certfile", str(keys / "ca.crt"),
            "--ssl-certfile", str(keys / "server.pem"), "--ssl-keyfile", str(keys / "server.key"),
        )  # fmt: skip
        trusted = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(OSError), opener.open(f"https://127.0.0.1:{self.port}/health", timeout=5):
                return
            assert self._started["link"].poll() is None, self.log("link")
            time.sleep(0.1)
        raise AssertionError(self.log("link"))

    def start_node(self, device: int, node_config: str) -> None:
        """Start the SuperNode of a device."""
        keys = self.project / "certificates"
        self._start(
            f"node-{device}", "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", str(keys / "ca.crt"), "--port", str(self._ports[device]),
            "--auth-supernode-private-key", str(keys / f"device-{device}.key"),
            "--node-config", node_config,
        )  # fmt: skip

    def begin(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command; its output is the log named ``command``."""
        self._start("command", *command)
        return self._started["command"]

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.project / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """End a process and its children at once, as a power cut does."""
        process = self._started.pop(name)
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=PATIENCE)
        process.wait(PATIENCE)

    def close(self) -> list[str]:
        """End all; return what was still there afterwards."""
        family: list[psutil.Process] = []
        for process in self._started.values():
            with suppress(psutil.NoSuchProcess):
                own = psutil.Process(process.pid)
                family += [own, *own.children(recursive=True)]
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=10)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        _, left = psutil.wait_procs(left, timeout=10)
        for process in self._started.values():
            process.wait(PATIENCE)
        return [str(one) for one in left]

    def _start(self, name: str, command: str, *arguments: str) -> None:
        with (self.project / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [str(COMMANDS / command), *arguments], cwd=self.project, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def carried_out(
    folder: Path, strategy: str, nodes: int, rounds: int
) -> tuple[Run, FederatedRun, list[float]]:
    """Carry a run of `digits-cnn` out on SuperNodes that all take part in each round.

    Returns
    -------
    tuple
        The run as it is stored; the same run for the engine, not begun; when each round was stored.
    """
    project = folder / "project"
    database = open_database(f"sqlite:///{folder}/runs.db")
    write_project(
        project, Project("digits-cnn", None, strategy, rounds, nodes, nodes, "thirds"), database
    )
    deployment = Deployment(project, nodes)
    ends: list[float] = []
    try:
        deployment.start_link()
        for device in range(nodes):
            public = f"certificates/device-{device}.pub"
            deployment.call("flwr", "supernode", "register", public, "deployment")
            deployment.start_node(device, f"partition-id={device}")
        process = deployment.begin("flwr", "run", ".", "deployment", "--stream")
        while process.poll() is None:
            time.sleep(0.05)
            known = [one for run in list_runs(database) for one in run.rounds]
            ends += [time.monotonic()] * (len(known) - len(ends))
        (run,) = list_runs(database)
        if not run.finished:
            raise RuntimeError(deployment.log("command"))
    finally:
        deployment.close()
    app = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    begun = read_config(app["config"], project / "distreal_app").spec.begin(database)
    database.dispose()
    return run, begun, ends[1:]
