"""Devices and the classes of speed they come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distreal_dse.errors import InputError


@dataclass(frozen=True)
class DeviceClass:
    """A kind of device.

    Parameters
    ----------
    name
        For people and for figures by class.
    share
        Share of all devices that are of this class, in (0, 1]; shares sum to 1.
    speed
        Relative to a device that trains a mini-batch of the full network within one slot of the
        virtual clock, > 0.
    """

    name: str
    share: float
    speed: float


# Our own choice: three equal groups, each half as fast as the one before.
DEFAULT_CLASSES = (
    DeviceClass("strong", 1 / 3, 1.0),
    DeviceClass("medium", 1 / 3, 0.5),
    DeviceClass("weak", 1 / 3, 0.25),
)


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Parameters
    ----------
    index
        Number of the device, from 0.
    device_class
        Name of its class.
    speed
        As that of a `DeviceClass`; that of its class where nothing else is known of the device.
    download, upload
        Bytes per virtual second of its link, > 0.
    """

    index: int
    device_class: str
    speed: float
    download: float = math.inf
    upload: float = math.inf


def check_classes(classes: Sequence[DeviceClass]) -> None:
    """Refuse classes that no population can be made of.

    Raises
    ------
    InputError
        If a share or a speed is out of range, or the shares don't sum to 1.
    """
    for one in classes:
        if not (0 < one.share <= 1 and 0 < one.speed < math.inf):
            raise InputError(
                f"device class {one.name}: expected a share in (0, 1] and a speed > 0, found "
                f"share {one.share} and speed {one.speed}"
            )
    total = math.fsum(one.share for one in classes)
    if not math.isclose(total, 1, rel_tol=1e-6):
        raise InputError(f"device classes: expected shares that sum to 1, found {total:g}")


def class_sizes(count: int, classes: Sequence[DeviceClass]) -> list[int]:
    """Return how many of ``count`` devices are of each class.

    Each class gets its share rounded by the largest remainder (Hamilton's method); of equal
    remainders, the class that comes first.
    """
    quotas = [one.share * count for one in classes]
    # Rounded, because a third of 300 may fall short of 100 by the last bit.
    numbers = [math.floor(round(quota, 6)) for quota in quotas]
    by_remainder = sorted(range(len(classes)), key=lambda i: round(numbers[i] - quotas[i], 6))
    for i in by_remainder[: count - sum(numbers)]:
        numbers[i] += 1
    return numbers


def make_devices(count: int, classes: Sequence[DeviceClass] = DEFAULT_CLASSES) -> list[Device]:
    """Make ``count`` devices, their classes spread evenly over the indices.

    Each has the speed of its class, and each class its number of devices by `class_sizes`.

    Raises
    ------
    InputError
        If the classes are refused by `check_classes`.
    """
    check_classes(classes)
    numbers = class_sizes(count, classes)
    places = sorted(
        ((place + 0.5) / number, i) for i, number in enumerate(numbers) for place in range(number)
    )
    return [Device(index, classes[i].name, classes[i].speed) for index, (_, i) in enumerate(places)]
