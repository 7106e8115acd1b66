"""Plug-ins of every kind that is chosen by text, as installed packages have them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distreal_dse.errors import InputError
from fl.robust import make_defence
from fl.schedules import make_schedule
from fl.server_optimizers import make_server_optimizer
from fl.world.availability import make_availability

MODULE = """
from fl.robust import Median
from fl.schedules import Exponential
from fl.server_optimizers import Momentum
from fl.world.availability.constant import ConstantAvailability


def schedule(factor="0.5"):
    return Exponential(factor=float(factor))


def optimizer(lr="1"):
    return Momentum(lr=float(lr))


def availability(share="0.5"):
    return ConstantAvailability(float(share))


def defence():
    return Median()


def wrong():
    return 3


def failing():
    raise ValueError("not today")
"""
GROUPS = {
    "schedules": ("schedule", make_schedule, "factor=0.25"),
    "server_optimizers": ("optimizer", make_server_optimizer, "lr=0.5"),
    "availabilities": ("availability", make_availability, "share=0.25"),
    "defences": ("defence", make_defence, ""),
}


def install(folder: Path) -> None:
    info = folder / "my_plug_ins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plug-ins\nVersion: 1.0\n")
    (folder / "my_plug_ins.py").write_text(MODULE)
    (info / "entry_points.txt").write_text(
        "".join(
            f"[distreal_dse.{group}]\nmine = my_plug_ins:{function}\n"
            "wrong = my_plug_ins:wrong\nfailing = my_plug_ins:failing\n"
            for group, (function, _, _) in GROUPS.items()
        )
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_package_is_found_that_is_installed_or_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    os.utime(tmp_path, (0, 0))  # long ago: file systems tell no two times of the same moment apart
    with pytest.raises(InputError, match="found 'mine'"):
        make_schedule("mine")
    install(tmp_path)
    assert make_schedule("mine") is not None
    shutil.rmtree(tmp_path / "my_plug_ins-1.0.dist-info")
    os.utime(tmp_path, (0, 0))
    with pytest.raises(InputError, match="found 'mine'"):
        make_schedule("mine")


@pytest.mark.parametrize(
    ("make", "setting"), [(make, setting) for _, make, setting in GROUPS.values()]
)
@pytest.mark.usefixtures("installed")
def test_a_plug_in_is_found_by_its_name(make: Callable[[str], object], setting: str) -> None:
    assert make(f"mine:{setting}" if setting else "mine") is not None
    with pytest.raises(InputError, match="'wrong': expected its plug-in to make a .* found int"):
        make("wrong")
    with pytest.raises(InputError, match="its plug-in fails: ValueError: not today"):
        make("failing")
    with pytest.raises(InputError, match="its plug-in fails: TypeError: .*'nothing'"):
        make("mine:nothing=1")
    with pytest.raises(InputError, match="found 'min'; did you mean mine"):
        make("min")


@pytest.mark.usefixtures("installed")
def test_settings_of_a_plug_in_arrive() -> None:
    assert make_schedule("mine:factor=0.25") == make_schedule("exponential:factor=0.25")
    assert make_availability("mine:share=0.25").mean_share() == 0.25
