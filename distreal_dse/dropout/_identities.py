"""Channel identities: which channels belong together, and where they lie in a traced tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distreal_dse.dropout._channels import Units

# The identity of everything that is always kept. Merging channels with it keeps them whole.
FIXED = 0


class Identities:
    """Union-find over channel identities; merged identities are kept or dropped together."""

    def __init__(self) -> None:
        self._parents = [FIXED]

    def new(self, count: int) -> Tensor:
        """Fresh identities, shape [count]."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def root(self, identity: int) -> int:
        """The smallest identity that is merged with this one, so that `FIXED` stays a root."""
        while self._parents[identity] != identity:
            self._parents[identity] = self._parents[self._parents[identity]]
            identity = self._parents[identity]
        return identity

    def merge(self, left: Tensor, right: Tensor) -> None:
        """Tie channels pairwise, shapes alike."""
        for one, other in zip(left.flatten().tolist(), right.flatten().tolist(), strict=True):
            first, second = sorted((self.root(one), self.root(other)))
            self._parents[second] = first

    def keep(self, identities: Tensor) -> None:
        """Make sure that these channels are never dropped."""
        self.merge(identities, torch.full_like(identities, FIXED))

    def roots(self, identities: Tensor) -> Units:
        """The root of each identity, shape [identities]."""
        roots = [self.root(identity) for identity in identities.flatten().tolist()]
        return np.array(roots, dtype=np.int64)


@dataclass(frozen=True)
class Traced:
    """A tensor of the traced network: its shape, and the identity of the channel of each element.

    ``identities`` has the tensor's axes, of size one where the identity does not change along an
    axis, so that a map of any size takes the memory of its channels.
    """

    identities: Tensor
    shape: tuple[int, ...]

    @classmethod
    def fixed(cls, shape: Sequence[int]) -> Traced:
        """A tensor without channels that could be dropped."""
        return cls(torch.full([1] * len(shape), FIXED), tuple(shape))

    @classmethod
    def along_axis(cls, identities: Tensor, axis: int, shape: Sequence[int]) -> Traced:
        """A tensor whose channels, identities of shape [channels], lie along one axis."""
        sizes = [1] * len(shape)
        sizes[axis] = -1
        return cls(identities.reshape(sizes), tuple(shape))

    @classmethod
    def of(cls, identities: Tensor) -> Traced:
        """A tensor of the shape of ``identities``, reduced to what changes."""
        reduced = identities
        for axis, size in enumerate(identities.shape):
            first = reduced.narrow(axis, 0, min(size, 1))
            if size > 1 and (identities.stride(axis) == 0 or bool((reduced == first).all())):
                reduced = first
        return cls(reduced, tuple(identities.shape))

    @property
    def varying(self) -> tuple[int, ...]:
        """The axes along which the identity changes: where droppable channels lie."""
        return tuple(axis for axis, size in enumerate(self.identities.shape) if size > 1)

    @property
    def full(self) -> Tensor:
        """The identity of each element, a view of the tensor's shape."""
        return self.identities.expand(self.shape)

    def channels(self, axis: int) -> Tensor | None:
        """Identities along ``axis``; None where they change along another one."""
        if any(varying != axis for varying in self.varying):
            return None
        return self.identities.flatten().expand(self.shape[axis])


def reshape(traced: Traced, shape: Sequence[int]) -> tuple[Traced, list[int]] | None:
    """Identities behind a row-major reshape, and the axes of the result that hold channels.

    None where channels are split over several axes: the kept ones would not fill a grid.
    """
    varying = set(traced.varying)
    before, after = [1] * len(traced.shape), [1] * len(shape)
    holding: list[int] = []
    for sources, targets in _blocks(traced.shape, shape):
        if varying.isdisjoint(sources):
            continue
        wide = [axis for axis in targets if shape[axis] > 1]
        if len(wide) > 1:
            return None
        holding += wide
        for axis in sources:
            before[axis] = traced.shape[axis]
        for axis in targets:
            after[axis] = shape[axis]
    return Traced(traced.identities.expand(before).reshape(after), tuple(shape)), holding


def _blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of axes of two shapes that hold the same elements."""
    source = target = 0
    while source < len(before) and target < len(after):
        sources, targets = [source], [target]
        left, right = before[source], after[target]
        while left != right:
            if left < right:
                source += 1
                sources.append(source)
                left *= before[source]
            else:
                target += 1
                targets.append(target)
                right *= after[target]
        yield sources, targets
        source, target = source + 1, target + 1
