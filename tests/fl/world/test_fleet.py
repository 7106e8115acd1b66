from __future__ import annotations

from pathlib import Path

import pytest

from distreal_dse.budgets import budgets_of
from distreal_dse.errors import InputError
from distreal_dse.support.seeding import generator
from fl.world.devices import DeviceClass
from fl.world.fleet import FLEETS, make_fleet


def test_a_constant_fleet_has_the_budgets_of_its_classes() -> None:
    fleet = make_fleet("strong=0.25@1,weak=0.75@1/16")
    assert fleet.classes == (DeviceClass("strong", 0.25, 1.0), DeviceClass("weak", 0.75, 1 / 16))
    budgets = fleet.budgets()
    assert budgets.shares == (1 / 16, 1.0) and budgets.weights == pytest.approx((0.75, 0.25))
    assert budgets.mean == pytest.approx(0.25 + 0.75 / 16)


def test_no_budget_is_more_than_the_full_network() -> None:
    assert make_fleet("fast=0.5@4,slow=0.5@1/4;pace=2").budgets().shares == (0.5, 1.0)


def test_changing_availability_spreads_budgets() -> None:
    budgets = make_fleet("all=1@0.5;markov").budgets()
    assert budgets.shares == (0.125, 0.25, 0.375, 0.5)
    assert budgets.weights == pytest.approx((0.25,) * 4, abs=0.05)
    redrawn = make_fleet("all=1@1;redrawn:low=0.2,high=0.6").budgets()
    assert redrawn.mean == pytest.approx(0.4, abs=0.02)
    assert 0.2 <= redrawn.shares[0] < 0.23 and 0.57 < redrawn.shares[-1] <= 0.6


@pytest.mark.parametrize("name", FLEETS)
def test_fleets_have_names(name: str) -> None:
    assert make_fleet(name) == make_fleet(FLEETS[name])


def test_a_fleet_stands_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "phones.txt"
    file.write_text("strong=1/3@1,weak=2/3@1/50;pace=1.6\n")
    assert make_fleet(str(file)) == make_fleet("strong=1/3@1,weak=2/3@1/50;pace=1.6")


def test_budgets_are_drawn_as_often_as_they_weigh() -> None:
    budgets = make_fleet("extreme").budgets()
    drawn = budgets.draw(4000, generator(0, "test"))
    for share, weight in zip(budgets.shares, budgets.weights, strict=True):
        assert drawn.count(share) / 4000 == pytest.approx(weight, abs=0.03)
    assert drawn == budgets.draw(4000, generator(0, "test"))
    assert budgets_of(budgets.as_json()) == budgets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("strong=0.5@1,weak=0.4@0.1", "shares that sum to 1, found 0.9"),
        ("", "expected NAME=SHARE@SPEED"),
        ("extrem", "fleet 'extrem': expected one of thirds, wide, extreme, spread, or"),
        ("strong=1@fast", "expected a number such as 0.3 or 1/3, found 'fast'"),
        ("strong=1@1/0", "found '1/0'"),
        ("strong=1@0", "a speed > 0"),
        ("strong=1@1;pace=0", "expected more than 0, found 0"),
        ("strong=1@1;pace=x", "found 'x'"),
        ("strong=1@1;sometimes", "availability 'sometimes'"),
        ("missing.txt", "fleet file missing.txt: expected a text file"),
    ],
)
def test_what_is_no_fleet_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match="fleet|class|availability") as raised:
        make_fleet(text)
    assert said in str(raised.value)
