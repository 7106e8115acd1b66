"""What servers and devices tell each other: values, and how they are written in plain records.

Records are numbers, text and bytes by name, and arrays by name: nothing is pickled, and what comes
in is checked before it is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distreal_dse.errors import InputError
from fl.flower.pieces import pack_bits, unpack_bits
from fl.results import Update
from fl.world.exact import Seconds

PROTOCOL = 1
"""Version of what is said here."""

# Digits of a time: twice the bits of `fl.world.exact`, and room for the whole seconds.
LONGEST = 1000

# Characters of the name of a device's class, which is stored and shown. Our own choice.
LONGEST_NAME = 100

Record = dict[str, Any]
"""Numbers, text and bytes by name."""

Arrays = Mapping[str, npt.NDArray[np.generic]]

Value = TypeVar("Value", int, float, str, bytes, bool)


class RefusedError(InputError):
    """The other side refuses to take part; says why."""


@dataclass(frozen=True)
class Hello:
    """What the server trains. A device that has something else refuses.

    Parameters
    ----------
    model
        Fingerprint of the network that is trained.
    front, front_hash
        Label, which holds name and version, and hash of the front; empty where there is none.
    strategy
        Its text.
    """

    model: str
    front: str
    front_hash: str
    strategy: str

    def record(self) -> Record:
        """Return it as plain values."""
        return {
            "protocol": PROTOCOL,
            "model": self.model,
            "front": self.front,
            "front-hash": self.front_hash,
            "strategy": self.strategy,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Hello:
        """Read what `record` gave.

        Raises
        ------
        InputError
            If it is something else.
        """
        if (found := record.get("protocol")) != PROTOCOL:
            raise InputError(
                f"server of the run: expected one that speaks version {PROTOCOL}, as this device, "
                f"found {found}; install the same version of distreal-dse on both"
            )
        names = ("model", "front", "front-hash", "strategy")
        return cls(*(said(record, name, str) for name in names))


@dataclass(frozen=True)
class Greeting:
    """Which device a node is.

    Parameters
    ----------
    device
        Its index.
    device_class
        For figures.
    samples
        That it holds, ≥ 1.
    everything
        Whether its plans need all weights whatever its budget is, so that it need not be asked.
    """

    device: int
    device_class: str
    samples: int
    everything: bool

    def record(self) -> Record:
        """Return it as plain values."""
        return {
            "device": self.device,
            "class": self.device_class,
            "samples": self.samples,
            "everything": self.everything,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Greeting:
        """Read what `record` gave.

        Raises
        ------
        InputError
            If it is something else.
        """
        found = cls(
            said(record, "device", int),
            said(record, "class", str),
            said(record, "samples", int),
            said(record, "everything", bool),
        )
        if found.samples < 1:
            raise InputError(f"samples of a device: expected 1 or more, found {found.samples}")
        if len(found.device_class) > LONGEST_NAME:
            raise InputError(
                f"class of a device: expected up to {LONGEST_NAME} characters, found "
                f"{len(found.device_class)}"
            )
        return found


@dataclass(frozen=True, eq=False)
class Order:
    """A round that a device is asked for: first for its plan, then for its work.

    Parameters
    ----------
    round
        Number of the round.
    start, deadline
        Seconds since the start of the run.
    front_hash
        Of the front that the run trains with; empty where there is none.
    plan
        What the device said before; None where it was not asked.
    """

    round: int
    start: Seconds
    deadline: Seconds
    front_hash: str
    plan: Plan | None = None

    def record(self) -> Record:
        """Return it as plain values."""
        said_before = {} if self.plan is None else self.plan.record()
        return {
            "round": self.round,
            "start": str(self.start),
            "deadline": str(self.deadline),
            "front-hash": self.front_hash,
            **said_before,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any], units: int) -> Order:
        """Read what `record` gave, of a network with so many units.

        Raises
        ------
        InputError
            If it is something else.
        """
        return cls(
            said(record, "round", int),
            _seconds(said(record, "start", str)),
            _seconds(said(record, "deadline", str)),
            said(record, "front-hash", str),
            Plan.read(record, units) if "budget" in record else None,
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """What a device needs for a round.

    Parameters
    ----------
    budget
        That it had when it planned.
    units
        Whose weights it needs, boolean, shape [units]; None for all.
    """

    budget: float
    units: Tensor | None

    def record(self) -> Record:
        """Return it as plain values."""
        units = {} if self.units is None else {"units": pack_bits(self.units)}
        return {"budget": self.budget, **units}

    @classmethod
    def read(cls, record: Mapping[str, Any], units: int) -> Plan:
        """Read what `record` gave, of a network with so many units.

        Raises
        ------
        InputError
            If it is something else.
        """
        own = unpack_bits(said(record, "units", bytes), units) if "units" in record else None
        return cls(said(record, "budget", float), own)


# Of an update: what is said in a number, by its name in the record.
_NUMBERS: Mapping[str, tuple[str, type]] = {
    "device": ("device", int),
    "samples": ("samples", int),
    "loss": ("loss", float),
    "seconds": ("seconds", float),
    "complete": ("complete", bool),
    "macs": ("training_macs", float),
    "over-budget": ("over_budget", int),
}


def update_record(update: Update) -> tuple[Record, dict[str, npt.NDArray[np.generic]]]:
    """Write all of an update but its state.

    Equal masks are sent once; a device whose mask lasts for a round has one.
    """
    record = {name: kind(getattr(update, field)) for name, (field, kind) in _NUMBERS.items()}
    masks, order = torch.unique(update.masks, dim=0, return_inverse=True)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "masks": np.packbits(masks.numpy(force=True), axis=1),
        "order": order.numpy(force=True).astype(np.uint32),
        "costs": np.array(update.cost_shares, dtype=np.float64),
    }
    return record, arrays


def read_update(
    record: Mapping[str, Any], arrays: Arrays, units: int, due: int | None = None
) -> Update:
    """Read what `update_record` gave; its state is empty.

    Parameters
    ----------
    record, arrays
        As they came.
    units
        Of the network.
    due
        Mini-batches that the device has to train at most; None where that is not known.

    Raises
    ------
    InputError
        If it is something else.
    """
    values = {field: said(record, name, kind) for name, (field, kind) in _NUMBERS.items()}
    masks, order, costs = (arrays.get(name) for name in ("masks", "order", "costs"))
    kinds = [None if one is None else (one.dtype.name, one.ndim) for one in (masks, order, costs)]
    if kinds != [("uint8", 2), ("uint32", 1), ("float64", 1)]:
        raise InputError(f"masks and costs of an update: expected numbers, found {kinds}")
    assert masks is not None and order is not None and costs is not None
    # First of all: a mask for each mini-batch takes far more memory than what came.
    if due is not None and len(order) > due:
        raise InputError(
            f"mini-batches: expected at most the {due} that the device has, found {len(order)}"
        )
    shapes = (masks.shape[1:], costs.shape)
    if shapes != ((-(-units // 8),), order.shape) or (order.astype(np.int64) >= len(masks)).any():
        raise InputError(
            f"masks and costs of an update: expected those of {units} units for each mini-batch, "
            f"found masks {list(masks.shape)}, {len(order)} mini-batches and {len(costs)} costs"
        )
    bits = np.unpackbits(masks.astype(np.uint8), axis=1, count=units).astype(bool)
    return Update(
        **values,
        state={},
        masks=torch.from_numpy(bits)[torch.from_numpy(order.astype(np.int64))],
        cost_shares=tuple(float(cost) for cost in costs),
        bytes_down=0,
        bytes_up=0,
    )


def said(record: Mapping[str, Any], name: str, kind: type[Value]) -> Value:
    """Return a value of a record.

    Raises
    ------
    InputError
        If it is missing or of another type.
    """
    found = record.get(name)
    if type(found) is not kind:
        raise InputError(
            f"record of the other side: {name}: expected {kind.__name__}, found "
            f"{'nothing' if found is None else type(found).__name__}"
        )
    return found


def _seconds(text: str) -> Seconds:
    if text == "inf":
        return math.inf
    # No exponents: a few letters must not ask for gigabytes.
    if len(text) > LONGEST or not re.fullmatch(r"\d+(/[1-9]\d*)?", text, re.ASCII):
        raise InputError(f"seconds of the other side: expected a fraction, found {text[:40]!r}")
    return Fraction(text)
