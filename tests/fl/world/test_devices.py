from collections import Counter

import pytest

from distreal_dse.errors import InputError
from fl.world.devices import DeviceClass, make_devices

UNEVEN = (
    DeviceClass("fast", 0.5, 2.0),
    DeviceClass("slow", 0.3, 0.5),
    DeviceClass("old", 0.2, 0.1),
)


def test_default_devices_are_a_third_each_of_strong_medium_and_weak() -> None:
    devices = make_devices(300)
    assert Counter((d.device_class, d.speed) for d in devices) == {
        ("strong", 1.0): 100,
        ("medium", 0.5): 100,
        ("weak", 0.25): 100,
    }
    assert [d.index for d in devices] == list(range(300))


@pytest.mark.parametrize(
    ("count", "expected"),
    # Quotas of 11: 5.5, 3.3, 2.2 → the one left over goes to the largest remainder, 0.5.
    # Quotas of 9: 4.5, 2.7, 1.8 → the two left over go to 0.8 and 0.7.
    [(10, [5, 3, 2]), (11, [6, 3, 2]), (9, [4, 3, 2]), (1, [1, 0, 0])],
)
def test_shares_are_rounded_by_largest_remainder(count: int, expected: list[int]) -> None:
    found = Counter(device.device_class for device in make_devices(count, UNEVEN))
    assert [found[one.name] for one in UNEVEN] == expected


def test_classes_are_spread_over_the_indices() -> None:
    names = [device.device_class for device in make_devices(30)]
    assert all(set(names[i : i + 3]) == {"strong", "medium", "weak"} for i in range(0, 30, 3))


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ((DeviceClass("a", 0.5, 1.0),), "0.5"),
        ((DeviceClass("a", 1.0, 0.0),), "speed 0.0"),
        ((DeviceClass("a", 1.5, 1.0), DeviceClass("b", -0.5, 1.0)), "share 1.5"),
        ((), "found 0"),
    ],
)
def test_impossible_classes_are_refused(classes: tuple[DeviceClass, ...], found: str) -> None:
    with pytest.raises(InputError, match=found):
        make_devices(10, classes)
