"""A process that has imported the libraries of all commands, and forks a command when asked to.

To import PyTorch and Optuna takes a command seconds of processor time, what a test asks of it
mostly none. A forked command is a real process: it has its own streams, folder, environment and
process group, takes signals, starts workers and exits as the installed script does, which it runs.
It imports our own modules itself. Only these are not its own: the libraries that are imported
(`LIBRARIES`) and the seed of the hashes of strings.

`command_line` is its client. Linux only, as commands become children of the client's process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch._dynamo", "distreal_dse.support.compat", "optuna_dashboard", "alembic.command",
    "sqlalchemy.orm", "sklearn.datasets", "sklearn.model_selection", "scipy.stats",
    "plotly.graph_objects", "plotly.io", "PIL.Image", "rich.progress", "typer._adapters",
)  # fmt: skip
# Of one message: the arguments and the environment of a command. In bytes.
LONGEST = 1 << 17
# Of `prctl`, see its manual page.
PR_SET_CHILD_SUBREAPER = 36


class ForkedCommand(subprocess.Popen[str]):
    """A process of the command, forked by the zygote.

    Parameters
    ----------
    arguments
        The script to run, and its arguments.
    stdin, stdout, stderr, env, cwd, start_new_session
        As for `subprocess.Popen`. All else that it takes has no effect. Ctrl-C is not ignored,
        even where the tests are run in the background of a shell.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        start_new_session: bool = False,
    ) -> None:
        super().__init__(
            arguments, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, text=True,
            start_new_session=start_new_session,
        )  # fmt: skip

    def _execute_child(self, *values: Any) -> None:  # type: ignore[override]
        """Do what `subprocess` does to start a process, which cares for all else."""
        given = inspect.signature(super()._execute_child).bind(*values).arguments
        pipes = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {
            "arguments": list(map(str, given["args"])),
            "environment": dict(given["env"]),
            "folder": str(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
        }
        connection = _zygote()
        streams = [own if pipe == -1 else pipe for own, pipe in enumerate(pipes)]
        socket.send_fds(connection, [json.dumps(request).encode()], streams)
        started = connection.recv(LONGEST)
        assert started, "the command was not started: see above why"
        self.pid = int(started)
        self._child_created = True
        self._close_pipe_fds(
            given["p2cread"], given["p2cwrite"], given["c2pread"], given["c2pwrite"],
            given["errread"], given["errwrite"],
        )  # fmt: skip


@cache
def _zygote() -> socket.socket:
    """Start the zygote of this process; returns the connection to it, with which it ends."""
    # The parent of a command ends at once. This process takes its place, and can wait for it.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        subprocess.Popen(
            [sys.executable, __file__, str(other.fileno())],
            pass_fds=[other.fileno()], start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return own


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork a command for each request; returns it in the command, and nothing in the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, LONGEST, 3)
        if not message:
            return None
        started, starts = os.pipe()
        parent = os.fork()
        if not parent:
            if os.fork():
                os._exit(0)
            request: dict[str, Any] = json.loads(message)
            become(request, descriptors)
            os.write(starts, str(os.getpid()).encode())
            os.closerange(3, max(connection.fileno(), starts, *descriptors) + 1)
            return request
        os.close(starts)
        os.waitpid(parent, 0)
        connection.send(os.read(started, 32))
        for descriptor in (started, *descriptors):
            os.close(descriptor)


def become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Give this process what a command that is started has."""
    if request["session"]:
        os.setsid()
    for own, descriptor in enumerate(descriptors):
        os.dup2(descriptor, own)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # is that of the environment
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if encoding:
            stream.reconfigure(encoding=encoding, errors=errors or None)  # type: ignore[union-attr]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end the zygote
    for library in LIBRARIES:
        with suppress(ImportError):  # in other versions
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # so that commands share what was imported
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads can't be forked"
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        sys.argv[:] = request["arguments"]
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
