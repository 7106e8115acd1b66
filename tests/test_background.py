"""Tests in the background of a shell, where Ctrl-C and the end of the terminal are ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment, finish, start
from terminal import Terminal

IGNORED = (signal.SIGINT, signal.SIGHUP)


def ignore() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def test_tests_of_ctrl_c_pass_in_the_background() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "cli/test_console.py"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(),
        cwd=Path(__file__).parent, preexec_fn=ignore, start_new_session=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("terminal", [False, True])
def test_commands_heed_signals_that_these_tests_ignore(terminal: bool) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        started = Terminal("studies") if terminal else None
        process = started.process if started else start("studies")
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = started.finish() if started else finish(process).code  # type: ignore[arg-type]
    (ignored,) = (int(line.split()[1], 16) for line in status if line.startswith("SigIgn:"))
    assert not any(ignored >> (number - 1) & 1 for number in IGNORED)
    assert code == 0
