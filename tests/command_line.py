"""Runs the real command in real processes.

Most of them are forked from a process that has imported PyTorch already (`zygote`).
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zygote import ForkedCommand

COMMAND = Path(sys.executable).with_name("distreal-dse")


def environment() -> dict[str, str]:
    elsewhere = ("DISTREAL_STORAGE", "OPTUNA_STORAGE")
    own = {name: text for name, text in os.environ.items() if name not in elsewhere}
    return {**own, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def error(self, code: int) -> str:
        """The one line that a failed command says, and nothing else but empty ones."""
        assert "Traceback" not in self.stderr, self.stderr
        assert self.code == code, self.stderr
        assert self.stdout == ""
        (line,) = filter(None, self.stderr.splitlines())
        assert line.startswith("error: ")
        assert len(line) > len("error: ") + 10
        return line


def run(*arguments: str | Path, cwd: Path | None = None, installed: bool = False) -> Ended:
    """Run a command to its end.

    Parameters
    ----------
    installed
        Start the installed script in an interpreter of its own, which takes seconds, as people do.
    """
    with _process(arguments, cwd, installed) as process:
        try:
            return finish(process)
        finally:
            process.kill()  # where it took too long


def start(*arguments: str | Path, installed: bool = False) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a shell does."""
    return _process(arguments, None, installed, start_new_session=True)


def _process(
    arguments: tuple[str | Path, ...], cwd: Path | None, installed: bool, **options: bool
) -> subprocess.Popen[str]:
    command = [COMMAND, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if sys.platform == "linux" and not installed:
        return ForkedCommand(command, env=environment(), cwd=cwd, **pipes, **options)
    return subprocess.Popen(
        command, env=environment(), cwd=cwd, text=True, **pipes, **options,
        preexec_fn=heed_signals,
    )  # fmt: skip


def heed_signals() -> None:
    """In a child: heed what a shell ignores for all that it starts in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def finish(process: subprocess.Popen[str]) -> Ended:
    stdout, stderr = process.communicate(timeout=120)
    return Ended(process.returncode, stdout, stderr)


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def finished_trials(file: Path) -> int:
    """Number of finished trials in a database, read beside whoever writes it."""
    if not file.exists():
        return 0
    connection = sqlite3.connect(file, timeout=30)
    try:
        query = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'FAIL')"
        return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # its tables are not made yet
        return 0
    finally:
        connection.close()


def children_of(pid: int) -> list[int]:
    """Ids of the processes that ``pid`` started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
