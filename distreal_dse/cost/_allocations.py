"""Which tensors a piece of code makes, and how long each of them lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Allocation:
    """Memory of a new tensor: ``unit`` bytes × the product of ``shape``."""

    shape: tuple[int, ...]
    unit: int

    @property
    def bytes(self) -> int:
        """How much it is."""
        return self.unit * torch.Size(self.shape).numel()


@dataclass
class Timeline:
    """Tensors in the order in which they are made and go.

    Parameters
    ----------
    allocations
        All of them, as they are made.
    order
        ``(number, True)`` where one is made, ``(number, False)`` where its memory is free again.
    """

    allocations: list[Allocation] = field(default_factory=list)
    order: list[tuple[int, bool]] = field(default_factory=list)

    def summits(self) -> list[frozenset[int]]:
        """Return which tensors there are whenever one goes after one was made, and at the end."""
        found, live, rises = [], set[int](), False
        for number, made in self.order:
            if made:
                live.add(number)
            else:
                if rises:
                    found.append(frozenset(live))
                live.discard(number)
            rises = made
        return [*found, frozenset(live)]

    @property
    def peak(self) -> int:
        """Bytes of all tensors that there are at once, at most."""
        sizes = [one.bytes for one in self.allocations]
        return max(sum(sizes[number] for number in live) for live in self.summits())


def timeline_of(code: Callable[[Callable[[], None]], None]) -> Timeline:
    """Run code, and note the memory of each tensor that it makes.

    Parameters
    ----------
    code
        Is given a function to call; what it makes from then on counts.

    Notes
    -----
    Seen is what operations of PyTorch return, forward, backward and in the optimiser, and what
    autograd keeps of it; not what lies within an operation, such as the workspace of a convolution.
    """
    tracker = _Tracker()
    with tracker:
        code(tracker.begin)
    tracker.is_on = False
    return tracker.timeline


class _Tracker(TorchDispatchMode):
    """Hears of every operation below autograd; a weak reference tells when memory is free."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline = Timeline()
        self.is_on = False
        self._live: dict[int, int] = {}  # by the address of a storage's implementation

    def begin(self) -> None:
        """Note what is made from now on."""
        self.is_on = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if not self.is_on:
            return outputs
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if _is(one)}
        for one in tree_leaves(outputs):
            if _is(one) and one.untyped_storage()._cdata not in given:
                self._note(one)
        return outputs

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live or not size:
            return
        shape, unit = tuple(tensor.shape), tensor.element_size()
        if torch.Size(shape).numel() * unit != size:
            shape, unit = (size,), 1
        number = len(self.timeline.allocations)
        self.timeline.allocations.append(Allocation(shape, unit))
        self.timeline.order.append((number, True))
        self._live[key] = number
        weakref.finalize(storage, partial(self._free, key, number)).atexit = False

    def _free(self, key: int, number: int) -> None:
        if self.is_on:
            del self._live[key]
            self.timeline.order.append((number, False))


def _is(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
