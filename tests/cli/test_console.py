"""What commands share on their way to the screen."""

from __future__ import annotations

import signal
import sys
import time
import weakref

import pytest

from distreal_dse.cli._console import Interrupted, interruptible
from distreal_dse.support.interrupts import SOON


class Freed:
    """Something that is freed."""


def test_an_interrupt_in_a_callback_of_the_collector_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hook = sys.unraisablehook
    freed = Freed()
    watched = weakref.ref(freed, lambda _: signal.raise_signal(signal.SIGINT))
    with (
        pytest.raises(Interrupted, match="interrupted: all is kept"),
        interruptible(lambda: "all is kept"),
    ):
        del freed
        assert watched() is None  # and nothing was raised
        time.sleep(30)
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_an_interrupt_at_the_end_of_a_block_is_not_lost() -> None:
    freed = Freed()
    watched = weakref.ref(freed, lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted), interruptible(lambda: ""):
        del freed
    assert watched() is None
    time.sleep(2 * SOON)  # and comes no second time


def test_what_else_python_ignores_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    freed = Freed()
    watched = weakref.ref(freed, lambda _: 1 / 0)
    with interruptible(lambda: ""):
        del freed
    assert watched() is None and told == [ZeroDivisionError]
