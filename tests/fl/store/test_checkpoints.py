"""A run that goes on from a checkpoint ends as if it had never stopped."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from sqlalchemy import Engine, text
from torch import Tensor, nn

from distreal_dse import Data, Study
from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import Front, LookupTable
from distreal_dse.study.preparation import prepare
from fl.engine import FederatedRun
from fl.merging import Checkpoint
from fl.settings import RunSettings
from fl.store.checkpoints import load_checkpoint, save_checkpoint
from fl.store.runs import finish_run, forget_rounds, load_run, start_run
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


STATE = {
    "w": torch.ones(2), "n": torch.tensor(3), "mask": torch.tensor([0.0, -torch.inf])
}  # fmt: skip
BEGUN = Checkpoint(0, 0.0, STATE, {})

Change = Callable[[dict[str, Tensor]], object]


def store_two(database: Engine, front: Front) -> int:
    """Store checkpoints of rounds 4 and 6 of a run, and one of round 2 that they replace."""
    run_id = stored_run(database, front)
    for number in (2, 4, 6):
        server = {"momentum.w": torch.full((2,), float(number))}
        save_checkpoint(database, run_id, Checkpoint(number, 0.5 * number, STATE, server))
    return run_id


def change(database: Engine, change: Change, number: int, hashed: bool) -> None:
    """Change what a stored checkpoint holds; without a hash as earlier versions stored it."""
    where = f"FROM run_checkpoints WHERE round = {number}"
    with database.begin() as connection:
        tensors = load(connection.scalar(text(f"SELECT content {where}")))
        change(tensors)
        connection.execute(
            text(f"UPDATE run_checkpoints SET content = :new WHERE round = {number}"),
            {"new": save(tensors)},
        )
        if not hashed:
            connection.execute(text("UPDATE run_checkpoints SET content_hash = NULL"))


DAMAGES: tuple[tuple[Change, str], ...] = (
    (lambda t: t.update({"state.w": t["state.w"].double()}), "w is float64 .2., expected float32"),
    (lambda t: t.update({"state.w": torch.ones(3)}), "w is float32 .3., expected float32 .2."),
    (lambda t: t["state.w"].fill_(torch.nan), "tensor w holds numbers that are not finite"),
    (lambda t: t["server.momentum.w"].fill_(torch.inf), "momentum.w holds numbers that are not"),
    (lambda t: t["virtual_seconds"].fill_(torch.nan), "its virtual time is nan s"),
    (lambda t: t.pop("state.n"), "it lacks tensor n"),
    (lambda t: t.update({"state.x": torch.ones(2)}), "tensor x is none of the run's"),
    (lambda t: t.pop("virtual_seconds"), "found KeyError: 'virtual_seconds'"),
)


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_of_checkpoints_the_newest_that_is_whole_is_taken_and_others_are_named(
    database: Engine, front: Front, caplog: pytest.LogCaptureFixture, damage: Change, message: str
) -> None:
    run_id = store_two(database, front)
    found = load_checkpoint(database, run_id, BEGUN)
    assert found is not None and found.round == 6 and not caplog.messages
    change(database, damage, 6, hashed=False)
    found = load_checkpoint(database, run_id, BEGUN)
    assert found is not None and found.round == 4
    assert torch.equal(found.server["momentum.w"], torch.tensor([4.0, 4.0]))
    (line,) = caplog.messages
    assert re.search(f"checkpoints of run {run_id}: that of round 6 is damaged: .*{message}", line)
    assert "going on from that of round 4" in line and "\n" not in line
    change(database, damage, 4, hashed=False)
    with pytest.raises(StorageError, match=f"round 6 is damaged: .*round 4 .*{message}") as error:
        load_checkpoint(database, run_id, BEGUN)
    assert "start the run anew" in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_that_was_changed_since_it_was_stored_is_not_believed(
    database: Engine, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = store_two(database, front)
    change(database, lambda tensors: tensors["state.w"].fill_(2.0), 6, hashed=True)
    found = load_checkpoint(database, run_id, BEGUN)
    assert found is not None and found.round == 4
    assert "round 6 is damaged: its content has another hash than when" in caplog.text
    with database.begin() as connection:  # one whole checkpoint in place of another
        connection.execute(text("DELETE FROM run_checkpoints WHERE round = 6"))
        connection.execute(text("UPDATE run_checkpoints SET round = 6"))
    with pytest.raises(StorageError, match="round 6 is damaged: its content has another hash"):
        load_checkpoint(database, run_id, BEGUN)


def test_bytes_that_are_no_tensors_are_named(database: Engine, front: Front) -> None:
    run_id = stored_run(database, front)
    save_checkpoint(database, run_id, Checkpoint(1, 1.0, {"w": torch.ones(2)}, {}))
    with database.begin() as connection:
        connection.execute(
            text("UPDATE run_checkpoints SET content = :c, content_hash = NULL"),
            {"c": b"\x80\x04."},
        )
    with pytest.raises(StorageError, match=f"of run {run_id}: that of round 1 is damaged: .*safet"):
        load_checkpoint(database, run_id)


PACKED = save(
    {
        "state.w": torch.arange(6.0).view(2, 3),
        "server.v": torch.ones(2),
        "virtual_seconds": torch.ones((), dtype=torch.float64),
    }
)


@given(at=st.integers(0, len(PACKED)), piece=st.binary(max_size=8), cut=st.integers(0, 8))
@example(at=0, piece=b"\xff" * 8, cut=8)  # a header of 2⁶⁴ bytes
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_lies_in_place_of_a_checkpoint_is_read_or_named(
    database: Engine, front: Front, at: int, piece: bytes, cut: int
) -> None:
    run_id = stored_run(database, front)
    save_checkpoint(database, run_id, Checkpoint(1, 1.0, {"w": torch.ones(2)}, {}))
    content = PACKED[:at] + piece + PACKED[at + cut :]
    with database.begin() as connection:
        connection.execute(
            text("UPDATE run_checkpoints SET content = :c, content_hash = NULL"), {"c": content}
        )
    try:
        found = load_checkpoint(database, run_id)
    except StorageError as error:
        assert f"run {run_id}: that of round 1 is damaged" in str(error)
    else:
        assert found is not None and isinstance(found.virtual_seconds, float)


def test_the_two_newest_checkpoints_are_kept_and_those_behind_a_round_forgotten_with_it(
    database: Engine, front: Front
) -> None:
    run_id, other = store_two(database, front), stored_run(database, front)
    save_checkpoint(database, other, Checkpoint(1, 1.0, STATE, {}))
    kept = text(f"SELECT round FROM run_checkpoints WHERE run_id = {run_id} ORDER BY round")
    with database.connect() as connection:
        assert connection.scalars(kept).all() == [4, 6]
    earlier = load_checkpoint(database, run_id, up_to=5)
    assert earlier is not None and earlier.round == 4
    forget_rounds(database, run_id, after=4)
    with database.connect() as connection:
        assert connection.scalars(kept).all() == [4]
    assert load_checkpoint(database, other) is not None


@pytest.mark.parametrize("change", [lambda w: nn.functional.pad(w, (1, 1)), torch.Tensor.double])
def test_a_checkpoint_of_another_network_is_refused(
    study: Study, data: Data, front: Front, change: Callable[[Tensor], Tensor]
) -> None:
    federated = begin(study, data, front)
    state = dict(federated.checkpoint().state)
    state["0.weight"] = change(state["0.weight"])
    with pytest.raises(InputError, match="checkpoint of round 3 is of another network"):
        federated.resume(replace(federated.checkpoint(), round=3, state=state))
