"""Records of Flower, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from distreal_dse.errors import InputError, described

HELLO, PLAN, TRAIN = "query.hello", "query.plan", "train"
"""Types of messages."""

ASKED, ANSWER, WEIGHTS, FIGURES = "asked", "answer", "weights", "figures"
"""Records of messages: what the server says, what the device says, parts of states, and arrays of
figures."""

REFUSED = "refused"
"""What an answer holds in place of all else: why, in a line."""

Arrays = dict[str, npt.NDArray[np.generic]]

STYPE = "distreal.raw"
"""How arrays are written: their bytes in C order, little-endian, with nothing before."""


def config_of(values: Mapping[str, Any]) -> ConfigRecord:
    """Write plain values."""
    return ConfigRecord(dict(values))


def arrays_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> ArrayRecord:
    """Write arrays by name."""
    return ArrayRecord(
        {
            name: Array(
                dtype=array.dtype.name,
                shape=tuple(array.shape),
                stype=STYPE,
                data=np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes(),
            )
            for name, array in arrays.items()
        }
    )


def values_in(content: RecordDict, name: str) -> dict[str, Any]:
    """Return plain values of a message.

    Raises
    ------
    InputError
        If it has none of this name.
    """
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise InputError(f"message: expected values '{name}', found none")
    return dict(record)


def arrays_in(content: RecordDict, name: str) -> Arrays:
    """Return arrays of a message. They can't be written to.

    Raises
    ------
    InputError
        If it has none of this name, or one can't be read.
    """
    record = content.get(name)
    if not isinstance(record, ArrayRecord):
        raise InputError(f"message: expected arrays '{name}', found none")
    return {key: _array(key, array) for key, array in record.items()}


def _array(name: str, array: Array) -> npt.NDArray[np.generic]:
    """Read the numbers of an array and nothing else: no objects, no pickle."""
    if array.stype != STYPE:
        raise InputError(f"array {name}: expected it written as {STYPE}, found {array.stype!r}")
    try:
        kind = np.dtype(array.dtype)
        if kind.kind not in "biuf":
            raise InputError(f"array {name}: expected numbers, found {array.dtype!r}")
        flat = np.frombuffer(array.data, dtype=kind.newbyteorder("<"))
        return flat.astype(kind, copy=False).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise InputError(f"array {name}: expected numbers, found {described(error)}") from error


def size_of(content: RecordDict) -> int:
    """Return the bytes of all values and arrays of a message, without what frames them."""
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            total += sum(len(v) if isinstance(v, (str, bytes)) else 8 for v in record.values())
    return total


def sender(reply: Message, asked: Iterable[Message]) -> int:
    """Return the node that a reply is of, or stands for, as where Flower has lost it."""
    asked_of = {one.metadata.message_id: one.metadata.dst_node_id for one in asked}
    return asked_of.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)


def reply(message: Message, content: Mapping[str, ConfigRecord | ArrayRecord]) -> Message:
    """Answer a message."""
    return Message(RecordDict(dict(content)), reply_to=message)
