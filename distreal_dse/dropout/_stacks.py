"""The values of a network for several devices at once, stacked, and the kept parts of some of them.

All tensors of all devices lie in a few blocks, end to end, so that one operation copies the kept
parts of a whole cohort. Where they lie follows from the masks on the network's own device: a GPU is
not waited for, and nothing is copied to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelMap, Units
from distreal_dse.dropout._network import CACHED_SUBNETWORKS, DroppableNetwork
from distreal_dse.dropout._packing import Layout, Place
from distreal_dse.dropout._subnetwork import scaled_weights, shares_of_units
from distreal_dse.dropout._vector import KeptCounts


class Stacks:
    """All parameters and buffers of a network, once for each of some rows.

    Parameters
    ----------
    network
        Gives names, shapes and types, and the values of what no state names.
    rows
        Number of devices, ≥ 1.
    """

    def __init__(self, network: DroppableNetwork, rows: int) -> None:
        module = network.module
        parameters = dict(module.named_parameters())
        self.tensors: dict[str, Tensor] = {**parameters, **dict(module.named_buffers())}
        self.parameters = tuple(parameters)
        """Names of the parameters."""
        self.rows = rows
        self.device = next(iter(self.tensors.values())).device
        self.layout = _layout(
            {name: tuple(one.shape) for name, one in self.tensors.items()}, self.tensors
        )
        self.blocks = self.empty()

    def empty(self, rows: int | None = None) -> list[Tensor]:
        """New blocks of zeros for all rows, or so many: one kind of an optimiser's state, say.

        Shapes [rows · entries] or [rows · entries, elements], see `Layout`.
        """
        rows = self.rows if rows is None else rows
        return self.layout.blocks([rows * size for size in self.layout.sizes], self.device)

    @torch.no_grad()
    def fill(self, blocks: Sequence[Tensor], values: Mapping[str, Tensor]) -> None:
        """Give the same values to all rows of ``blocks``.

        Parameters
        ----------
        blocks
            As `empty` makes them.
        values
            By name, as large as those of the network; names that are missing keep theirs.
        """
        for name, value in values.items():
            self.view(blocks, name).copy_(value)

    def view(self, blocks: Sequence[Tensor], name: str) -> Tensor:
        """A tensor of all rows, shape [rows, …]; no copy."""
        place = self.layout.places[name]
        block = blocks[place.block]
        by_row = block.view(self.rows, self.layout.sizes[place.block], *block.shape[1:])
        shape = (self.rows, *self.tensors[name].shape)
        return by_row[:, place.first : place.end].view(shape)

    def states(self, names: Sequence[str]) -> list[dict[str, Tensor]]:
        """Values of each row by name; no copies."""
        by_name = {name: self.view(self.blocks, name).unbind(0) for name in names}
        return [{name: rows[row] for name, rows in by_name.items()} for row in range(self.rows)]

    @property
    def bytes_of_row(self) -> int:
        """Bytes of the tensors of one row."""
        return sum(one.numel() * one.element_size() for one in self.tensors.values())


@dataclass(frozen=True, eq=False)
class Entries:
    """Where the kept parts of K rows lie in each block.

    Indices have the shape [K · kept entries]: of the first tensor of all rows, then of the second …

    Parameters
    ----------
    read, write
        To read from, and to write to.
    positions
        Kept positions along all axes, shape [K, positions].
    first
        As if all rows were the first one.
    of
        Of which of the K each index is.
    sizes
        Entries of a row.
    """

    read: Sequence[Tensor]
    write: Sequence[Tensor]
    positions: Tensor
    first: Sequence[Tensor]
    of: Sequence[Tensor]
    sizes: Sequence[int]

    def at(self, rows: Tensor) -> Entries:
        """The same parts of other rows, shape [K], of blocks with the same layout."""
        moved = _moved(self.first, self.of, self.sizes, rows)
        return replace(self, read=moved, write=moved)


def _moved(
    first: Sequence[Tensor], of: Sequence[Tensor], sizes: Sequence[int], rows: Tensor
) -> list[Tensor]:
    return [index + (rows * size)[row] for index, row, size in zip(first, of, sizes, strict=True)]


class StackedSubNetwork:
    """The sub-networks of one vector of kept counts that K rows train at once.

    Parameters
    ----------
    stacks
        Any rows of the network; others are laid out alike.
    network
        Their network.
    counts
        Kept units of each group.
    """

    def __init__(self, stacks: Stacks, network: DroppableNetwork, counts: KeptCounts) -> None:
        self._full_sizes, self._network, self._counts = stacks.layout.sizes, network, counts
        channels, device = network.channels, stacks.device
        shares = shares_of_units(channels, counts)
        tables = _Tables(shares)
        self._shapes: dict[str, tuple[int, ...]] = {}
        sources: dict[str, tuple[slice, slice | None]] = {}
        for name, full in stacks.tensors.items():
            rows, columns = _units_of_axes(channels, name, tuple(full.shape))
            along = tables.range(rows), None if columns is None else tables.range(columns)
            sources[name] = along
            kept = [one.stop - one.start for one in along if one is not None]
            self._shapes[name] = (*kept, *full.shape[2:]) if full.dim() else ()
        self.layout = _layout(self._shapes, stacks.tensors)
        scales = list(scaled_weights(channels, shares)) if network.scaling == "inverted" else []
        self._factors = {n: one for n, one, _ in scales if isinstance(one, float)}
        self._by_column = {
            name: (factors.to(device), tables.range(inputs))
            for name, factors, inputs in scales
            if isinstance(factors, Tensor)
        }
        self._units = torch.from_numpy(np.concatenate(tables.units)).to(device)
        self._starts = torch.from_numpy(np.concatenate(tables.starts)).to(device)
        self._recipes = [
            _Recipe(self.layout, stacks.layout, block, sources, len(self._starts), device)
            for block in range(len(self.layout.sizes))
        ]

    @property
    def module(self) -> nn.Module:
        """The network that its tensors belong to; its layers follow those of the full network."""
        if self._counts == self._network.full_counts:
            return self._network.module
        small = self._network.subnetwork(self._counts)
        small.follow()
        return small.module

    def entries(self, masks: Tensor, read: Tensor, write: Tensor) -> Entries:
        """Find the kept entries of K rows.

        Parameters
        ----------
        masks
            Units that each keeps, as many as the counts say; boolean, shape [K, units].
        read, write
            Rows to read from and to write to, shape [K].
        """
        kept = torch.cat([masks, masks.new_ones(len(masks), 1)], 1)[:, self._units]
        # Kept ones come first and stay in their order; how many they are is known.
        order = kept.byte().argsort(dim=1, descending=True, stable=True)
        positions = order[:, : len(self._starts)] - self._starts
        sizes = self._full_sizes
        found = [recipe.find(positions) for recipe in self._recipes]
        first, of = [one for one, _ in found], [one for _, one in found]
        moved = [_moved(first, of, sizes, rows) for rows in (read, write)]
        return Entries(moved[0], moved[1], positions, first, of, sizes)

    def gather(self, blocks: Sequence[Tensor], entries: Entries) -> list[Tensor]:
        """Copies of the kept entries of blocks; `views` says where a tensor is in them."""
        return [
            block.index_select(0, index) for block, index in zip(blocks, entries.read, strict=True)
        ]

    def scatter(self, small: Sequence[Tensor], blocks: Sequence[Tensor], entries: Entries) -> None:
        """Write kept entries back; what was dropped stays as it is."""
        for values, block, index in zip(small, blocks, entries.write, strict=True):
            block.index_copy_(0, index, values)

    def views(self, small: Sequence[Tensor]) -> dict[str, Tensor]:
        """Tensors by name, shape [K, …], as parts of what `gather` gave; contiguous."""
        found = {}
        for name, place in self.layout.places.items():
            values = small[place.block]
            size = self.layout.sizes[place.block]
            many = len(values) // size if size else 0
            part = values[many * place.first : many * place.end]
            found[name] = part.view(many, *self._shapes[name])
        return found

    def scaled(self, values: Mapping[str, Tensor], entries: Entries) -> dict[str, Tensor]:
        """Products of weights, or of their gradients, with the factors of their inputs.

        Those that have factors; see `SubNetwork`.
        """
        plain = [name for name in self._factors if name in values]
        products = torch._foreach_mul(
            [values[name] for name in plain], [self._factors[name] for name in plain]
        ) if plain else ()  # fmt: skip
        found = dict(zip(plain, products, strict=True))
        for name, (factors, along) in self._by_column.items():
            if name in values:
                weight = values[name]
                by_input = factors[entries.positions[:, along]].to(weight.dtype)
                ones = [1] * (weight.dim() - 3)
                found[name] = weight * by_input.view(len(by_input), 1, -1, *ones)
        return found


class StackedSubNetworks:
    """The stacked sub-networks of a network, built at their first use.

    Parameters
    ----------
    network
        The network.
    """

    def __init__(self, network: DroppableNetwork) -> None:
        self._network, self._times = network, network.follow()
        self._known: OrderedDict[KeptCounts, StackedSubNetwork] = OrderedDict()

    def of(self, stacks: Stacks, counts: KeptCounts) -> StackedSubNetwork:
        """That of a vector of kept counts, for these rows or others."""
        if (times := self._network.follow()) != self._times:
            self._times = times
            self._known.clear()
        if counts not in self._known:
            self._known[counts] = StackedSubNetwork(stacks, self._network, counts)
            if len(self._known) > CACHED_SUBNETWORKS:
                self._known.popitem(last=False)
        self._known.move_to_end(counts)
        return self._known[counts]


class _Tables:
    """Axes with the same units have the same kept positions; those of all axes lie end to end."""

    def __init__(self, share_of_unit: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        self._share_of_unit = share_of_unit
        self._ranges: dict[bytes, slice] = {}
        self.units: list[Units] = []
        self.starts: list[Units] = []  # of its axis among all units, for each kept position
        self._all = self._kept = 0

    def range(self, units: Units) -> slice:
        """Where the kept positions of an axis with these units are."""
        key = units.tobytes()
        if key not in self._ranges:
            kept = round(float(self._share_of_unit[units].sum()))
            self._ranges[key] = slice(self._kept, self._kept + kept)
            self.units.append(units)
            self.starts.append(np.full(kept, self._all))
            self._all, self._kept = self._all + len(units), self._kept + kept
        return self._ranges[key]


class _Recipe:
    """How the kept entries of one block follow from kept positions.

    As in `SubNetwork`, the entry of a tensor at a row and a column is ``first + row · columns +
    column``. Entries of one tensor lie together for all K, so that each tensor is contiguous.
    """

    def __init__(
        self,
        small: Layout,
        full: Layout,
        block: int,
        sources: Mapping[str, tuple[slice, slice | None]],
        nothing: int,
        device: torch.device,
    ) -> None:
        named = sorted(
            ((name, place) for name, place in small.places.items() if place.block == block),
            key=lambda one: one[1].first,
        )
        parts = [
            _indices(place, full.places[name], *sources[name], nothing) for name, place in named
        ]
        rows, columns, factors, firsts = np.concatenate(parts, axis=1)
        self._rows, self._columns, self._factors, self._firsts = (
            torch.from_numpy(np.ascontiguousarray(one)).to(device)
            for one in (rows, columns, factors, firsts)
        )
        sizes = [place.end - place.first for _, place in named]
        begins = [place.first for _, place in named]
        self._sizes, self._begins = (torch.tensor(one, device=device) for one in (sizes, begins))
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def find(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entries in a row, and of which of K each is; shapes [K · entries].

        Parameters
        ----------
        positions
            Shape [K, positions].
        """
        many = len(positions)
        of, entry = self._order(many)
        flat = torch.cat([positions, positions.new_zeros(many, 1)], 1)
        begin = of * flat.shape[1]
        flat = flat.flatten()
        found = flat[begin + self._rows[entry]] * self._factors[entry] + self._firsts[entry]
        return found + flat[begin + self._columns[entry]], of

    def _order(self, many: int) -> tuple[Tensor, Tensor]:
        """Of which of K each index is, and for which entry; shapes [K · entries]."""
        if many not in self._orders:
            total = many * len(self._rows)
            tensor = torch.repeat_interleave(many * self._sizes, output_size=total)
            size, begin = self._sizes[tensor], self._begins[tensor]
            place = torch.arange(total, device=size.device) - many * begin
            of = place // size
            self._orders = {many: (of, begin + place - of * size)}
        return self._orders[many]


def _indices(
    small: Place, full: Place, rows: slice, columns: slice | None, nothing: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Of each entry: where its row and column are among the positions, a factor, and the first."""
    of_rows = np.arange(rows.start, rows.stop)
    of_columns = np.array([nothing]) if columns is None else np.arange(columns.start, columns.stop)
    size = len(of_rows) * len(of_columns)
    assert size == small.end - small.first
    return np.stack([
        np.repeat(of_rows, len(of_columns)), np.tile(of_columns, len(of_rows)),
        np.full(size, full.columns), np.full(size, full.first),
    ])  # fmt: skip


def _units_of_axes(
    channels: ChannelMap, name: str, shape: tuple[int, ...]
) -> tuple[Units, Units | None]:
    """Units along the first two axes; those of an axis that is whole are always kept."""
    axes = (*channels.axes.get(name, ()), None, None)
    whole = [np.full(size, channels.fixed) for size in (*shape, 1)[:2]]
    rows = whole[0] if axes[0] is None else axes[0]
    if len(shape) < 2:
        return rows, None
    return rows, whole[1] if axes[1] is None else axes[1]


def _layout(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> Layout:
    """Places of all tensors; a number without an axis has one here."""
    return Layout(
        (name, tensors[name].dtype, shape or (1,), isinstance(tensors[name], nn.Parameter))
        for name, shape in shapes.items()
    )
