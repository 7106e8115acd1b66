"""Interrupts that Python loses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

# After an interrupt that was lost, in seconds: the callback it came in has ended by then.
SOON = 0.05


@contextmanager
def no_interrupt_lost(again: Callable[[], None]) -> Iterator[None]:
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
