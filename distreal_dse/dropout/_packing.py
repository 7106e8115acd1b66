"""Packing: tensors of a network laid end to end, so that one operation copies parts of them all.

A training step evicts the caches, and after it each small tensor operation costs 5 to 25 µs
whatever its size. Gathering tensor by tensor takes hundreds of them; gathering blocks takes a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.dropout._sharing import sharing
from distreal_dse.errors import InputError

# Tensors with more pairs of rows and columns (classifiers, mostly) are copied one by one: a call
# costs little beside their size, and an index for each pair would take as much memory as they do.
LARGEST_PACKED = 1 << 20


class Place(NamedTuple):
    """Where a tensor lies in its block: ``rows · columns`` entries from ``first`` on.

    Rows and columns are the tensor's first two axes (a vector has one column). An entry holds all
    elements along the other axes, such as the taps of a filter for one input channel.
    """

    block: int
    first: int
    rows: int
    columns: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The entry after the last one."""
        return self.first + self.rows * self.columns


class Layout:
    """Places of tensors in blocks; a block has entries of one type and one number of elements.

    Within a block parameters precede buffers, so that the state of an optimiser takes the same
    places, and matrices precede vectors, which are then one range.

    Parameters
    ----------
    tensors
        Name, type, shape, and whether it is a parameter.
    """

    def __init__(self, tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...], bool]]) -> None:
        self.places: dict[str, Place] = {}
        self.sizes: list[int] = []  # entries of each block
        self.parameter_sizes: list[int] = []  # those of parameters
        self._kinds: list[tuple[torch.dtype, int]] = []
        ordered = sorted(tensors, key=lambda tensor: (not tensor[3], len(tensor[2]) == 1))
        for name, dtype, shape, is_parameter in ordered:
            kind = dtype, math.prod(shape[2:])
            if kind not in self._kinds:
                self._kinds.append(kind)
                self.sizes.append(0)
                self.parameter_sizes.append(0)
            block = self._kinds.index(kind)
            rows, columns = (*shape, 1)[:2]
            place = Place(block, self.sizes[block], rows, columns, tuple(shape))
            self.places[name] = place
            self.sizes[block] = place.end
            if is_parameter:
                self.parameter_sizes[block] = place.end

    def blocks(self, sizes: Sequence[int], device: torch.device) -> list[Tensor]:
        """New blocks of zeros with these numbers of entries.

        Shapes [entries] where an entry is one element, else [entries, elements].
        """
        return [
            torch.zeros((size, elements) if elements > 1 else (size,), dtype=dtype, device=device)
            for size, (dtype, elements) in zip(sizes, self._kinds, strict=True)
        ]

    def view(self, blocks: Sequence[Tensor], name: str) -> Tensor:
        """The tensor as a part of its block."""
        place = self.places[name]
        return blocks[place.block][place.first : place.end].view(place.shape)


class PackedNetwork:
    """The droppable tensors of a full network, moved into blocks where that pays.

    The network's tensors stay the objects that they are, with their values; they become views of
    the blocks. Where others give one a new storage (by assigning ``.data``, say), `refresh` makes
    new blocks.

    Parameters
    ----------
    network, channels
        The full network and its channel map.
    """

    def __init__(self, network: nn.Module, channels: ChannelMap) -> None:
        parameters = dict(network.named_parameters())
        full = {**parameters, **dict(network.named_buffers())}
        packed = {name: full[name] for name in channels.axes if _is_packable(full[name])}
        self.layout = Layout(
            (name, tensor.dtype, tuple(tensor.shape), name in parameters)
            for name, tensor in packed.items()
        )
        self.device = next(iter(full.values())).device
        self._tensors = packed
        self._move_in()
        self.index_types = [_index_type(block) for block in self.blocks]

    @torch.no_grad()
    def refresh(self) -> None:
        """Move all tensors into new blocks if some lie elsewhere.

        The blocks before stay as they are, for they may hold what somebody put aside: averaged
        weights are tried out by exchanging ``.data``, and then exchanging it back.

        Raises
        ------
        InputError
            If a tensor is of another type, on another device or in another memory format now, or
            shares its memory with another one.
        """
        if all(tensor.data_ptr() == pointer for tensor, pointer in self._pointers):
            return
        for name, tensor in self._tensors.items():
            view = self.layout.view(self.blocks, name)
            if tensor.data_ptr() != view.data_ptr() and (
                tensor.dtype != view.dtype
                or tensor.device != view.device
                or not _is_packable(tensor)
            ):
                raise InputError(
                    f"tensor {name} is {tensor.dtype} on {tensor.device} now, with strides "
                    f"{tensor.stride()}: expected {view.dtype} on {view.device} in the order that "
                    "it had; convert and move a network before its sub-networks are built"
                )
        for one, other in sharing(self._tensors):
            raise InputError(
                f"tensors {one} and {other} share memory now: expected each to have its own; "
                "assign a clone()"
            )
        self._move_in()

    def move_out(self) -> None:
        """Give each tensor memory of its own until the next `refresh`, for it to be copied alone.

        Otherwise each copy of a tensor would come with a copy of all that it lies with.
        """
        for tensor in self._tensors.values():
            tensor.data = tensor.data.clone()

    def _move_in(self) -> None:
        self.blocks = self.layout.blocks(self.layout.sizes, self.device)
        for name, tensor in self._tensors.items():
            view = self.layout.view(self.blocks, name)
            view.copy_(tensor.detach())
            tensor.data = view
        self._pointers = [(tensor, tensor.data_ptr()) for tensor in self._tensors.values()]


def first(sizes: Sequence[int], blocks: Sequence[Tensor]) -> list[Tensor]:
    """The first entries of each block, as many as given."""
    return [
        block if len(block) == size else block[:size]
        for size, block in zip(sizes, blocks, strict=True)
    ]


@torch.no_grad()
def first_of_growing(sizes: Sequence[int], blocks: Sequence[Tensor]) -> list[Tensor]:
    """Views of the first entries of each block, which is enlarged with zeros where it is shorter.

    Earlier views stay valid: they share the block's storage, whose memory is exchanged.
    """
    for size, block in zip(sizes, blocks, strict=True):
        length = len(block)
        if length < size:
            block.resize_(size, *block.shape[1:])
            block[length:].zero_()
    return [block[:size] for size, block in zip(sizes, blocks, strict=True)]


def gather(blocks: Sequence[Tensor], entries: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Fill ``out`` with the given entries of each block."""
    for block, chosen, small in zip(blocks, entries, out, strict=True):
        torch.index_select(block, 0, chosen, out=small)


def scatter(small: Sequence[Tensor], entries: Sequence[Tensor], blocks: Sequence[Tensor]) -> None:
    """Write ``small`` to the given entries of each block."""
    for values, chosen, block in zip(small, entries, blocks, strict=True):
        if block.dim() == 1:  # several times as fast as index_copy_
            block.scatter_(0, chosen, values)
        else:
            block.index_copy_(0, chosen, values)


def _index_type(block: Tensor) -> torch.dtype:
    """The smallest type of indices that `gather` and `scatter` take for this block."""
    if block.dim() == 1 and len(block) <= torch.iinfo(torch.int32).max:
        try:
            block[:1].clone().scatter_(0, block.new_zeros(1, dtype=torch.int32), block[:1])
            return torch.int32
        except (IndexError, RuntimeError):  # not in every version of PyTorch, on every device
            pass
    return torch.int64


def _is_packable(tensor: Tensor) -> bool:
    pairs = math.prod(tensor.shape[:2])
    return tensor.is_contiguous() and 0 < pairs <= LARGEST_PACKED
