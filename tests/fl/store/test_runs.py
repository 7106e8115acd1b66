from __future__ import annotations

from math import inf, nan

import pytest
from sqlalchemy import Engine, inspect

from distreal_dse import Data, Study
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.fronts import Base, ConflictError, Front, LookupTable, open_database
from fl.engine import FederatedRun
from fl.results import RoundResult
from fl.settings import RunSettings
from fl.store._schema import CheckpointRow, DeviceRoundRow, RoundRow, RunRow
from fl.store.runs import finish_run, list_runs, load_run, save_round, start_run
from fl.strategies import Distreal

SETTINGS = RunSettings(rounds=2, devices=6, cohort=3, evaluate_every=2)


def begin(engine: Engine, front: Front | None = None, strategy: str = "distreal") -> int:
    return start_run(engine, "noise", strategy, front, "abc", 2**40, SETTINGS.as_json())


def test_a_run_comes_back_as_it_was(
    database: Engine, study: Study, data: Data, network: DroppableNetwork, front: Front
) -> None:
    run_id = begin(database, front)
    strategy = Distreal(LookupTable(front))
    results = []
    for result in FederatedRun(study, data, network, strategy, front, SETTINGS).rounds():
        save_round(database, run_id, result)
        results.append(result)
    finish_run(database, run_id)
    run = load_run(database, run_id)
    assert run.rounds == tuple(results)
    assert len(results) == 3 and results[1].accuracy is None and results[2].cohort
    assert (run.study, run.strategy, run.seed) == ("noise", "distreal", 2**40)
    assert (run.front_label, run.front_hash) == (front.label, front.content_hash)
    assert run.settings["classes"] == SETTINGS.as_json()["classes"]
    assert run.finished


def test_each_round_is_kept_as_soon_as_it_is_saved(database: Engine, url: str) -> None:
    run_id = begin(database)
    save_round(database, run_id, RoundResult(0, 0.0, 0.1, 2.3))
    other = open_database(url)  # as another process would see it after this one was killed
    run = load_run(other, run_id)
    other.dispose()
    assert run.rounds == (RoundResult(0, 0.0, 0.1, 2.3),)
    assert not run.finished and run.front_label is None and run.front_hash is None


def test_runs_are_listed_from_the_oldest(database: Engine) -> None:
    assert list_runs(database) == []
    first, second = begin(database), begin(database, strategy="other")
    save_round(database, first, RoundResult(0, 0.0, 0.25, 2.0))
    save_round(database, first, RoundResult(1, 1.0, None, None, cohort=(1, 4)))
    listed = list_runs(database)
    assert [run.id for run in listed] == [first, second]
    assert listed == [load_run(database, first), load_run(database, second)]
    assert [run.accuracy for run in listed] == [0.25, None]


@pytest.mark.parametrize("loss", [nan, inf])
def test_a_loss_that_is_not_finite_is_stored_as_none(database: Engine, loss: float) -> None:
    run_id = begin(database)
    save_round(database, run_id, RoundResult(0, 0.0, 0.1, loss))
    assert load_run(database, run_id).rounds[0].loss is None


def test_rounds_are_never_overwritten_nor_kept_without_a_run(database: Engine) -> None:
    run_id = begin(database)
    save_round(database, run_id, RoundResult(0, 0.0, 0.1, 2.0))
    with pytest.raises(ConflictError):
        save_round(database, run_id, RoundResult(0, 0.0, 0.9, 1.0))
    with pytest.raises(ConflictError):
        save_round(database, run_id + 1, RoundResult(0, 0.0, 0.1, 2.0))
    assert load_run(database, run_id).rounds[0].accuracy == 0.1


def test_an_unknown_run_is_refused_with_what_there_is(database: Engine) -> None:
    with pytest.raises(InputError, match="run 3: .* none at all"):
        load_run(database, 3)
    begin(database), begin(database)
    with pytest.raises(InputError, match="run 7: .* 2 runs, 1 to 2"):
        finish_run(database, 7)


@pytest.mark.parametrize("model", [RunRow, RoundRow, DeviceRoundRow, CheckpointRow])
def test_the_migration_makes_the_columns_of_the_model(database: Engine, model: type[Base]) -> None:
    found = {c["name"]: c["nullable"] for c in inspect(database).get_columns(model.__tablename__)}
    assert found == {column.name: column.nullable for column in model.__table__.columns}
