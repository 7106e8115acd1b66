"""Peak memory of a training step, from the kept counts, in microseconds.

A step makes the same tensors whatever the vector; only their sizes differ. Each size is a product
of numbers of channels (of one axis for activations, of two for weights), and each number of
channels is a sum over groups of kept counts. So a few steps are watched, every axis of every tensor
is told by its lengths in them, and the peak of any vector is the largest of some sums of products.

References
----------
What has to be kept for the backward pass, and when it goes: Chen, Xu, Zhang, Guestrin: Training
Deep Nets with Sublinear Memory Cost, 2016, arXiv 1604.06174, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from distreal_dse.cost._allocations import Timeline, timeline_of
from distreal_dse.cost._macs import positions_per_group
from distreal_dse.cost._rehearsal import Rehearsal
from distreal_dse.dropout import ChannelMap, DroppableNetwork, KeptCounts
from distreal_dse.errors import StudyError
from distreal_dse.study import Study
from distreal_dse.support.seeding import derive_seed

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Vectors that are watched: three tell groups of 8 channels or more apart, narrow ones take more.
WATCHED = (3, 4, 6, 8)
DRAWS = 200
# Bytes of an index of a packed entry: 4 where an entry is one number, 8 where it is a filter's taps
# for one input (see `distreal_dse.dropout`).
INDEX_BYTES = {True: 4, False: 8}
KNOWN_VECTORS = 4096


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of tensors at the peak of a training step, by what they are.

    Parameters
    ----------
    network
        Whatever the vector: the full network's parameters, buffers and optimiser state, and the
        mini-batch.
    subnetwork
        The kept filters' parameters, buffers and optimiser state, and where they lie.
    step
        What else there is at once: activations kept for backward, gradients, intermediate results.
    """

    network: int
    subnetwork: int
    step: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.network + self.subnetwork + self.step


class MemoryCost:
    """Peak memory of a training step of a network as a function of its kept counts.

    Counted are the bytes of all tensors that `DropoutTrainer.step` has at once, at its peak, once
    the vector was trained before: parameters, buffers and optimiser state of the full network and
    of the sub-network, gradients, what autograd keeps for backward, and results in between. Not
    counted are what lies within an operation (a convolution may ask for a workspace), and Python
    and PyTorch themselves. A trainer that has trained a larger sub-network keeps that one's memory.

    Parameters
    ----------
    study
        Gives the loss, the optimiser and the masks.
    network
        Its network, on the device that is meant; it stays as it is.
    input_shape
        Of one sample.
    batch_size
        Samples per mini-batch; None for the study's.

    Raises
    ------
    InputError
        If the batch size is out of range.
    StudyError
        If the study's code fails, or its steps differ in more than sizes.
    """

    def __init__(
        self,
        study: Study,
        network: DroppableNetwork,
        input_shape: Sequence[int],
        batch_size: int | None = None,
    ) -> None:
        self.batch_size = study.batch_size if batch_size is None else batch_size
        channels = network.channels
        self._widths = channels.widths
        rehearsal = Rehearsal(study, network, input_shape, self.batch_size)
        axes = _Axes(channels)
        watched = axes.telling_vectors()
        timelines, small = [], []
        for counts in watched:
            rehearsal.warm_up(counts)
            timelines.append(timeline_of(partial(rehearsal.step, counts)))
            small.append(_small_tensors(rehearsal.network, counts))
        rehearsal.warm_up(self._widths)
        full_step = timeline_of(partial(rehearsal.step, self._widths)).peak
        whole = _bytes_of_whole(rehearsal)
        self.full_parts = MemoryParts(whole, 0, full_step)
        """Of the full network, whose steps need no sub-network."""

        terms = _Terms(axes, watched)
        subnetwork = _subnetwork_sums(terms, rehearsal, small)
        summits = _summit_sums(terms, timelines, study.name)
        self.is_exact = terms.worst == 1.0
        """Whether every axis was told: else some are estimated, from above in what was watched."""
        self._functions, self._factors = axes.functions, terms.factors()
        self._subnetwork = _dense([subnetwork], len(terms))[0]
        self._summits = _undominated(_dense(summits, len(terms)))
        self._whole = whole
        self._known: dict[KeptCounts, int] = {}

    @property
    def full(self) -> int:
        """Bytes of the full network."""
        return self.full_parts.peak

    def peak(self, counts: Sequence[int]) -> int:
        """Bytes of one vector."""
        counts = tuple(counts)
        if counts not in self._known:
            if len(self._known) >= KNOWN_VECTORS:
                self._known.clear()
            self._known[counts] = int(self.peak_many([counts])[0])
        return self._known[counts]

    def peak_many(self, counts: Sequence[Sequence[int]] | Ints) -> Ints:
        """Bytes of each of ``n`` vectors, shape [n]."""
        products = self._products(counts)
        peaks = products @ self._subnetwork + (products @ self._summits.T).max(1) + self._whole
        whole = (np.asarray(counts) == self._widths).all(1)
        found: Ints = np.where(whole, self.full, np.rint(peaks).astype(np.int64))
        return found

    def parts(self, counts: Sequence[int]) -> MemoryParts:
        """What the bytes of one vector are."""
        if tuple(counts) == self._widths:
            return self.full_parts
        products = self._products([counts])[0]
        subnetwork = round(float(products @ self._subnetwork))
        return MemoryParts(self._whole, subnetwork, self.peak(counts) - self._whole - subnetwork)

    def _products(self, counts: Sequence[Sequence[int]] | Ints) -> Floats:
        """The products of numbers of channels that sizes are made of, shape [n, terms]."""
        extended = np.ones((len(counts), len(self._widths) + 1))
        extended[:, :-1] = counts
        lengths = extended @ self._functions.T
        found: Floats = lengths[:, self._factors].prod(axis=2)
        return found


class _Axes:
    """How long an axis of a tensor can be: numbers of channels as sums over kept counts.

    ``functions`` are distinct rows [functions, groups + 1]; the first one is 1, and the last column
    counts channels that are always kept.
    """

    def __init__(self, channels: ChannelMap) -> None:
        self._widths = np.array(channels.widths)
        layers = channels.layers
        units = [
            *(layer.outputs for layer in layers),
            *(layer.inputs for layer in layers),
            *(one for axes in channels.axes.values() for one in axes if one is not None),
        ]
        # Axes are told by what they are multiples of: half of a channel group is one of them.
        single = np.eye(len(channels.widths) + 1)[::-1]
        rows = np.vstack([single, positions_per_group(channels, units)])
        _, places = np.unique(_normed(rows), axis=0, return_index=True)
        self.functions: Floats = rows[np.sort(places)]
        self._number = {row.tobytes(): place for place, row in enumerate(self.functions)}
        self._channels = channels

    def values(self, counts: Sequence[KeptCounts]) -> Floats:
        """The length of each function for each vector, [functions, vectors]."""
        extended = np.ones((len(counts), len(self._widths) + 1))
        extended[:, :-1] = counts
        found: Floats = self.functions @ extended.T
        return found

    def telling_vectors(self) -> list[KeptCounts]:
        """Draw vectors for which no two functions are multiples of each other, as far as can be."""
        randomness = np.random.default_rng(derive_seed(0, "memory vectors") % 2**32)
        best: tuple[int, list[KeptCounts]] = (-1, [])
        for size in WATCHED:
            for _ in range(DRAWS):
                # Of a quarter of the channels on, so that operations do what they do at work.
                low = np.maximum(self._widths // 4, 1)
                high = np.maximum(self._widths, low + 1)
                drawn = randomness.integers(low, high, (size, len(self._widths)))
                vectors = [tuple(row) for row in drawn.tolist() if any(row != self._widths)]
                if not vectors:
                    continue
                told = len(np.unique(_normed(self.values(vectors)), axis=0))
                best = max(best, (told, vectors), key=lambda one: one[0])
                if told == len(self.functions):
                    return vectors
        return best[1]


class _Terms:
    """The products of functions that have come up so far, each with a number."""

    def __init__(self, axes: _Axes, watched: Sequence[KeptCounts]) -> None:
        self._values = axes.values(watched)
        self._numbers: dict[tuple[int, ...], int] = {(): 0}
        self._known: dict[tuple[int, ...], tuple[float, int]] = {}
        self.worst = 1.0
        """How far lengths are from a multiple of their function; 1 where all are one."""

    def __len__(self) -> int:
        return len(self._numbers)

    def size(self, unit: int, shapes: Sequence[Sequence[int]]) -> tuple[int, float]:
        """Tell a tensor's size from its shapes for each of the watched vectors.

        Returns
        -------
        number, factor
            The size is the product of this number times the factor, in bytes.
        """
        factor, functions = float(unit), []
        for lengths in zip(*shapes, strict=True):
            multiple, function = self._axis(lengths)
            factor *= multiple
            if function:
                functions.append(function)
        key = tuple(sorted(functions))
        return self._numbers.setdefault(key, len(self._numbers)), factor

    def factors(self) -> Ints:
        """Functions of each product, [terms, most]; the first function, 1, fills what is left."""
        most = max(1, *map(len, self._numbers))
        return np.array([[*key, *[0] * (most - len(key))] for key in self._numbers])

    def _axis(self, lengths: tuple[int, ...]) -> tuple[float, int]:
        """Which function an axis is a multiple of, and how many times it is that."""
        if lengths not in self._known:
            ratios = np.array(lengths) / self._values
            spreads = ratios.max(1) / ratios.min(1)
            function = int(np.argmin(np.round(spreads, 9)))
            self.worst = max(self.worst, round(float(spreads[function]), 9))
            self._known[lengths] = float(ratios[function].max()), function
        return self._known[lengths]


def _small_tensors(network: DroppableNetwork, counts: KeptCounts) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters and buffers that a sub-network has for itself."""
    module = network.subnetwork(counts).module
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tuple(tensors[name].shape) for name in network.channels.axes}


def _subnetwork_sums(
    terms: _Terms, rehearsal: Rehearsal, small: Sequence[dict[str, tuple[int, ...]]]
) -> dict[int, float]:
    """What a sub-network's values, optimiser state and places take, by product.

    ``small`` are shapes of its tensors for each of the watched vectors.
    """
    network = rehearsal.network
    full = {**dict(network.module.named_parameters()), **dict(network.module.named_buffers())}
    packed = network.subnetwork(network.channels.widths).layout.places
    sums: dict[int, float] = {}
    for name in network.channels.axes:
        tensor = full[name]
        state = rehearsal.optimizer.state.get(tensor, {}).values()
        alike = [one for one in state if isinstance(one, Tensor) and one.shape == tensor.shape]
        unit = sum(one.element_size() for one in (tensor, *alike))
        product, factor = terms.size(unit, [shapes[name] for shapes in small])
        sums[product] = sums.get(product, 0.0) + factor
        if name in packed:
            taps = tensor.shape[2:].numel()
            product, factor = terms.size(INDEX_BYTES[taps == 1], [s[name][:2] for s in small])
            sums[product] = sums.get(product, 0.0) + factor
    return sums


def _bytes_of_whole(rehearsal: Rehearsal) -> int:
    """Bytes of the full network, of its optimiser's state, and of a mini-batch."""
    module = rehearsal.network.module
    states = (value for state in rehearsal.optimizer.state.values() for value in state.values())
    tensors = [*module.parameters(), *module.buffers(), *states]
    kept = [one for one in tensors if isinstance(one, Tensor)]
    return sum(one.nbytes for one in (*kept, rehearsal.inputs, rehearsal.targets))


def _summit_sums(
    terms: _Terms, timelines: Sequence[Timeline], study: str
) -> list[dict[int, float]]:
    """Bytes of all tensors that there are at each summit of a step, by product."""
    first = timelines[0]
    kinds = [[(one.unit, len(one.shape)) for one in line.allocations] for line in timelines]
    if any(one != kinds[0] for one in kinds):
        raise StudyError(
            f"memory of study {study}: expected training steps that make the same tensors for "
            "every vector, found others; does the network's forward() depend on its sizes?"
        )
    allocations = zip(*(line.allocations for line in timelines), strict=True)
    sizes = [terms.size(same[0].unit, [one.shape for one in same]) for same in allocations]
    found = []
    for live in first.summits():
        sums: dict[int, float] = {}
        for number in live:
            product, factor = sizes[number]
            sums[product] = sums.get(product, 0.0) + factor
        found.append(sums)
    return found


def _dense(sums: Sequence[dict[int, float]], terms: int) -> Floats:
    """Sums as rows, [sums, terms]."""
    rows = np.zeros((len(sums), terms))
    for row, one in zip(rows, sums, strict=True):
        row[[*one.keys()]] = [*one.values()]
    return rows


def _undominated(rows: Floats) -> Floats:
    """Leave out rows that another one is never below: products are positive."""
    rows = np.unique(rows, axis=0)
    rows = rows[np.argsort(-rows.sum(1))]
    kept: list[Floats] = []
    for row in rows:
        if not any((row <= one).all() for one in kept):
            kept.append(row)
    return np.array(kept)


def _normed(rows: Floats) -> Floats:
    """Rows that are multiples of each other made equal, up to rounding."""
    found: Floats = np.round(rows / rows.max(axis=1, keepdims=True), 9)
    return found
