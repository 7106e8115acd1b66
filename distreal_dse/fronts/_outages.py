"""Work on the database that outlasts a restart of its server."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sqlalchemy import Engine

from distreal_dse.fronts._database import ConnectionLostError, _open

if TYPE_CHECKING:
    from tenacity import RetryCallState

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 120.0
"""Seconds in all for which a database that went away is waited for: a server's restart, or its
recovery after a crash. Less than half of what makes others take a run over
(`distreal_dse.fronts.leases.STALE`)."""

# Pauses between two attempts, in seconds: they double from the first to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

_logger = logging.getLogger(__name__)
_may_wait = ContextVar("may_wait", default=True)


def outlasting_restarts(work: Callable[P, T]) -> Callable[P, T]:
    """Let a function try again, with growing pauses, where the server of its database went away.

    It says so once by this module's logger, goes on silently, and gives up after `PATIENCE`. Of
    such functions that call each other, the outermost one waits, so that they don't wait in turn.

    Parameters
    ----------
    work
        Does one transaction, and may be called again where nobody knows if that was kept.

    Raises
    ------
    ConnectionLostError
        If the server did not come back; says what to do.
    """

    @wraps(work)
    def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _may_wait.get():
            return work(*args, **kwargs)
        with not_waiting():
            with suppress(ConnectionLostError):
                return work(*args, **kwargs)
            return _again(partial(work, *args, **kwargs))

    return patient


@contextmanager
def not_waiting() -> Iterator[None]:
    """Try once only: for those who are asked to end, and within what is tried again as a whole."""
    token = _may_wait.set(False)
    try:
        yield
    finally:
        _may_wait.reset(token)


@outlasting_restarts
def reopen_database(url: str) -> Engine:
    """Open a database that this command opened before, maybe in another process.

    Raises
    ------
    StorageError
        As `open_database`.
    """
    return _open(url, create=False, answered=True)


def _again(work: Callable[[], T]) -> T:
    # Hardly ever needed, and 40 ms to import.
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        stop_after_delay,
        wait_exponential,
        wait_random,
    )

    retrying = Retrying(
        retry=retry_if_exception_type(ConnectionLostError),
        # The random part, so that all who wait don't come back at once.
        wait=wait_exponential(_FIRST_PAUSE, _LONGEST_PAUSE) + wait_random(0, _FIRST_PAUSE),
        stop=stop_after_delay(PATIENCE),
        before_sleep=_tell,
        reraise=True,
    )
    try:
        return retrying(work)
    except ConnectionLostError as error:
        raise ConnectionLostError(error.what, error.found, PATIENCE) from error


def _tell(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    # Processes of a pool would say the same again.
    if state.attempt_number > 1 or multiprocessing.parent_process() is not None:
        return
    if isinstance(error, ConnectionLostError):
        _logger.warning(
            "%s: the database went away (%s); trying again for up to %g s",
            error.what, error.found, PATIENCE,
        )  # fmt: skip
