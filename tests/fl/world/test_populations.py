from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distreal_dse.errors import InputError
from fl.world.devices import DEFAULT_CLASSES, Device, DeviceClass, make_devices
from fl.world.populations import make_population, read_links, read_speeds

# Not part of the project; see docs/devices.md for where it comes from.
SHARED = Path(os.environ.get("DISTREAL_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
PHONES = SHARED / "devices" / "ai_benchmark_phones.json"
NETWORKS = SHARED / "devices" / "network_speeds.json"
needs_measured = pytest.mark.skipif(
    not (PHONES.is_file() and NETWORKS.is_file()),
    reason=f"no measured devices in {SHARED}; set DISTREAL_SHARED_DATA",
)

# 90th percentile, linear between neighbours: the score 1000.
SCORES = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 3000]
FAST = {"down_u": 8000.0, "down_sigma": 8000.0, "up_u": 4000, "up_sigma": 1000}
SLOW = {"down_u": 80, "down_sigma": 0, "up_u": 40, "up_sigma": 0}


def stored(folder: Path, content: Any, name: str = "given.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def speeds(tmp_path: Path) -> Path:
    models: list[dict[str, Any]] = [{"CPU_F_AI_Score": str(score)} for score in SCORES]
    models += [{"Model": "untested"}, {"CPU_F_AI_Score": ""}, {"CPU_F_AI_Score": None}]
    return stored(tmp_path, models, "speeds.json")


@pytest.fixture
def links(tmp_path: Path) -> Path:
    return stored(tmp_path, {"fast": FAST, "slow": SLOW}, "links.json")


def test_without_files_devices_are_those_of_their_classes() -> None:
    assert make_population(31, DEFAULT_CLASSES, seed=5) == make_devices(31)


def test_speed_1_is_what_the_fastest_tenth_of_the_models_have(speeds: Path) -> None:
    assert read_speeds(speeds) == pytest.approx([score / 1000 for score in SCORES])


def test_speeds_are_drawn_from_the_models_all_equally_likely(speeds: Path) -> None:
    found = Counter(round(one.speed, 6) for one in make_population(11_000, speeds=speeds))
    assert sorted(found) == [score / 1000 for score in SCORES]
    four_sigma = 4 * math.sqrt(11_000 / 11 * 10 / 11)
    assert all(abs(number - 1000) < four_sigma for number in found.values())


def test_classes_are_ranges_of_speed_of_the_size_of_their_shares(speeds: Path) -> None:
    classes = (DeviceClass("weak", 0.5, 0.2), DeviceClass("strong", 0.2, 1.0),
               DeviceClass("medium", 0.3, 0.5))  # fmt: skip
    devices = make_population(205, classes, seed=1, speeds=speeds)
    assert [one.index for one in devices] == list(range(205))
    by_class = {
        name: sorted(one.speed for one in devices if one.device_class == name)
        for name in ("strong", "medium", "weak")
    }
    # Quotas 102.5, 41, 61.5: the one left over goes to the class that comes first.
    assert [len(own) for own in by_class.values()] == [41, 61, 103]
    assert by_class["strong"][0] >= by_class["medium"][-1]
    assert by_class["medium"][0] >= by_class["weak"][-1]


def test_links_keep_the_mean_and_the_deviation_of_their_user(tmp_path: Path) -> None:
    one = stored(tmp_path, {"fast": FAST})
    devices = make_population(100_000, links=one)
    down = np.array([device.download for device in devices])
    up = np.array([device.upload for device in devices])
    # kbit/s · 1000 / 8 are bytes per second.
    assert down.mean() == pytest.approx(1e6, rel=0.02)
    assert down.std() == pytest.approx(1e6, rel=0.1)
    assert up.mean() == pytest.approx(5e5, rel=0.01)
    assert up.std() == pytest.approx(1.25e5, rel=0.02)
    assert down.min() > 0
    assert abs(np.corrcoef(down, up)[0, 1]) < 4 / math.sqrt(100_000)


def test_a_device_has_both_rates_of_one_user(links: Path) -> None:
    assert read_links(links).tolist() == [[1e6, 1e6, 5e5, 1.25e5], [1e4, 0, 5e3, 0]]
    devices = make_population(1000, links=links)
    slow = [one for one in devices if one.download == pytest.approx(1e4, rel=1e-9)]
    assert abs(len(slow) - 500) < 4 * math.sqrt(1000 / 4)
    assert all(one.upload == pytest.approx(5e3, rel=1e-9) for one in slow)
    assert {one.speed for one in devices} == {1.0, 0.5, 0.25}  # those of the classes


def test_equal_seeds_give_equal_populations(speeds: Path, links: Path) -> None:
    def made(seed: int) -> list[Device]:
        return make_population(200, seed=seed, speeds=speeds, links=links)

    assert made(3) == made(3)
    speed, other = [[one.speed for one in made(seed)] for seed in (3, 4)]
    assert speed != other
    rates, others = [[one.upload for one in made(seed)] for seed in (3, 4)]
    assert rates != others


def test_speeds_do_not_depend_on_whether_there_are_links(speeds: Path, links: Path) -> None:
    alone = make_population(200, speeds=speeds)
    together = make_population(200, speeds=speeds, links=links)
    assert [one.speed for one in alone] == [one.speed for one in together]


def test_ten_thousand_devices_are_made_at_once(speeds: Path, links: Path) -> None:
    start = time.process_time()
    make_population(10_000, speeds=speeds, links=links)
    assert time.process_time() - start < 2  # 0.1 s on a slow core; a loop of draws takes minutes


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "expected JSON, found"),
        ({"CPU_F_AI_Score": "3"}, "expected a list of objects, one for each model, found {"),
        ([1, 2], "expected a list of objects"),
        ([], "expected models with a CPU_F_AI_Score, found none among 0"),
        ([{"Model": "x"}], "found none among 1"),
        ([{"CPU_F_AI_Score": "3"}, {"CPU_F_AI_Score": "fast"}], "of entry 1: expected a number"),
        ([{"CPU_F_AI_Score": 0}], "of entry 0: expected a number above 0, found 0"),
        ([{"CPU_F_AI_Score": "nan"}], "found 'nan'"),
        ([{"CPU_F_AI_Score": [3]}], "found [3]"),
        ([{"CPU_F_AI_Score": True}], "found True"),
        ('[{"CPU_F_AI_Score": 1' + "0" * 400 + "}]", "found 1000"),
    ],
)
def test_bad_speeds_are_refused(tmp_path: Path, content: Any, error: str) -> None:
    check_refusal(stored(tmp_path, content), "speeds", error)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "expected JSON, found"),
        ([FAST], "expected an object with at least one user, found ["),
        ({}, "expected an object with at least one user, found {}"),
        ({"fast": FAST, "odd": 3}, "user 'odd': expected the numbers down_u, down_sigma, up_u"),
        ({"odd": {**FAST, "up_u": None}}, "found {'down_u'"),
        ({"odd": {"down_u": 3}}, "user 'odd'"),
        ({"odd": {**FAST, "up_u": 0}}, "user 'odd'"),
        ({"odd": {**FAST, "up_u": math.nan}}, "user 'odd'"),
        ({"odd": {**FAST, "down_sigma": -1}}, "user 'odd'"),
        ({"odd": {**FAST, "down_sigma": math.inf}}, "user 'odd'"),
        ({"odd": {**FAST, "up_sigma": 1e200}}, "deviations of 0 to 1000 times the mean"),
        ({"odd": {**FAST, "down_u": 1e-320, "down_sigma": 0}}, "means from 0.001 to 1e+12"),
        ({"odd": {**FAST, "down_u": 1e308}}, "means from 0.001 to 1e+12"),
    ],
)
def test_bad_links_are_refused(tmp_path: Path, content: Any, error: str) -> None:
    check_refusal(stored(tmp_path, content), "links", error)


def check_refusal(path: Path, kind: str, error: str) -> None:
    with pytest.raises(InputError) as refused:
        make_population(3, **{kind: path})  # type: ignore[arg-type]
    message = str(refused.value)
    assert message.startswith(f"{kind} {path}")
    assert error in message
    assert "\n" not in message and len(message) < 400 + len(str(path))


def test_missing_files_and_impossible_classes_are_refused(tmp_path: Path, speeds: Path) -> None:
    check_refusal(tmp_path / "none.json", "speeds", "expected a JSON file, found: No such file")
    check_refusal(tmp_path, "links", "expected a JSON file, found: Is a directory")
    with pytest.raises(InputError, match="shares that sum to 1"):
        make_population(3, (DeviceClass("a", 0.5, 1.0),), speeds=speeds)


def test_the_widest_links_that_are_taken_have_rates_that_transfers_end_with(
    tmp_path: Path,
) -> None:
    widest = {"down_u": 1e-3, "down_sigma": 1.0, "up_u": 1e12, "up_sigma": 1e15}
    for one in make_population(100_000, links=stored(tmp_path, {"widest": widest})):
        for rate in (one.download, one.upload):
            assert 0 < rate < math.inf and 0 < 1e9 / rate < math.inf


@needs_measured
def test_measured_speeds_spread_as_published() -> None:
    measured = read_speeds(PHONES)
    assert len(measured) == 333
    # Scores of the 10th, 50th and 90th percentile: 274, 1548, 3414.
    assert np.percentile(measured, (10, 50, 90)) == pytest.approx([0.0803, 0.4535, 1.0], rel=1e-3)
    drawn = [one.speed for one in make_population(10_000, speeds=PHONES)]
    assert np.percentile(drawn, (10, 50, 90)) == pytest.approx([0.08, 0.45, 1.0], rel=0.1)


@needs_measured
def test_measured_links_keep_their_mean() -> None:
    measured = read_links(NETWORKS)
    assert measured.shape == (19, 4)
    devices = make_population(20_000, links=NETWORKS)
    for column, name in ((0, "download"), (2, "upload")):
        rates = [getattr(one, name) for one in devices]
        assert np.mean(rates) == pytest.approx(measured[:, column].mean(), rel=0.05)
        assert min(rates) > 1000  # a megabyte within a quarter of an hour
