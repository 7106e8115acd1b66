from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let Ctrl-C interrupt, in these tests and in all that they start.

    A shell ignores it for what it starts in the background, and so does whatever that starts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
