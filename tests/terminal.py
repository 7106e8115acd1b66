"""Runs the real command in a pseudo-terminal, and tells what is on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from command_line import COMMAND, heed_signals
from command_line import environment as plain_environment
from zygote import ForkedCommand

CTRL_C = b"\x03"
CONTROL = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Terminal:
    """A command with a terminal of its own as standard input, output and error.

    Parameters
    ----------
    arguments
        Of the command.
    columns
        Width of the terminal, which has 24 lines.
    stdout
        A file for standard output instead.
    """

    def __init__(
        self, *arguments: str | Path, columns: int = 80, stdout: Path | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {name: text for name, text in plain_environment().items() if name != "COLUMNS"}
        output = slave if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT)
        command = [COMMAND, *map(str, arguments)]
        environment = {**own, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        streams = {"stdin": slave, "stdout": output, "stderr": slave}
        self.process: subprocess.Popen[str]
        if sys.platform == "linux":
            self.process = ForkedCommand(command, env=environment, terminal=True, **streams)
        else:
            self.process = subprocess.Popen(
                command, env=environment, text=True, start_new_session=True,
                preexec_fn=take_terminal, **streams,
            )  # fmt: skip
        for opened in {slave, output}:
            os.close(opened)
        self.shown = b""

    def read_until(self, holds: Callable[[str], object], seconds: float = 120) -> None:
        """Read until it holds for all that was shown so far."""
        end = time.monotonic() + seconds
        while not holds(self.text):
            assert self._read(end), f"it did not come:\n{self.text[-2000:]}"

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def finish(self, seconds: float = 120) -> int:
        """Read to the end; return the exit code."""
        end = time.monotonic() + seconds
        while self._read(end):
            pass
        os.close(self._master)
        return self.process.wait(timeout=max(1.0, end - time.monotonic()))

    def close(self, seconds: float = 60) -> int:
        """Close the terminal, as somebody who closes its window; return the exit code."""
        os.close(self._master)
        return self.process.wait(timeout=seconds)

    @property
    def text(self) -> str:
        return self.shown.decode(errors="replace")

    def _read(self, end: float) -> bool:
        """Read what there is; False at the end of the output."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            self.process.kill()
            raise AssertionError(f"it took too long:\n{self.text[-2000:]}")
        try:
            read = os.read(self._master, 65536)
        except OSError:  # all that had it open have ended
            return False
        self.shown += read
        return bool(read)


def take_terminal() -> None:
    """Make standard input the controlling terminal, so that it turns Ctrl-C into a signal."""
    heed_signals()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def screen(text: str) -> tuple[list[str], bool]:
    """Lines that a terminal shows in the end, however long, and whether its cursor is shown.

    It knows what rich uses, and refuses all else.
    """
    lines, row, column, cursor = [""], 0, 0, True
    position = 0
    while position < len(text):
        letter = text[position]
        if found := CONTROL.match(text, position):
            position = found.end()
            private, number, kind = found.groups()
            if private:
                assert number == "25" and kind in "hl", found.group()
                cursor = kind == "h"
            elif kind == "A":
                row = max(0, row - int(number or 1))
            elif kind == "K":
                assert number == "2", found.group()
                lines[row] = ""
            else:
                assert kind == "m", found.group()
            continue
        position += 1
        if letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            assert letter.isprintable(), repr(letter)
            old = lines[row].ljust(column)
            lines[row] = old[:column] + letter + old[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines], cursor
