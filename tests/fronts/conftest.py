from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from distreal_dse.fronts import open_database
from front_examples import OWN_TABLES
from postgres import running_server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fronts.db"


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own on a unix socket, with a role that has a password."""
    with running_server() as server:
        yield server.url


@pytest.fixture
def fresh_postgres_url(postgres_url: str) -> str:
    """The same server without our tables."""
    engine = open_database(postgres_url)
    with engine.begin() as connection:
        for table in inspect(connection).get_table_names():
            if table == "distreal_version" or table in OWN_TABLES:
                connection.execute(text(f"DROP TABLE {table} CASCADE"))
    engine.dispose()
    return postgres_url
