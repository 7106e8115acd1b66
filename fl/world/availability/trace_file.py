"""Reading a trace of free compute: a CSV file with the columns ``device,time,availability``."""

from __future__ import annotations

import csv
import hashlib
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distreal_dse.errors import InputError, brief

COLUMNS = ("device", "time", "availability")
# What is shorter is a mistake of units; and times far into a run could not be told apart.
SHORTEST_SECONDS = 1e-3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """Free shares of recorded devices, each in pieces that repeat for ever.

    Parameters
    ----------
    starts
        Where the pieces of each device begin in ``ends`` and ``shares``, shape [devices + 1].
    ends
        Seconds from the start of a repetition to the end of each piece, shape [pieces]; those of
        a device ascend, and its last one is the length of a repetition.
    shares
        What is free during each piece, in [0, 1], shape [pieces]; neighbours differ.
    """

    starts: npt.NDArray[np.int64]
    ends: Floats
    shares: Floats

    @property
    def devices(self) -> int:
        """How many devices were recorded."""
        return len(self.starts) - 1

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all pieces."""
        digest = hashlib.sha256()
        for values in (self.starts, self.ends, self.shares):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def pieces(self, device: int) -> tuple[Floats, Floats]:
        """Return ends and shares of one device, as views."""
        own = slice(self.starts[device], self.starts[device + 1])
        return self.ends[own], self.shares[own]

    def mean_shares(self) -> Floats:
        """Return what each device has free on average over a repetition, shape [devices]."""
        lengths = np.diff(self.ends, prepend=0.0)
        first, last = self.starts[:-1], self.starts[1:] - 1
        lengths[first] = self.ends[first]
        mean: Floats = np.add.reduceat(lengths * self.shares, first) / self.ends[last]
        return mean


def read_trace(path: str) -> Trace:
    """Read a trace.

    Parameters
    ----------
    path
        CSV in UTF-8 with the header ``device,time,availability``. The device is any text; its rows
        may lie between those of others, but their times, in virtual seconds from 0 on, ascend. An
        availability is a share in [0, 1], and holds until the device's next row. The last row of
        a device ends its trace, which then begins anew. Before the first row holds what the last
        one says, as in every repetition.

    Raises
    ------
    InputError
        If the file can't be read, or is not of this form; names the line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                labels, rows = _rows(path, reader)
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: expected a trace as CSV, found: {error}; "
                    "mend the line"
                ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a trace of free compute, found: {error.strerror}; give the path of "
            "a CSV file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a trace as text in UTF-8, found other bytes; save it as CSV"
        ) from error
    if not labels:
        raise InputError(
            f"{path}: expected a trace with at least one row, found none; write a row "
            f"{','.join(COLUMNS)} for each change of a device"
        )
    return _trace(path, labels, *rows)


def _rows(
    path: str, reader: Iterator[list[str]]
) -> tuple[list[str], tuple[npt.NDArray[np.int64], Floats, Floats]]:
    """Labels of the devices as they first occur; number of the device, time and share by row."""
    header = next(reader, [])
    if tuple(header) != COLUMNS:
        raise InputError(
            f"{path}, line 1: expected the columns {','.join(COLUMNS)}, found "
            f"{brief(','.join(header))}; mend the header"
        )
    numbers: dict[str, int] = {}
    latest: list[float] = []  # time of the last row of each device
    # Arrays of plain values: a million rows take 24 MB, as Python's objects five times as much.
    devices, times, shares = array("q"), array("d"), array("d")
    for row in reader:
        if not row:  # an empty line
            continue
        line: int = reader.line_num  # type: ignore[attr-defined]
        if len(row) != 3:
            raise _bad(path, line, f"{len(COLUMNS)} values", ",".join(row))
        label, time_text, share_text = row
        if not label:
            raise _bad(path, line, "the name of a device", label)
        time, share = _number(time_text), _number(share_text)
        # Comparisons that NaN fails, too.
        if not 0 <= time < math.inf:
            raise _bad(path, line, "a time of 0 or more virtual seconds", time_text)
        if not 0 <= share <= 1:
            raise _bad(path, line, "an availability from 0 to 1", share_text)
        number = numbers.setdefault(label, len(latest))
        if number == len(latest):
            latest.append(-1.0)
        if time <= latest[number]:
            expected = f"a time after {latest[number]:g}, the one before of device {brief(label)}"
            raise _bad(path, line, expected, time_text)
        latest[number] = time
        devices.append(number)
        times.append(time)
        shares.append(share)
    found = (np.frombuffer(devices, np.int64), np.frombuffer(times), np.frombuffer(shares))
    return list(numbers), found


def _trace(
    path: str,
    labels: list[str],
    devices: npt.NDArray[np.int64],
    times: Floats,
    shares: Floats,
) -> Trace:
    order = np.argsort(devices, kind="stable")
    devices, ends, shares = devices[order], times[order], shares[order]
    first, last = _bounds(devices)
    single = first == last
    ends[first[single]] = 1.0  # one row is a constant, whatever its time: any length will do
    if (short := ends[last] < SHORTEST_SECONDS).any():
        label = labels[int(short.argmax())]
        raise InputError(
            f"{path}: expected {SHORTEST_SECONDS:g} virtual seconds or more up to the last row of "
            f"device {brief(label)}, found {ends[last][short][0]:g}; give times in seconds"
        )
    # The piece that ends with a row has the share of the row before; that which ends with a
    # device's first row has the share of its last one.
    held = np.roll(shares, 1)
    held[first] = shares[last]
    # A piece is left out if it has no length, or the next one of the device goes on with its share.
    goes_on = np.append((devices[1:] == devices[:-1]) & (held[1:] == held[:-1]), False)
    kept = (ends > 0) & ~goes_on
    devices, ends, held = devices[kept], ends[kept], held[kept]
    first, _ = _bounds(devices)
    if (never := np.maximum.reduceat(held, first) == 0).any():
        label = labels[int(never.argmax())]
        raise InputError(
            f"{path}: expected every device to be available at some time, found 0 throughout for "
            f"device {brief(label)}; leave the device out"
        )
    return Trace(np.append(first, len(devices)), ends, held)


def _bounds(devices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the first and the last row of each device; rows are in the order of devices."""
    changes = np.flatnonzero(np.diff(devices)) + 1
    return np.append(0, changes), np.append(changes, len(devices)) - 1


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bad(path: str, line: int, expected: str, found: str) -> InputError:
    return InputError(
        f"{path}, line {line}: expected {expected}, found {brief(found)}; mend the line or leave "
        "it out"
    )
