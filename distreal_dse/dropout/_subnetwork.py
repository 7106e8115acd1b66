"""Sub-networks: physically smaller dense copies of a network, filled from its kept filters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from distreal_dse.dropout._channels import ChannelMap, Units
from distreal_dse.dropout._copying import copied
from distreal_dse.dropout._following import Settings, Structure
from distreal_dse.dropout._packing import (
    Layout,
    PackedNetwork,
    first_of_growing,
    gather,
    scatter,
)
from distreal_dse.dropout._sizes import adopt_sizes
from distreal_dse.dropout._vector import KeptCounts, check_counts
from distreal_dse.errors import InputError, VectorError

SCALINGS = ("inverted", "none")


class Kept(NamedTuple):
    """What a mask keeps: entries of each packed block, and positions by table for other tensors."""

    entries: Sequence[Tensor]
    positions: Mapping[int, Tensor]


class Slot(NamedTuple):
    """A tensor that is not packed, its smaller copy, and the tables of its first two axes.

    The full tensor is the network's own, not an alias: its storage may be exchanged by others.
    """

    name: str
    full: Tensor
    small: Tensor
    rows: int | None
    columns: int | None

    def gather(self, full: Tensor, kept: Kept, out: Tensor | None = None) -> Tensor:
        """Kept part of ``full``, a tensor laid out as the slot's full one."""
        if self.rows is not None:
            rows = kept.positions[self.rows]
            if self.columns is None:
                return torch.index_select(full, 0, rows, out=out)
            full = full.index_select(0, rows)
        assert self.columns is not None
        return torch.index_select(full, 1, kept.positions[self.columns], out=out)

    def scatter(self, small: Tensor, full: Tensor, kept: Kept) -> None:
        """Write ``small`` to the kept part of ``full``; what was dropped stays as it is."""
        if self.rows is None:
            assert self.columns is not None
            full.index_copy_(1, kept.positions[self.columns], small)
        elif self.columns is None:
            full.index_copy_(0, kept.positions[self.rows], small)
        else:
            full[kept.positions[self.rows][:, None], kept.positions[self.columns]] = small


def shares_of_units(channels: ChannelMap, counts: KeptCounts) -> npt.NDArray[np.float64]:
    """Share that is kept of the group of each unit; 1 of what is always kept, shape [units + 1]."""
    shares = np.divide([*counts, 1], [*channels.widths, 1])
    found: npt.NDArray[np.float64] = shares[channels.group_of_unit()]
    return found


def scaled_weights(
    channels: ChannelMap, share_of_unit: npt.NDArray[np.float64]
) -> Iterator[tuple[str, float | Tensor, Units]]:
    """Weights that inverted scaling multiplies, by name: their factors, and units of their inputs.

    The factor of all inputs, or one for each position along them, shape [inputs].
    """
    for layer in channels.layers:
        factors = 1 / share_of_unit[layer.inputs]
        if (factors == 1).all():
            continue
        alike = (factors == factors[0]).all()
        found = float(factors[0]) if alike else torch.from_numpy(factors)
        yield f"{layer.name}.weight", found, layer.inputs


def wrong_mask(mask: Tensor, counts: KeptCounts) -> VectorError:
    """Return the error of a mask that does not keep these counts."""
    return VectorError(
        f"mask keeps {int(mask.sum())} of {len(mask)} units: expected {counts} of "
        "the channel groups, the kept counts of the vector; mend the mask policy"
    )


class _Tables:
    """Kept positions along axes, found for all distinct axes at once.

    The arithmetic is done by NumPy, whose calls take a fraction of the time on short arrays.
    """

    def __init__(self, share_of_unit: npt.NDArray[np.float64]) -> None:
        self._share_of_unit = share_of_unit
        self._number_of: dict[bytes, int] = {}
        self._units: list[Units] = []

    def number(self, units: Units) -> int:
        """Number of the table of an axis with these units; equal axes share one."""
        key = units.tobytes()
        if key not in self._number_of:
            self._number_of[key] = len(self._units)
            self._units.append(units)
        return self._number_of[key]

    def numbers(self, axes: Sequence[Units | None]) -> tuple[int | None, int | None]:
        """Numbers of the tables of a tensor's first two axes; None for one that is whole."""
        rows, columns = (
            None if units is None else self.number(units) for units in (*axes, None)[:2]
        )
        return rows, columns

    def freeze(self) -> None:
        """Prepare `positions`; no table may be added behind."""
        kept = [round(float(self._share_of_unit[units].sum())) for units in self._units]
        lengths = [len(units) for units in self._units]
        numbers = np.arange(len(self._units))
        self._all = np.concatenate(self._units)
        self._table_of_position = np.repeat(numbers, lengths)
        self._expected = np.repeat(numbers, kept)
        self._starts = np.repeat(np.cumsum([0, *lengths[:-1]]), kept)
        ends = np.cumsum(kept).tolist()
        self.ranges = [
            slice(end - count, end) for end, count in zip(ends, kept, strict=True)
        ]  # of each table in what `positions` returns
        self._kept_units = np.ones(len(self._share_of_unit), dtype=np.bool_)

    def positions(self, mask: Tensor) -> Units | None:
        """Kept positions of all tables end to end, for a mask of the units, shape [units].

        None if the mask does not keep as many as the tables are made for.
        """
        if len(mask) != len(self._kept_units) - 1:
            return None
        self._kept_units[:-1] = mask.cpu().numpy()  # the last one stands for fixed channels
        found = np.flatnonzero(self._kept_units[self._all])
        if not np.array_equal(self._table_of_position[found], self._expected):
            return None
        positions: Units = found - self._starts
        return positions


class _Entries:
    """Kept entries of the packed blocks, from the positions along their axes.

    The entry of a matrix at a row and a column is ``first + row · columns + column``. The first
    two terms are found for the rows of all tensors at once, and columns are added matrix by
    matrix; vectors have none, so that a run of them is a single copy.

    Parameters
    ----------
    full, small
        Layouts of the full and of the small tensors.
    tables
        Numbers of the tables of each tensor's rows and columns.
    ranges
        Of the tables in what `_Tables.positions` returns.
    index_types
        Type of the entries of each block, an integer of 32 or 64 bits.
    """

    def __init__(
        self,
        full: Layout,
        small: Layout,
        tables: Mapping[str, tuple[int, int]],
        ranges: Sequence[slice],
        index_types: Sequence[torch.dtype],
    ) -> None:
        self._sizes, self._kinds = small.sizes, index_types
        # Half the memory and half the time of 64 bits.
        self._type = np.int32 if max(full.sizes, default=0) < 2**31 else np.int64
        sources, factors, firsts = [np.arange(0)], list[int](), list[int]()
        self._pieces: list[list[_Piece]] = [[] for _ in small.sizes]
        ordered = sorted(small.places.items(), key=lambda item: (item[1].block, item[1].first))
        for name, place in ordered:
            of_rows, of_columns = (ranges[table] for table in tables[name])
            origin, pieces = full.places[name], self._pieces[place.block]
            rows = slice(len(factors), len(factors) + place.rows)
            sources.append(np.arange(of_rows.start, of_rows.stop))
            factors += [origin.columns] * place.rows
            firsts += [origin.first] * place.rows
            if len(place.shape) > 1:
                pieces.append(_Piece(rows, of_columns, slice(place.first, place.end)))
            elif pieces and pieces[-1].columns is None and pieces[-1].rows.stop == rows.start:
                run = pieces.pop()
                joined = slice(run.rows.start, rows.stop), slice(run.entries.start, place.end)
                pieces.append(_Piece(joined[0], None, joined[1]))
            else:
                pieces.append(_Piece(rows, None, slice(place.first, place.end)))
        self._sources = np.concatenate(sources)
        self._factors: npt.NDArray[Any] = np.array(factors, dtype=self._type)
        self._firsts: npt.NDArray[Any] = np.array(firsts, dtype=self._type)

    def find(self, positions: Units) -> list[Tensor]:
        """Kept entries of each block, shape [entries]."""
        positions = positions.astype(self._type)
        rows = positions[self._sources] * self._factors + self._firsts
        found = []
        for size, pieces, kind in zip(self._sizes, self._pieces, self._kinds, strict=True):
            entries = np.empty(size, dtype=self._type)
            for piece in pieces:
                if piece.columns is None:
                    entries[piece.entries] = rows[piece.rows]
                else:
                    columns = positions[piece.columns]
                    out = entries[piece.entries].reshape(-1, len(columns))
                    np.add.outer(rows[piece.rows], columns, out=out)
            found.append(torch.from_numpy(entries).to(kind))
        return found


class _Piece(NamedTuple):
    """A matrix, or a run of vectors: rows and columns of it make these entries of its block."""

    rows: slice
    columns: slice | None
    entries: slice


class SubNetwork:
    """The smaller dense network of one vector of kept counts.

    It is built once per vector. For each mini-batch: `select` what is kept, `load` its values, run
    ``module``, go `backward`, take a step with an ordinary optimiser, `store` the values. Tensors
    that are always whole are shared with the full network.

    Parameters
    ----------
    network
        The full network; `load` reads from it and `store` writes to it.
    channels
        Its channel map.
    counts
        Kept units of each group.
    scaling
        ``"inverted"``: the inputs that a layer sums over are multiplied by width ÷ kept of the
        group they come from, which preserves the expected sum (inverted dropout; Srivastava et
        al., JMLR 15, 2014, section 10). ``"none"``: they are left as they are.
    workspace
        Where the packed full network and the memory of small tensors are; one of its own by
        default. Sub-networks that share one overwrite each other's values: what was loaded last
        is there.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: ChannelMap,
        counts: Sequence[int],
        scaling: str = "inverted",
        workspace: Workspace | None = None,
    ) -> None:
        if scaling not in SCALINGS:
            raise InputError(f"scaling '{scaling}': expected {' or '.join(SCALINGS)}")
        self.counts: KeptCounts = check_counts(counts, channels.groups)
        self._share_of_unit = shares_of_units(channels, self.counts)
        self._tables = _Tables(self._share_of_unit)
        self._scales = _Scales()
        self._workspace = workspace or Workspace(network, channels)
        self._alone = Structure(network) if workspace is None else None
        self._packed = self._workspace.packed
        self.full_layout = self._packed.layout

        full = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self.device = next(iter(full.values())).device
        small = self._small_tensors(full, channels)
        # deepcopy() uses what the memo holds as the copy of an object: so the network's structure
        # is copied with the small tensors in place of the large ones.
        memo: dict[int, Any] = {id(full[name]): small[name] for name in full}
        self.module: nn.Module = copied(network, memo)
        adopt_sizes(self.module, channels, self._share_of_unit)
        self.slots = tuple(
            Slot(name, full[name], small[name].detach(), *self._tables.numbers(axes))
            for name, axes in channels.axes.items()
            if name not in self.layout.places
        )
        self._parameters = tuple(self.module.parameters())
        self._whole = [(full[name], small[name]) for name in full if name not in channels.axes]
        self._settings = Settings(network, self.module)
        if scaling == "inverted":
            self._add_scaling(channels)
        tables = {
            name: self._tables_of_packed(axes, full[name].shape, channels.fixed)
            for name, axes in channels.axes.items()
            if name in self.layout.places
        }
        self._tables.freeze()
        self._entries = _Entries(
            self.full_layout, self.layout, tables, self._tables.ranges, self._packed.index_types
        )
        used = {table for slot in self.slots for table in (slot.rows, slot.columns)}
        used |= self._scales.tables
        self._used_tables = [table for table in used if table is not None]

    def __getstate__(self) -> Never:
        raise InputError(
            "a sub-network can't be copied: it shares memory with others; copy its "
            "DroppableNetwork, or its module where that is all"
        )

    def _small_tensors(self, full: Mapping[str, Tensor], channels: ChannelMap) -> dict[str, Tensor]:
        """Parameters and buffers of the small network: in the workspace unless they are whole."""
        shapes = {name: self._small_shape(full[name], axes) for name, axes in channels.axes.items()}
        self.layout = Layout(
            (name, full[name].dtype, shape, isinstance(full[name], nn.Parameter))
            for name, shape in shapes.items()
            if name in self.full_layout.places
        )
        self._blocks = self._workspace.blocks(self.layout.sizes)
        small = {}
        for name, tensor in full.items():
            if name in self.layout.places:
                values = self.layout.view(self._blocks, name)
            elif name in shapes:
                values = self._workspace.tensor(name, tensor, shapes[name])
            else:
                values = tensor.detach()
            is_parameter = isinstance(tensor, nn.Parameter)
            small[name] = nn.Parameter(values, tensor.requires_grad) if is_parameter else values
        return small

    def _small_shape(self, full: Tensor, axes: Sequence[Units | None]) -> tuple[int, ...]:
        shape = list(full.shape)
        for axis, units in enumerate(axes):
            if units is not None:
                shape[axis] = round(float(self._share_of_unit[units].sum()))
        return tuple(shape)

    def _tables_of_packed(
        self, axes: Sequence[Units | None], shape: Sequence[int], fixed: int
    ) -> tuple[int, int]:
        """Numbers of the tables of rows and columns; an axis that is whole has one as well."""
        rows, columns = (
            self._tables.number(np.full(size, fixed) if units is None else units)
            for units, size in zip((*axes, None)[:2], (*shape, 1)[:2], strict=True)
        )
        return rows, columns

    def _add_scaling(self, channels: ChannelMap) -> None:
        for name, factors, inputs in scaled_weights(channels, self._share_of_unit):
            weight = self.module.get_parameter(name)
            if isinstance(factors, float):
                self._scales.add(weight, factors)
            else:
                self._scales.add_by_column(weight, factors, self._tables.number(inputs))

    def select(self, mask: Tensor) -> Kept:
        """What a mask of the units keeps; shape [units].

        Raises
        ------
        VectorError
            If the mask does not keep this sub-network's counts.
        """
        found = self._tables.positions(mask)
        if found is None:
            raise wrong_mask(mask, self.counts)
        positions = {
            table: torch.from_numpy(found[self._tables.ranges[table]])
            for table in self._used_tables
        }
        return Kept(
            [entries.to(self.device) for entries in self._entries.find(found)],
            {table: along.to(self.device) for table, along in positions.items()},
        )

    @torch.no_grad()
    def load(self, kept: Kept) -> None:
        """Fill the small tensors from the kept parts of the full ones, ready for a forward pass.

        Also shares anew what is whole, and follows the full network's layers: their modes, their
        plain settings such as dropout rates, and which parameters are trained.

        Raises
        ------
        InputError
            If layers, parameters or buffers of the full network were exchanged.
        """
        if not (self._workspace.is_current and (self._alone is None or self._alone.is_current())):
            raise InputError(
                "layers, parameters or buffers of the network were exchanged: expected those that "
                "this sub-network was built from; get a new one from the DroppableNetwork"
            )
        self._packed.refresh()
        self.reload(kept)
        for full, small in self._whole:
            if small.data_ptr() != full.data_ptr():
                small.data = full.detach()
        self.follow()
        self._scales.apply(kept)

    @torch.no_grad()
    def go_on(self, kept: Kept) -> None:
        """Make the small tensors, as `backward` and a step left them, ready for a forward pass.

        In place of `store` and `load`, where the full network was left alone since. Modes and
        settings of layers are those of the last `load`.
        """
        self._scales.apply(kept)

    def follow(self) -> None:
        """Follow the full network's layers, as `load` does, without filling any tensor."""
        self._settings.follow()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate; then parameters and gradients are those of the weights before scaling.

        Scaled are the weights, by the factors of their inputs: the same sums as with scaled
        inputs, for the price of a product over the weights. A copy of a weight is put back rather
        than the product divided, because that is exact.
        """
        loss.backward()
        with torch.no_grad():
            self._scales.apply_to_gradients()
            self._scales.undo()

    @torch.no_grad()
    def reload(self, kept: Kept) -> None:
        """Fill the small tensors again without scaling, as `backward` leaves them.

        For a step of the optimiser after another sub-network, which shares the memory, was loaded.
        """
        gather(self._packed.blocks, kept.entries, self._blocks)
        for slot in self.slots:
            slot.gather(slot.full, kept, out=slot.small)

    def unscale(self) -> None:
        """Have the weights as they are without scaling, also where no `backward` came."""
        self._scales.undo()

    def clear_gradients(self) -> None:
        """Let go of the gradients of all parameters, also of those that no optimiser holds.

        ``zero_grad`` of a module does it, too, but looks for its parameters each time.
        """
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def store(self, kept: Kept) -> None:
        """Write the small tensors back to the kept parts of the full ones."""
        scatter(self._blocks, kept.entries, self._packed.blocks)
        for slot in self.slots:
            slot.scatter(slot.small, slot.full, kept)


class Workspace:
    """Memory that the sub-networks of one network share, and the network's packed tensors.

    It holds one set of small tensors, as large as those of the largest sub-network, whatever the
    number of sub-networks.
    """

    def __init__(self, network: nn.Module, channels: ChannelMap) -> None:
        self.is_current = True
        """Whether the network still has the tensors that it had; who shares it says when not."""
        self.packed = PackedNetwork(network, channels)
        layout = self.packed.layout
        self._blocks = layout.blocks([0] * len(layout.sizes), self.packed.device)
        self._tensors: dict[str, Tensor] = {}

    def blocks(self, sizes: Sequence[int]) -> list[Tensor]:
        """The first entries of each block, as many as given."""
        return first_of_growing(sizes, self._blocks)

    def tensor(self, name: str, full: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape, in the memory format of ``full``."""
        if name not in self._tensors:
            self._tensors[name] = full.new_empty(0)
        (values,) = first_of_growing([math.prod(shape)], [self._tensors[name]])
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        channels_last = formats.get(full.dim()) if not full.is_contiguous() else None
        strides = torch.empty(
            tuple(shape), device="meta", memory_format=channels_last or torch.contiguous_format
        ).stride()
        return values.as_strided(tuple(shape), strides)


class _Scales:
    """Factors of weights, for all inputs of a layer or for each."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._factors: list[float] = []
        self._by_column: list[tuple[Tensor, Tensor, int]] = []
        self._columns: list[Tensor] = []  # the factors of the inputs that are kept now
        self._plain: list[Tensor] = []  # copies of the weights while they are scaled

    @property
    def tables(self) -> set[int]:
        """The tables of positions that `apply` needs."""
        return {table for _, _, table in self._by_column}

    @property
    def _scaled(self) -> list[Tensor]:
        return [*self._weights, *(weight for weight, _, _ in self._by_column)]

    def add(self, weight: nn.Parameter, factor: float) -> None:
        """Multiply a weight by one factor."""
        self._weights.append(weight)
        self._factors.append(factor)

    def add_by_column(self, weight: nn.Parameter, factors: Tensor, table: int) -> None:
        """Multiply each column of a weight by the factor of its position in the table."""
        self._by_column.append((weight, factors.to(weight.device), table))

    def apply(self, kept: Kept) -> None:
        """Multiply the weights, of which copies are kept until `undo`."""
        self._plain = [weight.clone() for weight in self._scaled]
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)
        self._columns = [
            factors[kept.positions[table]].reshape(1, -1, *[1] * (weight.dim() - 2)).to(weight)
            for weight, factors, table in self._by_column
        ]
        for (weight, _, _), factors in zip(self._by_column, self._columns, strict=True):
            weight.mul_(factors)

    @torch.no_grad()
    def undo(self) -> None:
        """Put the copies back."""
        if self._plain:
            torch._foreach_copy_(self._scaled, self._plain)
        self._plain = []

    def apply_to_gradients(self) -> None:
        """Turn gradients with respect to products into those with respect to weights."""
        scaled = [
            (weight.grad, factor)
            for weight, factor in zip(self._weights, self._factors, strict=True)
            if weight.grad is not None
        ]
        if scaled:
            torch._foreach_mul_([grad for grad, _ in scaled], [factor for _, factor in scaled])
        for (weight, _, _), factors in zip(self._by_column, self._columns, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(factors)
