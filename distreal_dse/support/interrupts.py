"""Signals that ask a command to end, and interrupts that Python loses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from types import FrameType

# After an interrupt that was lost, in seconds: the callback it came in has ended by then.
SOON = 0.05

# Windows knows no terminal that hangs up.
HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Interrupts:
    """What a command makes of Ctrl-C, of its termination, and of a terminal that is closed.

    The first of them interrupts it as Ctrl-C does. What it then stores must not be interrupted by
    those who ask again, as supervisors do, but for one Ctrl-C more: somebody does not want to
    wait. All others are ignored, so that nothing interrupts the end of the process.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._over = False
        self._taken: list[signal.Signals] = []

    def listen(self) -> None:
        """Take over the signals of this process, but for those that it was started to ignore."""
        for number in (signal.SIGINT, signal.SIGTERM, HANG_UP):
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                self._taken.append(number)
                signal.signal(number, self._interrupt)

    def end(self) -> None:
        """Ignore all that comes from now on, also while Python ends, which forgets handlers."""
        self._over = True
        for number in self._taken:
            signal.signal(number, signal.SIG_IGN)

    def again(self) -> None:
        """Interrupt once more, after an interrupt that Python lost; in any thread."""
        self._heard -= 1
        # Ctrl-C is ignored in the background of a shell, and its end kills who does not listen.
        listens = signal.SIGTERM in self._taken
        os.kill(os.getpid(), signal.SIGTERM if listens else signal.SIGINT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if number == HANG_UP:
            _leave_lost_terminal()
        if self._over or self._heard >= (2 if number == signal.SIGINT else 1):
            return
        self._heard += 1
        raise KeyboardInterrupt


interrupts = Interrupts()
"""Those of this process."""


def _leave_lost_terminal() -> None:
    """Write to nowhere what would go to a terminal that is gone, rather than fail."""
    for output in (1, 2):
        try:
            os.write(output, b"")
        except OSError:
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)


@contextmanager
def no_interrupt_lost(again: Callable[[], None] = interrupts.again) -> Iterator[None]:
    """Interrupt once more where Python could only ignore it.

    A signal may arrive in a callback of the garbage collector, of which there are many while
    objects of a database are freed. What its handler raises there is printed and forgotten.

    Parameters
    ----------
    again
        Sends the signal once more; called in another thread.

    Raises
    ------
    KeyboardInterrupt
        Where the block ends before the signal was sent once more.
    """
    ordinary, timers = sys.unraisablehook, list[Timer]()

    def look_at(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            timers.append(Timer(SOON, again))
            timers[-1].start()
        else:
            ordinary(lost)

    sys.unraisablehook = look_at
    try:
        yield
    finally:
        sys.unraisablehook = ordinary
        waiting = [timer for timer in timers if timer.is_alive()]
        for timer in waiting:
            timer.cancel()
    if waiting:
        raise KeyboardInterrupt
