"""A run that goes on from a checkpoint ends as if it had never stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sqlalchemy import Engine, text
from torch import nn

from distreal_dse import Data, Study
from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import Front, LookupTable
from distreal_dse.preparation import prepare
from fl.checkpoints import load_checkpoint, save_checkpoint
from fl.engine import Checkpoint, FederatedRun
from fl.runs import finish_run, load_run, start_run
from fl.settings import RunSettings
from fl.strategies import Distreal

SETTINGS = RunSettings(rounds=5, devices=6, cohort=3, seed=5)


def begin(study: Study, data: Data, front: Front) -> FederatedRun:
    network = prepare(study, seed=0)[0]
    return FederatedRun(study, data, network, Distreal(LookupTable(front)), front, SETTINGS)


def stored_run(database: Engine, front: Front) -> int:
    return start_run(database, "noise", "distreal", front, "abc", 5, SETTINGS.as_json())


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_a_resumed_run_is_bit_identical(
    study: Study, data: Data, front: Front, database: Engine, stop: int
) -> None:
    through = begin(study, data, front)
    expected = list(through.rounds())
    run_id = stored_run(database, front)
    stopped = begin(study, data, front)
    rounds = stopped.rounds()
    for _ in range(stop + 1):
        next(rounds)
    save_checkpoint(database, run_id, stopped.checkpoint())
    loaded = load_checkpoint(database, run_id)
    assert loaded is not None
    resumed = begin(study, data, front)
    resumed.resume(loaded)
    rest = list(resumed.rounds())
    assert rest == (expected if stop == 0 else expected[stop + 1 :])
    one, other = through.network.module.state_dict(), resumed.network.module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_later_checkpoint_takes_the_place_of_an_earlier_one(
    database: Engine, front: Front
) -> None:
    run_id, other = stored_run(database, front), stored_run(database, front)
    assert load_checkpoint(database, run_id) is None
    for number in (1, 2):
        state = {"w": torch.full((2,), float(number)), "n": torch.tensor(number)}
        save_checkpoint(
            database, run_id, Checkpoint(number, 0.1 * number, state, {"m": torch.zeros(1)})
        )
    found = load_checkpoint(database, run_id)
    assert found is not None and load_checkpoint(database, other) is None
    assert (found.round, found.virtual_seconds) == (2, 0.2)
    assert torch.equal(found.state["w"], torch.tensor([2.0, 2.0]))
    assert found.state["n"].dtype == torch.int64 and list(found.server) == ["m"]
    finish_run(database, run_id)
    assert load_checkpoint(database, run_id) is None


def test_a_run_is_finished_and_forgets_its_checkpoint_at_once_or_not_at_all(
    database: Engine, front: Front
) -> None:
    run_id = stored_run(database, front)
    save_checkpoint(database, run_id, Checkpoint(1, 1.0, {"w": torch.ones(2)}, {}))
    with database.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER kept BEFORE DELETE ON run_checkpoints "
                "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )
        )
    with pytest.raises(StorageError, match="disk is full"):
        finish_run(database, run_id)
    assert not load_run(database, run_id).finished
    assert load_checkpoint(database, run_id) is not None


def test_a_damaged_checkpoint_is_named(database: Engine, front: Front) -> None:
    run_id = stored_run(database, front)
    save_checkpoint(database, run_id, Checkpoint(1, 1.0, {"w": torch.ones(2)}, {}))
    with database.begin() as connection:
        connection.execute(text("UPDATE run_checkpoints SET content = :c"), {"c": b"\x80\x04."})
    with pytest.raises(StorageError, match=f"checkpoint of run {run_id} is damaged"):
        load_checkpoint(database, run_id)


def test_a_checkpoint_of_another_network_is_refused(study: Study, data: Data, front: Front) -> None:
    federated = begin(study, data, front)
    state = dict(federated.checkpoint().state)
    state["0.weight"] = nn.functional.pad(state["0.weight"], (1, 1))
    with pytest.raises(InputError, match="checkpoint of round 3 is of another network"):
        federated.resume(replace(federated.checkpoint(), round=3, state=state))
