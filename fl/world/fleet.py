"""Fleets from text: which devices there are, what they have free, and what they can spend.

The text is that of ``--classes``, then, behind semicolons and in any order, an availability and a
pace: ``strong=0.1@1,weak=0.9@1/16;markov:stay=0.8;pace=1.6``. What is left out is constant and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from distreal_dse.budgets import Budgets
from distreal_dse.errors import InputError
from fl.world.availability import Availability, make_availability
from fl.world.devices import Device, DeviceClass, check_classes, make_devices

FLEETS: Mapping[str, str] = {
    "thirds": "strong=1/3@1,medium=1/3@1/2,weak=1/3@1/4",
    "wide": "strong=1/3@1,medium=1/3@1/4,weak=1/3@1/16",
    "extreme": "strong=0.1@1,medium=0.2@1/4,weak=0.3@1/16,tiny=0.4@1/50",
    "spread": ",".join(f"s{2**n}=1/7@1/{2**n}" for n in range(7)),
}
"""Fleets that have a name; ours.

The speeds of ``extreme`` are those of sensors beside phones. ``spread`` is for those who know no
fleet: each halving from 1 to 1/64 is as frequent.
"""

# Budgets that a changing availability is summed up in; each stands for as many mini-batches.
QUANTILES = 64
# Devices of each class, and mini-batches of each, that it is sampled from.
SAMPLED_DEVICES, SAMPLED_SLOTS = 512, 16


@dataclass(frozen=True)
class Fleet:
    """Which devices there are and what they have free.

    Parameters
    ----------
    text
        What it was made of.
    classes
        Classes of devices; see `fl.world.devices.check_classes`.
    availability
        Text that `fl.world.availability.make_availability` takes.
    pace
        Time allotted to a mini-batch; see `fl.world.clock.Clock`.
    """

    text: str
    classes: tuple[DeviceClass, ...]
    availability: str = "constant"
    pace: float = 1.0

    def budgets(self) -> Budgets:
        """Return what its mini-batches may cost.

        Budgets are speed × free share × pace, up to the cost of the full network. Where the free
        share changes, they are sampled over devices and time, and summed up by quantiles.
        """
        availability = make_availability(self.availability)
        weights: dict[float, float] = {}
        for one in self.classes:
            shares = _free_shares(availability, one)
            for share in shares:
                budget = min(1.0, one.speed * share * self.pace)
                weights[budget] = weights.get(budget, 0.0) + one.share / len(shares)
        total = math.fsum(weights.values())
        rising = sorted(weights)
        return Budgets(self.text, tuple(rising), tuple(weights[one] / total for one in rising))


def make_fleet(text: str) -> Fleet:
    """Make a fleet of its text, of a name in `FLEETS`, or of a file that holds either.

    Raises
    ------
    InputError
        If a part can't be read or is out of range, or the shares don't sum to 1.
    """
    described = text.strip()
    if (path := Path(described)).suffix == ".txt":
        try:
            described = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"fleet file {path}: expected a text file ({error})") from error
    described = FLEETS.get(described, described)
    classes, *rest = (part.strip() for part in described.split(";"))
    availability, pace = "constant", 1.0
    for part in rest:
        if part.startswith("pace="):
            pace = _number(part.removeprefix("pace="), f"pace of fleet '{text}'")
        else:
            availability = part
    if not 0 < pace < math.inf:
        raise InputError(f"pace of fleet '{text}': expected more than 0, found {pace:g}")
    make_availability(availability)
    names = ", ".join(FLEETS)
    where = f"fleet '{text}': expected one of {names}, or classes of devices"
    return Fleet(described, device_classes(classes, where), availability, pace)


def device_classes(text: str, where: str = "--classes") -> tuple[DeviceClass, ...]:
    """Read classes of devices: ``strong=0.3@1,weak=0.7@1/4``, name, share of all and speed.

    Parameters
    ----------
    text
        The classes.
    where
        What errors begin with.

    Raises
    ------
    InputError
        If the text can't be read, or no population can be made of the classes.
    """
    classes = tuple(_device_class(part.strip(), where) for part in text.split(","))
    check_classes(classes)
    return classes


def _device_class(text: str, where: str) -> DeviceClass:
    name, equals, numbers = text.partition("=")
    share, at, speed = numbers.partition("@")
    if not (name and equals and at):
        raise InputError(
            f"{where}: expected NAME=SHARE@SPEED,… such as strong=0.3@1,weak=0.7@1/4, found "
            f"'{text}'"
        )
    own = f"device class '{text}'"
    return DeviceClass(name, _number(share, own), _number(speed, own))


def _number(text: str, where: str) -> float:
    """A number, or a quotient of two such as 1/16."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(
            f"{where}: expected a number such as 0.3 or 1/3, found '{text}'"
        ) from error


def _free_shares(availability: Availability, of: DeviceClass) -> list[float]:
    """Return free shares that are equally likely: all that occur, or quantiles of a sample."""
    slot, found = 1.0, []
    for device in make_devices(SAMPLED_DEVICES, (DeviceClass(of.name, 1.0, of.speed),)):
        found += _shares_of(availability, device, slot)
    free = sorted(share for share in found if share > 0)
    if not free:
        raise InputError(f"device class {of.name}: expected some compute to be free, found none")
    if len(set(free)) == 1:
        return free[:1]
    return [free[(2 * i + 1) * len(free) // (2 * QUANTILES)] for i in range(QUANTILES)]


def _shares_of(availability: Availability, device: Device, slot: float) -> list[float]:
    timeline = availability.timeline(device, 1, 0.0, slot, 0)
    return [timeline.at(number * slot)[0] for number in range(SAMPLED_SLOTS)]
