from __future__ import annotations

from dataclasses import replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, MetaData, create_engine, inspect, text

from distreal_dse.fronts import (
    StoredLatency,
    load_front,
    load_latencies,
    load_verifications,
    normalise_url,
    open_database,
    save_latencies,
)
from distreal_dse.fronts._database import SCHEMA_VERSION
from front_examples import make_front

EXAMPLE = StoredLatency(
    study="digits",
    model_fingerprint="abc",
    kept_counts=(8, 4),
    device={"cpu": "x", "threads": 2},
    device_hash="0123456789ab",
    batch_size=32,
    threads=2,
    latency=0.0125,
    seconds_low=0.011,
    seconds_median=0.012,
    seconds_high=0.013,
    ratio_low=0.4,
    ratio_median=0.5,
    ratio_high=0.6,
    repetitions=30,
)


def test_measurements_come_back_as_they_were_in_their_order(database: Engine) -> None:
    first = [EXAMPLE, replace(EXAMPLE, kept_counts=(16, 8), latency=0.025)]
    save_latencies(database, first)
    again = replace(EXAMPLE, latency=0.0126)  # measuring again replaces nothing
    save_latencies(database, [again, replace(EXAMPLE, model_fingerprint="def")])
    assert load_latencies(database, "abc") == [*first, again]
    assert len(load_latencies(database, "def")) == 1
    assert load_latencies(database, "unknown") == []


def to_first_schema(url: str) -> None:
    """Make a database as the first version of this project left it, with content."""
    engine = create_engine(normalise_url(url))
    front = make_front(name="kept")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "distreal_dse.fronts:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        content = front.content()
        points = content.pop("points")
        rows = {
            "fronts": [
                {
                    **content,
                    "id": 7,
                    "version": 1,
                    "hypervolume": front.hypervolume,
                    "content_hash": front.content_hash,
                }
            ],
            "front_points": [
                {**point, "front_id": 7, "position": number} for number, point in enumerate(points)
            ],
            "verifications": [
                {
                    "search": "kept/1",
                    "kept_counts_key": "8-4",
                    "seed": 3,
                    "replicate": 0,
                    "loss_gain": 0.5,
                    "accuracy": 0.25,
                }
            ],
        }
        tables = MetaData()
        tables.reflect(connection, only=list(rows))
        assert not inspect(connection).has_table("latencies")
        for name, content_rows in rows.items():
            connection.execute(tables.tables[name].insert(), content_rows)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def first_schema(request: pytest.FixtureRequest) -> str:
    fixture = "url" if request.param == "sqlite" else "fresh_postgres_url"
    url: str = request.getfixturevalue(fixture)
    to_first_schema(url)
    return url


def test_a_database_of_the_first_schema_is_upgraded_with_its_content(first_schema: str) -> None:
    engine = open_database(first_schema)
    assert load_front(engine, "kept@1") == replace(
        make_front(name="kept"), version=1, created_at=load_front(engine, "kept").created_at
    )
    assert load_verifications(engine, "kept/1", 3) == {("8-4", 0): (0.5, 0.25)}
    save_latencies(engine, [EXAMPLE])
    assert load_latencies(engine, "abc") == [EXAMPLE]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM distreal_version")) == SCHEMA_VERSION
    engine.dispose()
