"""Parts of a state, as they travel: what belongs to some units, in a few flat arrays.

Both ends know the network, so names and shapes stay at home: tensors come in the order of their
names, whatever the order of a state is. A part of a tensor is what lies in the rows and columns of
the units; tensors that belong to no units are always sent whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distreal_dse.dropout import ChannelMap
from distreal_dse.errors import InputError
from fl.results import State

Arrays = dict[str, npt.NDArray[np.generic]]
"""Flat arrays by the name of their type, such as ``float32``."""


@torch.no_grad()
def take(state: State, units: Tensor, channels: ChannelMap) -> Arrays:
    """Take the part of a state that belongs to some units.

    Parameters
    ----------
    state
        Of the network; not changed.
    units
        Which units, boolean, shape [units].
    channels
        Of the network.

    Returns
    -------
    dict
        By type, the elements of all tensors of that type in the order of their names.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in sorted(state.items()):
        found = tensor
        for axis, places in _places(name, tensor, units, channels):
            found = found.index_select(axis, places)
        parts.setdefault(_kind(tensor), []).append(found.detach().cpu().reshape(-1))
    return {kind: torch.cat(found).numpy() for kind, found in parts.items()}


@torch.no_grad()
def put(
    part: Mapping[str, npt.NDArray[np.generic]], state: State, units: Tensor, channels: ChannelMap
) -> dict[str, Tensor]:
    """Return a copy of a state in which a part of it was replaced.

    Parameters
    ----------
    part
        As `take` gave it for equal units.
    state
        All else; not changed.
    units, channels
        As for `take`.

    Raises
    ------
    InputError
        If the part has other types or sizes than these units need.
    """
    needed = sizes(state, units, channels)
    found = {kind: (array.dtype.name, array.shape) for kind, array in part.items()}
    expected = {kind: (kind, (size,)) for kind, size in needed.items()}
    if found != expected:
        raise InputError(
            f"part of a state: expected {_written(expected)} for {int(units.sum())} units, found "
            f"{_written(found)}"
        )
    # np.array copies, as what came over the wire can't be written to.
    flat = {kind: torch.from_numpy(np.array(array)) for kind, array in part.items()}
    begin = dict.fromkeys(flat, 0)
    whole = {}
    for name, tensor in sorted(state.items()):
        kind, places = _kind(tensor), dict(_places(name, tensor, units, channels))
        shape = _shape(tensor, places)
        end = begin[kind] + math.prod(shape)
        new = flat[kind][begin[kind] : end].reshape(shape).to(tensor.device)
        begin[kind] = end
        whole[name] = _with(tensor, new, places)
    return whole


def sizes(state: State, units: Tensor, channels: ChannelMap) -> dict[str, int]:
    """Return how many elements of each type `take` gives."""
    found: dict[str, int] = {}
    for name, tensor in state.items():
        size = math.prod(_shape(tensor, dict(_places(name, tensor, units, channels))))
        found[_kind(tensor)] = found.get(_kind(tensor), 0) + size
    return found


def _shape(tensor: Tensor, places: Mapping[int, Tensor]) -> list[int]:
    """Shape of the part of a tensor that lies in some places along some of its axes."""
    return [len(places[axis]) if axis in places else n for axis, n in enumerate(tensor.shape)]


def _with(tensor: Tensor, new: Tensor, places: Mapping[int, Tensor]) -> Tensor:
    if not places:
        return new.clone()
    whole = tensor.detach().clone()
    if len(places) == 2:
        whole[places[0][:, None], places[1]] = new
    else:
        ((axis, one),) = places.items()
        whole.index_copy_(axis, one, new)
    return whole


def _places(
    name: str, tensor: Tensor, units: Tensor, channels: ChannelMap
) -> Iterator[tuple[int, Tensor]]:
    """Give the axes of a tensor that belong to units, and which places along them are meant."""
    kept = torch.cat([units, units.new_ones(1)])  # the last is what is always kept
    for axis, along in enumerate(channels.axes.get(name, ())):
        if along is not None:
            places = kept[torch.from_numpy(along)].nonzero().flatten()
            yield axis, places.to(tensor.device)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _written(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    parts = [f"{dtype} {list(shape)}" for dtype, shape in arrays.values()]
    return ", ".join(parts) or "nothing"


def pack_bits(mask: Tensor) -> bytes:
    """Pack a boolean tensor of one axis, eight to a byte."""
    return np.packbits(mask.numpy(force=True)).tobytes()


def unpack_bits(packed: bytes, length: int) -> Tensor:
    """Unpack what `pack_bits` packed.

    Raises
    ------
    InputError
        If it is of another length.
    """
    if len(packed) != -(-length // 8):
        raise InputError(
            f"packed units: expected {-(-length // 8)} bytes for {length} units, found "
            f"{len(packed)}"
        )
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=length)
    return torch.from_numpy(bits.astype(bool))
