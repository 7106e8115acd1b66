"""Databases with federated runs of earlier versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from alembic import command
from alembic.config import Config
from safetensors.torch import save
from sqlalchemy import Connection, create_engine, inspect, text

from distreal_dse.errors import StorageError
from distreal_dse.fronts import ConflictError, normalise_url, open_database
from fl.merging import Checkpoint
from fl.store.checkpoints import load_checkpoint, save_checkpoint
from fl.store.runs import Run, list_runs, start_run


def migrate(connection: Connection, to: str, back: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", "distreal_dse.fronts:migrations")
    config.attributes["connection"] = connection
    (command.downgrade if back else command.upgrade)(config, to)


def insert(connection: Connection, table: str, **values: Any) -> None:
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)


# Id, comparison, strategy, seed, whether it is finished, rounds.
RUNS = (
    (1, "c", "small", 0, False, 3),
    (2, "c", "small", 0, True, 2),  # the same run again: it is finished
    (3, "c", "fjord", 0, False, 1),
    (4, "c", "fjord", 0, False, 2),  # is longer
    (5, "c", "fjord", 0, False, 2),
    (6, "c", "fjord", 1, True, 1),
    (7, "d", "small", 0, True, 1),
    (8, None, "small", 0, True, 1),
    (9, None, "small", 0, True, 1),
)


@pytest.fixture(params=["sqlite", "postgres"])
def third_schema(request: pytest.FixtureRequest) -> str:
    """A database as schema 0003 left it, with comparisons that were carried out twice at once."""
    fixture = "url" if request.param == "sqlite" else "fresh_postgres_url"
    url: str = request.getfixturevalue(fixture)
    open_database(url).dispose()  # so that foreign keys hold on SQLite as they do for users
    engine = create_engine(normalise_url(url))
    with engine.begin() as connection:
        for table in ("run_devices", "run_checkpoints", "run_rounds", "runs", "front_points",
                      "fronts", "verifications", "latencies", "searches",
                      "search_drivers", "search_claims",
                      "distreal_version"):  # fmt: skip
            connection.execute(text(f"DROP TABLE {table}"))
        migrate(connection, "0003")
        for run_id, comparison, strategy, seed, finished, rounds in RUNS:
            insert(
                connection, "runs", study="tiny", strategy=strategy, front_label=None,
                front_hash=None, model_fingerprint="abc", seed=seed, comparison=comparison,
                settings=json.dumps({"study": "tiny", "strategy": strategy, "seed": seed}),
                created_at="2026-01-31T12:00:00+00:00", finished=finished,
            )  # fmt: skip
            assert connection.scalar(text("SELECT max(id) FROM runs")) == run_id
            for number in range(rounds):
                insert(
                    connection, "run_rounds", run_id=run_id, round=number, accuracy=0.5, loss=1.0,
                    virtual_seconds=float(number), training_macs=1.0, mini_batches=1,
                    mean_cost_share=1.0, over_budget=0, rejected=0, cohort="[3]",
                )  # fmt: skip
                insert(
                    connection, "run_devices", run_id=run_id, round=number, device=3,
                    device_class="weak", outcome="accepted", seconds=1.0, training_macs=1.0,
                    mini_batches=1, mean_cost_share=1.0, over_budget=0, bytes_down=1, bytes_up=1,
                )  # fmt: skip
        insert(connection, "run_checkpoints", run_id=1, round=2, content=b"x")
    engine.dispose()
    return url


def rounds_of(runs: list[Run]) -> dict[int, int]:
    assert all(one.devices[0].device == 3 for run in runs for one in run.rounds)
    return {run.id: len(run.rounds) for run in runs}


def test_runs_of_the_third_schema_keep_their_rounds_and_doubles_leave_their_comparison(
    third_schema: str,
) -> None:
    engine = open_database(third_schema)
    assert rounds_of(list_runs(engine)) == {run[0]: run[-1] for run in RUNS}
    found = {run.id: run.comparison for run in list_runs(engine)}
    alone = dict.fromkeys((1, 3, 5, 8, 9))
    assert found == alone | {2: "c", 4: "c", 6: "c", 7: "d"}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM run_checkpoints")) == 1
    assert list_runs(engine)[0].contents == {} and list_runs(engine)[0].failure is None
    settings = {"study": "tiny", "strategy": "small"}
    with pytest.raises(ConflictError):
        start_run(engine, "tiny", "small", None, "abc", 0, settings, "c")
    start_run(engine, "tiny", "small", None, "abc", 1, settings, "c")
    engine.dispose()


def test_the_fourth_schema_can_be_left_again(third_schema: str) -> None:
    engine = open_database(third_schema)
    with engine.begin() as connection:
        migrate(connection, "0003", back=True)
        assert "owner" not in {one["name"] for one in inspect(connection).get_columns("runs")}
        assert connection.scalar(text("SELECT count(*) FROM run_rounds")) == sum(
            run[-1] for run in RUNS
        )
    engine.dispose()
    again = open_database(third_schema)
    assert rounds_of(list_runs(again)) == {run[0]: run[-1] for run in RUNS}
    again.dispose()


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(number, 1.0, {"w": torch.full((2,), float(number))}, {})


def test_checkpoints_of_the_fourth_schema_stay_and_the_fifth_can_be_left_again(
    third_schema: str,
) -> None:
    engine = create_engine(normalise_url(third_schema))
    content = {"state.w": torch.full((2,), 2.0), "virtual_seconds": torch.tensor(1.0).double()}
    with engine.begin() as connection:
        migrate(connection, "0004")
        connection.execute(
            text("UPDATE run_checkpoints SET content = :content"), {"content": save(content)}
        )
    engine.dispose()
    engine = open_database(third_schema)
    found = load_checkpoint(engine, 1, checkpoint(0))  # it has no hash
    assert found is not None and found.round == 2 and found.state["w"].tolist() == [2.0, 2.0]
    save_checkpoint(engine, 1, checkpoint(3))
    save_checkpoint(engine, 2, checkpoint(1))
    with pytest.raises(StorageError):  # of no run
        save_checkpoint(engine, 77, checkpoint(1))
    with engine.begin() as connection:
        migrate(connection, "0004", back=True)
        stored = connection.execute(text("SELECT run_id, round FROM run_checkpoints"))
        assert sorted(map(tuple, stored)) == [(1, 3), (2, 1)]
        assert connection.scalar(text("SELECT count(*) FROM run_rounds")) == sum(
            run[-1] for run in RUNS
        )
        connection.execute(text("DELETE FROM runs WHERE id = 2"))
        assert connection.scalar(text("SELECT count(*) FROM run_checkpoints")) == 1
    engine.dispose()
    again = open_database(third_schema)
    found = load_checkpoint(again, 1, checkpoint(0))
    assert found is not None and found.round == 3
    again.dispose()
