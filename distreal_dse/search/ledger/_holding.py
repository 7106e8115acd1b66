"""Who carries out a search: one process at a time, also on several machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine

from distreal_dse.fronts import ConflictError, outlasting_restarts, reading, writing
from distreal_dse.leases import Lease, check_owner, holding
from distreal_dse.search.ledger._schema import SearchRow


@contextmanager
def holding_search(engine: Engine, name: str) -> Iterator[Callable[[], None]]:
    """Own a search.

    Gives a function to be called before something of the search is stored; it raises a `HeldError`
    if the search was taken over. Optuna stores trials in transactions of its own, so they are
    checked just before, not in them.

    Raises
    ------
    HeldError
        If a process carries it out that may be alive; says which, and since when.
    StorageError
        Where the database can't be written.
    """
    with suppress(ConflictError), writing(engine) as session:  # another process just added it
        if session.get(SearchRow, name) is None:
            session.add(SearchRow(name=name))
    lease = Lease(
        SearchRow,
        name,
        f"search '{name}'",
        "wait for it or end it, or search under another name with --name",
    )
    with holding(engine, lease) as owner:

        @outlasting_restarts
        def check() -> None:
            with reading(engine) as session:
                check_owner(session, lease, owner)

        yield check
