"""Populations whose speeds and links are drawn from measured ones.

References
----------
Ignatov, Timofte, Kulik, Yang, Wang, Baum, Wu, Xu, Van Gool: AI Benchmark: All about deep learning
on smartphones in 2019, ICCV Workshops 2019 (the scores).
Yang, Wang, Xu, Chen, Bian, Liu, Liu: Characterizing impacts of heterogeneity in federated learning
upon large-scale smartphone data, WWW 2021 (FLASH, which publishes both files that this reads).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distreal_dse.errors import InputError, brief
from distreal_dse.support.seeding import derive_seed
from fl.world.devices import (
    DEFAULT_CLASSES,
    Device,
    DeviceClass,
    class_sizes,
    make_devices,
)

StrPath = str | os.PathLike[str]
Floats = npt.NDArray[np.float64]

# Of floating-point training, what a CPU does is the nearest that the file has.
SCORE = "CPU_F_AI_Score"
# A device of speed 1 trains the full network within a slot: here, the fastest tenth of the models
# do. Of all measured ones, because the fastest model of all is a single measurement.
REFERENCE_PERCENTILE = 90
LINK_FIELDS = ("down_u", "down_sigma", "up_u", "up_sigma")
BYTES_PER_KBIT = 125.0
# Our own choice, far beyond any measured link: outside of it, rates drawn can be so near to 0, or
# so large, that the time of a transfer is no number any more.
SLOWEST_LINK, FASTEST_LINK = 1e-3, 1e12  # means, in kbit/s
LARGEST_SPREAD = 1000.0  # deviation over the mean; FLASH's users have up to about 1


def make_population(
    count: int,
    classes: Sequence[DeviceClass] = DEFAULT_CLASSES,
    seed: int = 0,
    speeds: StrPath | None = None,
    links: StrPath | None = None,
) -> list[Device]:
    """Make ``count`` devices, with measured speeds and links where there are files of them.

    Parameters
    ----------
    count
        Devices, 1 or more.
    classes
        With ``speeds``, only their names, shares and order of speed count: the fastest devices
        are of the fastest class, as many as its share, and so on.
    seed
        Of the run.
    speeds
        JSON: a list of models with scores, as `read_speeds` takes it. Each device is one of them,
        drawn with replacement, all equally likely. None gives each the speed of its class, as
        `make_devices` does.
    links
        JSON: mean and standard deviation of users' links, as `read_links` takes it. Each device is
        at one of these users' places, drawn with replacement, and has one rate down and one up for
        the whole run, drawn from the log-normal distributions of these moments. None gives links
        on which nothing takes time.

    Returns
    -------
    list
        By index; the same from the same arguments and files.

    Raises
    ------
    InputError
        If classes or a file are refused.
    """
    devices = make_devices(count, classes)
    if speeds is not None:
        drawn = _draw_speeds(read_speeds(speeds), count, seed)
        devices = _classed(drawn, classes)
    if links is not None:
        down, up = _draw_links(read_links(links), count, seed).tolist()
        devices = [
            replace(device, download=down[device.index], upload=up[device.index])
            for device in devices
        ]
    return devices


def read_speeds(path: StrPath) -> Floats:
    """Read how fast models of devices are.

    Parameters
    ----------
    path
        JSON: a list of objects with a score above 0, higher is faster, as a number or as text in
        ``CPU_F_AI_Score``. Entries without one (missing, null or empty text) are left out.

    Returns
    -------
    array
        Scores over their 90th percentile, in the order of the file, shape [models with a score].

    Raises
    ------
    InputError
        If the file can't be read, has no score, or one that is no number above 0.
    """
    where = f"speeds {os.fspath(path)}"
    entries = _read_json(path, where)
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise InputError(
            f"{where}: expected a list of objects, one for each model, found "
            f"{brief(entries)}; give a file in the form of AI-Benchmark's scores"
        )
    given = [(number, one[SCORE]) for number, one in enumerate(entries) if not _is_empty(one)]
    if not given:
        raise InputError(
            f"{where}: expected models with a {SCORE}, found none among {len(entries)}; give a "
            "file that has it"
        )
    scores = [_positive(f"{where}: {SCORE} of entry {number}", text) for number, text in given]
    return np.array(scores) / np.percentile(scores, REFERENCE_PERCENTILE)


def read_links(path: StrPath) -> Floats:
    """Read what links users have.

    Parameters
    ----------
    path
        JSON: an object of users, each with ``down_u``, ``down_sigma``, ``up_u`` and ``up_sigma``,
        mean and standard deviation of its link in kbit/s; means from 0.001 to 10¹², deviations
        from 0 to 1000 times the mean.

    Returns
    -------
    array
        These four in bytes per second, shape [users, 4].

    Raises
    ------
    InputError
        If the file can't be read, has no user, or one of them lacks a number in its range.
    """
    where = f"links {os.fspath(path)}"
    users = _read_json(path, where)
    if not isinstance(users, dict) or not users:
        raise InputError(
            f"{where}: expected an object with at least one user, found {brief(users)}; give a "
            "file in the form of FLASH's network speeds"
        )
    return BYTES_PER_KBIT * np.array([_link(where, name, user) for name, user in users.items()])


def _draw_speeds(speeds: Floats, count: int, seed: int) -> Floats:
    random = np.random.default_rng(derive_seed(seed, "population speeds"))
    return speeds[random.integers(len(speeds), size=count)]


def _draw_links(links: Floats, count: int, seed: int) -> Floats:
    """Rates down and up in bytes per second, shape [2, count].

    Log-normal, because rates are positive and have a long tail. A normal distribution cut off at 0
    would not keep the mean where the deviation is as large as the mean, as it is for some users,
    and would have rates so near to 0 that a transfer never ends.
    """
    users = np.random.default_rng(derive_seed(seed, "population users"))
    rates = np.random.default_rng(derive_seed(seed, "population rates"))
    own = links[users.integers(len(links), size=count)].T
    mean, deviation = own[0::2], own[1::2]
    # Of X = exp(N(μ, s²)) with mean m and deviation d: s² = ln(1 + d²/m²), μ = ln m − s²/2.
    variance = np.log1p((deviation / mean) ** 2)
    drawn: Floats = rates.lognormal(np.log(mean) - variance / 2, np.sqrt(variance))
    return drawn


def _classed(speeds: Floats, classes: Sequence[DeviceClass]) -> list[Device]:
    """Give the fastest devices to the fastest class, as many as its share, and so on."""
    sizes = class_sizes(len(speeds), classes)
    order = sorted(range(len(classes)), key=lambda i: -classes[i].speed)
    names = np.repeat([classes[i].name for i in order], [sizes[i] for i in order])
    class_of = np.empty_like(names)
    class_of[np.argsort(-speeds, kind="stable")] = names
    pairs = zip(class_of.tolist(), speeds.tolist(), strict=True)
    return [Device(index, name, speed) for index, (name, speed) in enumerate(pairs)]


def _is_empty(entry: Mapping[str, Any]) -> bool:
    score = entry.get(SCORE)
    return score is None or (isinstance(score, str) and not score.strip())


def _positive(where: str, value: object) -> float:
    number = _number(value)
    if not 0 < number < math.inf:
        raise InputError(
            f"{where}: expected a number above 0, found {brief(value)}; mend the entry or leave "
            "it out"
        )
    return number


def _link(where: str, name: str, user: object) -> list[float]:
    values = [user.get(field) for field in LINK_FIELDS] if isinstance(user, dict) else []
    numbers = [_number(value) for value in values]
    # Comparisons that NaN fails, too.
    fits = all(
        SLOWEST_LINK <= mean <= FASTEST_LINK and 0 <= deviation <= LARGEST_SPREAD * mean
        for mean, deviation in zip(numbers[0::2], numbers[1::2], strict=True)
    )
    if values and fits:
        return numbers
    raise InputError(
        f"{where}: user {brief(name)}: expected the numbers {', '.join(LINK_FIELDS)} in kbit/s, "
        f"means from {SLOWEST_LINK:g} to {FASTEST_LINK:g} and deviations of 0 to "
        f"{LARGEST_SPREAD:g} times the mean, found {brief(user)}; mend or leave it out"
    )


def _number(value: object) -> float:
    """As a number; NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _read_json(path: StrPath, where: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{where}: expected a JSON file, found: {error.strerror}; give the path of one"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, or no JSON
        raise InputError(
            f"{where}: expected JSON, found: {error}; get an unchanged copy"
        ) from error
