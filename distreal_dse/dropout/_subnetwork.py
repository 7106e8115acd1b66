"""Sub-networks: physically smaller dense copies of a network, filled from its kept filters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse.dropout._channels import ChannelMap, Units
from distreal_dse.dropout._operations import CONVOLUTIONS
from distreal_dse.dropout._sizes import adopt_sizes
from distreal_dse.dropout._vector import KeptCounts, check_counts
from distreal_dse.errors import InputError, VectorError

SCALINGS = ("inverted", "none")


class Slot(NamedTuple):
    """A tensor of the full network, its smaller copy, and the tables of its first two axes.

    The full tensor is the network's own, not an alias: its storage may be exchanged by others.
    """

    name: str
    full: Tensor
    small: Tensor
    rows: int | None
    columns: int | None

    def gather(self, full: Tensor, kept: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Kept part of ``full``, a tensor laid out as the slot's full one."""
        if self.rows is None:
            assert self.columns is not None
            return torch.index_select(full, 1, kept[self.columns], out=out)
        if self.columns is None:
            return torch.index_select(full, 0, kept[self.rows], out=out)
        return torch.index_select(
            full.index_select(0, kept[self.rows]), 1, kept[self.columns], out=out
        )

    def scatter(self, small: Tensor, full: Tensor, kept: Sequence[Tensor]) -> None:
        """Write ``small`` to the kept part of ``full``; what was dropped stays as it is."""
        if self.rows is None:
            assert self.columns is not None
            full.index_copy_(1, kept[self.columns], small)
        elif self.columns is None:
            full.index_copy_(0, kept[self.rows], small)
        else:
            full[kept[self.rows][:, None], kept[self.columns]] = small


class _Tables:
    """Kept positions along axes, found for all distinct axes at once."""

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
        lengths = torch.tensor([len(units) for units in self._units])
        self._kept = [round(float(self._share_of_unit[units].sum())) for units in self._units]
        numbers = torch.arange(len(self._units))
        self._all = torch.from_numpy(np.concatenate(self._units))
        self._table_of_position = numbers.repeat_interleave(lengths)
        self._expected = numbers.repeat_interleave(torch.tensor(self._kept))
        self._starts = (lengths.cumsum(0) - lengths)[self._expected]

    def positions(self, mask: Tensor) -> Sequence[Tensor] | None:
        """Kept positions by table, for a mask of the units, shape [units].

        None if the mask does not keep as many as the tables are made for.
        """
        extended = torch.cat([mask, mask.new_ones(1)])  # the last one stands for fixed channels
        found = extended[self._all].nonzero().squeeze(1)
        if not torch.equal(self._table_of_position[found], self._expected):
            return None
        kept: Sequence[Tensor] = (found - self._starts).split(self._kept)
        return kept


class SubNetwork:
    """The smaller dense network of one vector of kept counts.

    It is built once per vector. For each mini-batch: `select` the kept positions, `load` their
    values, train ``module`` with an ordinary optimiser, `store` the values. Tensors that are
    always whole are shared with the full network.

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
    """

    def __init__(
        self,
        network: nn.Module,
        channels: ChannelMap,
        counts: Sequence[int],
        scaling: str = "inverted",
    ) -> None:
        self.counts: KeptCounts = check_counts(counts, channels.groups)
        shares = np.divide([*self.counts, 1], [*channels.widths, 1])
        self._share_of_unit = shares[channels.group_of_unit()]
        self._tables = _Tables(self._share_of_unit)
        self._scales: list[tuple[_ScaledForward, Tensor, int]] = []

        full = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self.device = next(iter(full.values())).device
        small = {name: self._small(t, channels.axes.get(name, ())) for name, t in full.items()}
        # deepcopy() uses what the memo holds as the copy of an object: so the network's structure
        # is copied with the small tensors in place of the large ones.
        memo: dict[int, Any] = {id(full[name]): small[name] for name in full}
        self.module: nn.Module = copy.deepcopy(network, memo)
        adopt_sizes(self.module, channels, self._share_of_unit)
        self.slots = tuple(
            Slot(name, full[name], small[name].detach(), *self._tables.numbers(axes))
            for name, axes in channels.axes.items()
        )
        self._whole = [(full[name], small[name]) for name in full if name not in channels.axes]
        self._modules = list(zip(network.modules(), self.module.modules(), strict=True))
        if scaling not in SCALINGS:
            raise InputError(f"scaling '{scaling}': expected {' or '.join(SCALINGS)}")
        if scaling == "inverted":
            self._add_scaling(channels)
        self._tables.freeze()

    def _small(self, full: Tensor, axes: Sequence[Units | None]) -> Tensor:
        shape = list(full.shape)
        for axis, units in enumerate(axes):
            if units is not None:
                shape[axis] = round(float(self._share_of_unit[units].sum()))
        small = full.detach().new_empty(shape) if axes else full.detach()
        if isinstance(full, nn.Parameter):
            return nn.Parameter(small, requires_grad=full.requires_grad)
        return small

    def _add_scaling(self, channels: ChannelMap) -> None:
        for layer in channels.layers:
            factors = 1 / self._share_of_unit[layer.inputs]
            if (factors == 1).all():
                continue
            scaled = _ScaledForward(self.module.get_submodule(layer.name))
            if (factors == factors[0]).all():
                scaled.factor = float(factors[0])
            else:
                table = self._tables.number(layer.inputs)
                self._scales.append((scaled, torch.tensor(factors), table))

    def select(self, mask: Tensor) -> list[Tensor]:
        """Kept positions along each distinct axis, from a mask of the units, shape [units].

        Raises
        ------
        VectorError
            If the mask does not keep this sub-network's counts.
        """
        kept = self._tables.positions(mask)
        if kept is None:
            raise VectorError(
                f"mask keeps {int(mask.sum())} of {len(mask)} units: expected {self.counts} of "
                "the channel groups, the kept counts of the vector; mend the mask policy"
            )
        for scale, factors, table in self._scales:
            scale.factor = scale.shaped(factors[kept[table]])
        return [positions.to(self.device) for positions in kept]

    @torch.no_grad()
    def load(self, kept: Sequence[Tensor]) -> None:
        """Fill the small tensors from the kept positions of the full ones.

        Also shares anew what is whole, and puts each layer into the mode of the full network's.
        """
        for slot in self.slots:
            slot.gather(slot.full, kept, out=slot.small)
        for full, small in self._whole:
            small.data = full.detach()
        for module, copied in self._modules:
            copied.training = module.training

    @torch.no_grad()
    def store(self, kept: Sequence[Tensor]) -> None:
        """Write the small tensors back to the kept positions of the full ones."""
        for slot in self.slots:
            slot.scatter(slot.small, slot.full, kept)


class _ScaledForward:
    """Makes a layer multiply its input by a factor (per channel).

    The factor is put into the weight, in the graph: the same sums and gradients, for the price of
    a product over the weight instead of one over the activations.
    """

    def __init__(self, module: nn.Module) -> None:
        assert isinstance(module, (*CONVOLUTIONS, nn.Linear))
        self._module = module
        self._trailing = [1] * len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else []
        self.factor: float | Tensor = 1.0
        module.forward = self  # type: ignore[method-assign,assignment]

    def shaped(self, factors: Tensor) -> Tensor:
        """Factors of the input channels of one convolution group, as they fit the weight."""
        return factors.reshape(1, -1, *self._trailing).to(self._module.weight)

    def __call__(self, inputs: Tensor) -> Tensor:
        weight = self._module.weight * self.factor
        if isinstance(self._module, nn.Linear):
            return functional.linear(inputs, weight, self._module.bias)
        outputs: Tensor = self._module._conv_forward(inputs, weight, self._module.bias)
        return outputs
