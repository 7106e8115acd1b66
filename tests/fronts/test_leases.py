"""Leases in a database that machines share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from distreal_dse.fronts import leases, open_database, writing
from distreal_dse.fronts.leases import HeldError, Lease, holding
from distreal_dse.search.ledger import SearchRow
from distreal_dse.support.owners import Owner

LEASE = Lease(SearchRow, "digits", "search 'digits'")


@pytest.fixture
def shared(postgres_url: str) -> Iterator[Engine]:
    engine = open_database(postgres_url)
    with writing(engine) as session:
        session.merge(SearchRow(name="digits", owner=None))
    yield engine
    engine.dispose()


def test_machines_whose_clocks_differ_share_a_server(
    shared: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, elsewhere = time.time(), replace(Owner.here(), host="far away", boot="another")
    monkeypatch.setattr("time.time", lambda: now - 1e6)  # on the machine that holds it
    with holding(shared, LEASE), writing(shared) as session:
        row = session.get_one(SearchRow, "digits")
        assert abs((row.heartbeat or 0) - now) < leases.STALE - leases.RENEWED
        row.owner = str(elsewhere)  # as if that machine were not this one
    monkeypatch.setattr("time.time", lambda: now + 1e6)  # on the one that wants it
    with pytest.raises(HeldError, match="'digits' is carried out by"), holding(shared, LEASE):
        pass
    with shared.begin() as connection:
        connection.execute(
            text("UPDATE searches SET heartbeat = heartbeat - :age"), {"age": leases.STALE}
        )
    with holding(shared, LEASE):
        pass


def test_of_many_who_want_it_at_once_on_a_server_one_gets_it(shared: Engine) -> None:
    together, done, found = threading.Barrier(4), threading.Barrier(4), []

    def want() -> None:
        together.wait()
        try:
            with holding(shared, LEASE):
                found.append("held")
                done.wait()
        except HeldError:
            found.append("refused")
            done.wait()

    with ThreadPoolExecutor(4) as pool:
        for wanted in [pool.submit(want) for _ in range(4)]:
            wanted.result()
    assert sorted(found) == ["held", *["refused"] * 3]
