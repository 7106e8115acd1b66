"""FEMNIST for the studies, from the JSON files that LEAF's preprocessing writes.

References
----------
Caldas et al.: LEAF: A Benchmark for Federated Settings, 2018, arXiv 1812.01097.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from distreal_dse import Data
from distreal_dse.errors import DataError
from studies._parsed import Arrays, parsed_once

CLASSES = 62  # digits, capitals, small letters
SIDE = 28
TEST_SHARE = 0.2  # of each writer's samples, where LEAF has not set any aside
# For validation, of the training samples. A short run is measured on all of them, so the tenth
# that would be set aside of all 641,828 costs much and tells little more.
VALIDATION_SHARE = 0.1
LARGEST_VALIDATION = 5000

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class Characters(TensorDataset):
    """Characters kept as bytes in memory, with the writer of each.

    Parameters
    ----------
    pixels
        From 0, black, to 255, shape [N, 1, 28, 28], bytes.
    labels
        Class indices, shape [N].
    owners
        Numbers of their writers, shape [N].
    """

    def __init__(self, pixels: Tensor, labels: Tensor, owners: Tensor) -> None:
        super().__init__(pixels, labels)
        self.owners = owners

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Image(s) as floats, shape [..., 1, 28, 28], and class index(es).

        Ink is 1 and paper 0, so that the zeros around an image look like paper.
        """
        pixels, labels = (tensor[index] for tensor in self.tensors)
        return (255 - pixels).float() / 255, labels

    def part(self, chosen: Tensor) -> "Characters":
        """Copy the samples ``chosen``, shape [M]."""
        pixels, labels = self.tensors
        return Characters(pixels[chosen], labels[chosen], self.owners[chosen])


def load(data: Path | None, writers: int) -> Data:
    """Load FEMNIST.

    Parameters
    ----------
    data
        The folder ``data/femnist/data`` of LEAF, or one with its JSON files. ``train/`` and
        ``test/`` in it are taken as they are. Without them, ``*.json`` in it or in ``all_data/``
        are read, and a fifth of each writer's samples is set aside for testing.
    writers
        How many of the writers to take, the first of the training files; 0 for all. All that they
        wrote is taken, however little. Where the writers for testing are others, as many of them.

    Returns
    -------
    Data
        A tenth of the training samples, but at most 5,000, is set aside for validation.

    Raises
    ------
    DataError
        If there are no such files, or one of them is malformed.
    """
    if writers < 0:
        raise DataError(f"option writers is {writers}: expected 0 (all) or more")
    files = _files(data)
    numbers: dict[str, int] = {}
    train = _read(files["train"], numbers, writers)
    if "test" in files:
        test = _read(files["test"], numbers, writers)
    else:
        held_out = _held_out(train.owners)
        train, test = train.part(~held_out), train.part(held_out)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    count = min(int(VALIDATION_SHARE * len(train)), LARGEST_VALIDATION)
    return Data(
        train=train.part(order[count:].sort().values),
        validation=train.part(order[:count].sort().values),
        test=test,
    )


def _files(data: Path | None) -> dict[str, list[Path]]:
    """JSON files of ``train`` and, where LEAF has split the samples, ``test``."""
    wanted = (
        "folder with LEAF's FEMNIST as JSON, such as data/femnist/data after preprocess.sh in "
        "data/femnist of the project LEAF (TalwalkarLab/leaf)"
    )
    if data is None:
        raise DataError(f"FEMNIST can't be downloaded: expected --data DIR, a {wanted}")
    parts = {part: sorted((data / part).glob("*.json")) for part in ("train", "test")}
    if all(parts.values()):
        return parts
    for folder in (data, data / "all_data"):
        if files := sorted(folder.glob("*.json")):
            return {"train": files}
    raise DataError(f"data folder {data}: expected a {wanted}, found no *.json")


class _Written(NamedTuple):
    """What one writer wrote: bytes [n, 784] and classes [n]; or what is wrong with it."""

    pixels: Bytes
    labels: Numbers
    wrong: str = ""


_NOTHING = _Written(np.empty((0, SIDE * SIDE), np.uint8), np.empty(0, np.int64))


def _read(files: list[Path], numbers: dict[str, int], most: int) -> Characters:
    """Read the files one by one; ``numbers`` of writers are looked up and added."""
    pixels, labels, owners = [], [], []
    seen: set[str] = set()
    for file in files:
        content = parsed_once(file, _parse)
        writers, end = json.loads(content["writers"].tobytes()), 0
        for writer, count in zip(writers, content["counts"], strict=True):
            start, end = end, end + int(count)
            if most and len(seen) == most and writer not in seen:
                continue
            seen.add(writer)
            number = numbers.setdefault(writer, len(numbers))
            pixels.append(content["pixels"][start:end])
            labels.append(content["labels"][start:end])
            owners.append(np.full(end - start, number))
        if most and len(seen) == most:
            break
    images = np.concatenate([_NOTHING.pixels, *pixels])
    return Characters(
        torch.from_numpy(images).view(-1, 1, SIDE, SIDE),
        torch.from_numpy(np.concatenate([_NOTHING.labels, *labels])),
        torch.from_numpy(np.concatenate([np.empty(0, np.int64), *owners])),
    )


def _parse(file: Path) -> Arrays:
    """Samples of all writers, one writer after the other, and how many there are of each."""
    found = list(_writers(file))
    written = [one for _, one in found]
    return {
        "writers": np.frombuffer(json.dumps([writer for writer, _ in found]).encode(), np.uint8),
        "counts": np.array([len(one.labels) for one in written], np.int64),
        "pixels": np.concatenate([_NOTHING.pixels, *(one.pixels for one in written)]),
        "labels": np.concatenate([_NOTHING.labels, *(one.labels for one in written)]),
    }


def _writers(file: Path) -> Iterator[tuple[str, _Written]]:
    try:
        with file.open(encoding="utf-8") as opened:
            # The floats of a writer become bytes as soon as they are parsed: those of a whole file
            # would take half a gigabyte.
            content = json.load(opened, object_hook=_packed)
    except (OSError, ValueError) as error:
        raise DataError(
            f"FEMNIST file {file} can't be read ({error}): expected JSON as LEAF writes it"
        ) from error
    users = _entry(file, content, "users", list)
    samples = _entry(file, content, "num_samples", list)
    user_data = _entry(file, content, "user_data", dict)
    if len(users) != len(samples):
        raise DataError(
            f"FEMNIST file {file}, key num_samples: expected one for each of {len(users)} users, "
            f"found {len(samples)}"
        )
    # Users whom LEAF left out are in user_data, too: the list of users counts.
    for user, count in zip(users, samples, strict=True):
        where, written = f"FEMNIST file {file}, key user_data/{user}", user_data.get(user)
        if not isinstance(written, _Written):
            raise DataError(f"{where}: expected an object with x and y, found none")
        if written.wrong:
            raise DataError(f"{where}/{written.wrong}")
        if len(written.labels) != count:
            raise DataError(
                f"{where}: expected {count} samples (num_samples), found {len(written.labels)}"
            )
        yield str(user), written


def _entry(file: Path, content: Any, key: str, kind: type[Any]) -> Any:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, kind):
        shape = "a list" if kind is list else "an object"
        raise DataError(
            f"FEMNIST file {file}, key {key}: expected {shape}, found {type(found).__name__}"
        )
    return found


def _packed(parsed: dict[str, Any]) -> Any:
    """Pack what one writer wrote; other objects are kept."""
    if not {"x", "y"} <= parsed.keys():
        return parsed
    try:
        x = np.array(parsed["x"], np.float32).reshape(-1, SIDE * SIDE)
        fits = len(x) == len(parsed["x"]) and bool(((x >= 0) & (x <= 1)).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        return _NOTHING._replace(wrong=f"x: expected lists of {SIDE * SIDE} numbers in [0, 1]")
    y = np.array(parsed["y"] or np.empty(0, np.int64))
    if not (y.ndim == 1 and y.dtype.kind == "i" and ((y >= 0) & (y < CLASSES)).all()):
        return _NOTHING._replace(wrong=f"y: expected a list of classes 0 … {CLASSES - 1}")
    if len(x) != len(y):
        return _NOTHING._replace(
            wrong=f"y: expected one class for each of {len(x)} x, found {len(y)}"
        )
    return _Written((x * 255).round().astype(np.uint8), y.astype(np.int64))


def _held_out(owners: Tensor) -> Tensor:
    """Mark a fifth of each writer's samples, rounded, drawn with a fixed seed; shape [N]."""
    shuffled = torch.randperm(len(owners), generator=torch.Generator().manual_seed(0))
    by_writer = shuffled[owners[shuffled].argsort(stable=True)]
    sizes = torch.bincount(owners)
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.arange(len(owners)) - first
    held_out = torch.zeros(len(owners), dtype=torch.bool)
    held_out[by_writer] = rank < (TEST_SHARE * sizes).round().repeat_interleave(sizes)
    return held_out
