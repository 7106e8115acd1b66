"""Figures of runs as other programs read them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from distreal_dse.errors import InputError
from fl.compare.export import write_devices, write_events, write_rounds
from fl.results import DeviceRound, RoundResult, round_result
from fl.store.runs import Run

DEVICE = DeviceRound(3, "weak", "missed", 1.5, 100.0, 2, 0.25, 1, 40, 40)


def run(number: int, strategy: str = "small") -> Run:
    first = RoundResult(0, 0.0, 0.125, 2.5, accuracy_by_class={"weak": 0.1})
    return Run(
        id=number,
        study="noise",
        strategy=strategy,
        front_label=None,
        front_hash=None,
        model_fingerprint="abc",
        seed=4,
        settings={},
        created_at="",
        finished=True,
        comparison=None,
        rounds=(first, round_result(1, 2.0, (DEVICE,))),
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_round_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "rounds.csv"
    write_rounds([run(1), run(2)], file)
    lines = read(file)
    assert [(line["run"], line["round"]) for line in lines] == [
        ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"),
    ]  # fmt: skip
    assert lines[0]["accuracy"] == "0.125" and lines[0]["accuracy of weak"] == "0.1"
    assert lines[1]["accuracy"] == "" and lines[1]["accuracy of weak"] == ""
    assert lines[1]["wasted_macs"] == "100.0" and lines[1]["missed"] == "1"


def test_each_device_of_a_round_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    write_devices([run(1)], file)
    (line,) = read(file)
    assert (line["round"], line["device"], line["device_class"]) == ("1", "3", "weak")
    assert (line["outcome"], line["bytes_up"], line["seconds"]) == ("missed", "40", "1.5")


def test_hostile_names_stay_in_their_cell(tmp_path: Path) -> None:
    file = tmp_path / "rounds.csv"
    write_rounds([run(1, 'a,"b"\n=1+1')], file)
    assert read(file)[1]["strategy"] == 'a,"b"\n=1+1'


def test_events_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_events([run(7, "fjord-kd:alpha=0.5")], tmp_path)
    (folder,) = tmp_path.glob("7-fjord-kd-alpha=0.5-seed4-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    (accuracy,) = events.Scalars("accuracy")
    assert (accuracy.step, accuracy.value, accuracy.wall_time) == (0, 0.125, 0.0)
    assert [one.value for one in events.Scalars("wasted_macs")] == [0.0, 100.0]
    assert events.Scalars("wasted_macs")[1].wall_time == 2.0
    with pytest.raises(InputError, match="expected no events of this run yet"):
        write_events([run(7, "fjord-kd:alpha=0.5")], tmp_path)


def test_without_tensorboard_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'distreal-dse\[tensorboard\]'"):
        write_events([run(1)], tmp_path)
