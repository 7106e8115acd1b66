"""A process that has imported the libraries of all commands, and forks a command when asked to.

To import PyTorch and Optuna takes a command seconds of processor time, what a test asks of it
mostly none. A forked command is a real process: it has its own streams, folder, environment and
process group, takes signals, starts workers and exits as the installed script does, which it runs.
It imports our own modules itself. Only these are not its own: the libraries that are imported
(`LIBRARIES`), the seed of the hashes of strings, and where compiled modules are kept. And it frees
nothing at its end, which would take longer than most commands.

Worker processes are forked likewise (`forked_worker`), for commands by a process of theirs that has
imported no more. What they are sent, their streams, pipes, signals and ends are those of
`multiprocessing`. Scripts, notebooks and installed commands start theirs without any of this.

`command_line` is its client. Linux only, as commands become children of the client's process.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import inspect
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing import util
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch._dynamo", "distreal_dse.support.compat", "optuna_dashboard", "alembic.command",
    "sqlalchemy.orm", "sklearn.datasets", "sklearn.model_selection", "scipy.stats",
    "plotly.graph_objects", "plotly.io", "PIL.Image", "rich.progress", "typer._adapters",
)  # fmt: skip
# Of one message: the arguments and the environment of a command. In bytes.
LONGEST = 1 << 17
# Descriptors that come with one.
MOST = 64
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
    terminal
        Whether standard input is a terminal that a new session is to have, which turns Ctrl-C into
        a signal.
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
        terminal: bool = False,
    ) -> None:
        self._terminal = terminal
        super().__init__(
            arguments, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, text=True,
            start_new_session=start_new_session or terminal,
        )  # fmt: skip

    def _execute_child(self, *values: Any) -> None:  # type: ignore[override]
        """Do what `subprocess` does to start a process, which cares for all else."""
        given = inspect.signature(super()._execute_child).bind(*values).arguments
        pipes = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [own if pipe == -1 else pipe for own, pipe in enumerate(pipes)]
        self.pid = _forked(
            start(),
            list(map(str, given["args"])),
            streams,
            environment=dict(given["env"]),
            folder=str(given["cwd"] or Path.cwd()),
            session=given["start_new_session"],
            terminal=self._terminal,
        )
        self._child_created = True
        self._close_pipe_fds(
            given["p2cread"], given["p2cwrite"], given["c2pread"], given["c2pwrite"],
            given["errread"], given["errwrite"],
        )  # fmt: skip


def forked_worker(
    connection: Callable[[], socket.socket],
    ordinary: Callable[[bytes | str, Sequence[bytes | str], Sequence[int]], int],
    path: bytes | str,
    arguments: Sequence[bytes | str],
    descriptors: Sequence[int],
) -> int:
    """Do what `multiprocessing.util.spawnv_passfds` does, but fork workers.

    Parameters
    ----------
    connection
        Gives the one to the process that forks them.
    ordinary
        Starts all else, such as the process that tracks semaphores.
    path, arguments, descriptors
        As it takes them.
    """
    words = list(map(os.fsdecode, arguments))
    if words[-1] != "--multiprocessing-fork":
        return ordinary(path, arguments, descriptors)
    return _forked(
        connection(),
        ["-c", *words[words.index("-c") + 2 :]],
        [0, 1, 2, *descriptors],
        code=words[words.index("-c") + 1],
        numbers=list(descriptors),
        environment=dict(os.environ),
        folder=os.getcwd(),
        session=False,
        blocked=list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    )


def fork_workers(connection: Callable[[], socket.socket]) -> None:
    """Let workers of this process be forked from now on."""
    util.spawnv_passfds = partial(forked_worker, connection, util.spawnv_passfds)


def _forked(
    connection: socket.socket, arguments: list[str], descriptors: list[int], **more: Any
) -> int:
    """Have a process forked; returns its id."""
    request = {"arguments": arguments, **more}
    socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
    started = connection.recv(LONGEST)
    assert started, "the process was not started: see above why"
    return int(started)


def _adopt() -> None:
    """Be the parent of what is forked here and below: its own one ends at once."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@cache
def start() -> socket.socket:
    """Start the zygote of this process; returns the connection to it, with which it ends."""
    _adopt()
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        subprocess.Popen(
            [sys.executable, __file__, str(other.fileno())],
            pass_fds=[other.fileno()], start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return own


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request; returns it in that process, and nothing in the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, LONGEST, MOST)
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
            numbers = request.get("numbers", [])
            # Closed here, not when the object goes: the number may be another's by then.
            end = max(connection.detach(), starts, *descriptors, *numbers) + 1
            kept = [fcntl.fcntl(one, fcntl.F_DUPFD, end) for one in descriptors[3:]]
            os.closerange(3, end)
            for own, number in zip(kept, numbers, strict=True):
                os.dup2(own, number)
                os.close(own)
            return request
        os.close(starts)
        os.waitpid(parent, 0)
        connection.send(os.read(started, 32))
        for descriptor in (started, *descriptors):
            os.close(descriptor)


def become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Give this process what one that is started has."""
    signal.pthread_sigmask(signal.SIG_SETMASK, request.get("blocked", ()))
    if request["session"]:
        os.setsid()
    for own, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, own)
    if request.get("terminal"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # is that of the environment
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        # Anew, as what is changed of a stream depends on what kind of file it had.
        old = getattr(sys, name)
        handling = (errors or "strict") if encoding else old.errors
        stream = io.TextIOWrapper(
            open(own, "wb" if own else "rb", closefd=False),  # noqa: SIM115 - for good
            encoding=encoding or old.encoding,
            errors="backslashreplace" if own == 2 else handling,
            line_buffering=own == 2 or os.isatty(own),
            write_through=old.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end the zygote
    for library in LIBRARIES:
        with suppress(ImportError):  # in other versions
            importlib.import_module(library)
    # Our own modules are compiled once, whatever is in their folders and may be written to them.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.path.join(os.environ["XDG_STATE_HOME"], "compiled")
    gc.collect()
    gc.freeze()  # so that commands share what was imported
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads can't be forked"
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    if "--workers" in request["arguments"]:
        request = keep_one_to_fork_workers() or request
    with ended_by_itself():
        sys.argv[:] = request["arguments"]
        if "code" in request:
            exec(request["code"], {"__name__": "__main__"})
        else:
            folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            sys.path[:1] = [
                os.path.dirname(sys.argv[0]),
                *(one for one in folders if one not in sys.path),
            ]
            runpy.run_path(sys.argv[0], run_name="__main__")


def keep_one_to_fork_workers() -> dict[str, Any] | None:
    """Fork a process that forks the workers of this command; returns the request in a worker.

    It is of the command's group, as workers are that a command starts. It ends with the command.
    """
    _adopt()
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        other.close()
        fork_workers(lambda: own)
        return None
    own.close()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    request = serve(other)
    return request or os._exit(0)


@contextmanager
def ended_by_itself() -> Iterator[None]:
    """Do all that Python does at the end of a process but for freeing its memory."""
    code: object = 0
    try:
        yield
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            raise
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):  # else Python says so
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)
    sys.exit(code)


if __name__ == "__main__":
    main()
