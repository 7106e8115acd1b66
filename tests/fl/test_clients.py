"""Who trains a cohort makes no difference."""

from __future__ import annotations

from functools import partial
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine

from distreal_dse.errors import DistrealError
from fl.clients import InProcess, Processes, Task
from fl.store.specs import RunSpec, make_training
from fl.tensors import from_file, to_file


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    # A process chooses once where it has its sockets, whose paths must be shorter than this one.
    get_temp_dir()
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_processes_give_the_updates_of_one_and_leave_nothing_behind(
    database: Engine, url: str, spec: RunSpec, temporary: Path
) -> None:
    run = spec.begin(database)
    devices = run.settings.population()[:3]
    tasks = [Task(one, torch.arange(20) + 20 * one.index) for one in devices]
    state = run.network.copy_state()
    other = {name: 2 * tensor for name, tensor in state.items()}
    clients = Processes(2, partial(make_training, spec, url))
    try:
        for given in (state, other):  # of the same round: a state that was kept is not the next one
            expected = InProcess(run.training).train(tasks, given, 1, 0.0, 1e9)
            found = clients.train(tasks, given, 1, 0.0, 1e9)
            for one, same in zip(found, expected, strict=True):
                assert (one.device, one.loss, one.seconds) == (same.device, same.loss, same.seconds)
                assert torch.equal(one.masks, same.masks) and len(one.masks) == one.mini_batches
                assert one.state.keys() == same.state.keys()
                for name, tensor in one.state.items():
                    assert torch.equal(tensor, same.state[name]), name
            (folder,) = temporary.glob("distreal-dse-*")
            assert list(folder.iterdir()) == []
    finally:
        clients.close()
    assert list(temporary.glob("distreal-dse-*")) == []


def test_tensors_travel_in_files_as_they_are(tmp_path: Path) -> None:
    block = torch.arange(24.0)
    tensors = {
        "views": block[4:8],
        "of one block": block[4:8].view(2, 2).t(),
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "whole numbers": torch.tensor(7),
        "none": torch.zeros(0, 5, dtype=torch.bool),
    }
    to_file(tensors, tmp_path / "file")
    found = from_file(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_no_room_for_states_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DistrealError, match="expected a folder with room .* TMPDIR") as error:
        to_file({"a": torch.zeros(2)}, tmp_path / "gone" / "file")
    assert "\n" not in str(error.value)
