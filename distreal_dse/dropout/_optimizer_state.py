"""The optimiser's state of kept filters: cut out before a step, put back after it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.optim import Optimizer

from distreal_dse.dropout._optimizers import elementwise_kind
from distreal_dse.dropout._packing import Layout, first, first_of_growing, gather, scatter
from distreal_dse.dropout._subnetwork import Kept, Slot, SubNetwork

# Attributes of an optimiser that hold what its step() calls before and after.
STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class PackedState:
    """One kind of state (``"momentum_buffer"``, say) of all packed parameters, end to end.

    Holds that of the full network, and memory for that of one sub-network.

    Parameters
    ----------
    layout
        Of the full network's packed tensors.
    device
        Where they are.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self._layout = layout
        self._views: dict[str, Tensor] = {}
        self.blocks = layout.blocks(layout.parameter_sizes, device)
        self._small_blocks = layout.blocks([0] * len(layout.parameter_sizes), device)

    def small_blocks(self, sizes: Sequence[int]) -> list[Tensor]:
        """Memory for the state of a sub-network with so many entries in each block."""
        return first_of_growing(sizes, self._small_blocks)

    def view(self, name: str) -> Tensor:
        """The state of one parameter of the full network."""
        if name not in self._views:
            self._views[name] = self._layout.view(self.blocks, name)
        return self._views[name]

    def is_left(self, name: str, value: object) -> bool:
        """Whether the optimiser has another ``value`` now than the `view` that it was given."""
        return name in self._views and value is not self._views[name]


class _Parameter(NamedTuple):
    """A parameter of the full network and the small one; whole if neither packed nor in a slot."""

    name: str
    full: Tensor
    small: Tensor
    packed: bool
    slot: Slot | None


class SmallOptimizer:
    """An optimiser of a sub-network that goes on with the state of the full network's optimiser.

    Parameters
    ----------
    full
        The full network's optimiser, over parameters of ``names``.
    names
        Name of each of the full network's parameters, by its ``id``.
    small
        The sub-network.
    packed
        Packed state of the full optimiser by kind; those that are missing are added when the
        optimiser makes them. All sub-networks of one optimiser share it.
    """

    def __init__(
        self,
        full: Optimizer,
        names: Mapping[int, str],
        small: SubNetwork,
        packed: dict[str, PackedState],
    ) -> None:
        self._full, self._packed = full, packed
        # Not the sub-network itself, so that it can be forgotten while this optimiser is known.
        self._layout, self._full_layout = small.layout, small.full_layout
        self._device = small.device
        self._views: dict[tuple[str, str], Tensor] = {}
        self._kinds: set[str] = set()  # of packed state
        self._of_full: _Contents | None = None
        self._of_small: _Contents | None = None
        slots = {slot.name: slot for slot in small.slots}
        named = dict(small.module.named_parameters())
        groups = [
            {**group, "params": [named[names[id(p)]] for p in group["params"]]}
            for group in full.param_groups
        ]
        kind = elementwise_kind(full)
        known = inspect.signature(kind).parameters
        self._optimizer = kind(groups, **{k: v for k, v in full.defaults.items() if k in known})
        for hooks in STEP_HOOKS:  # the very same, as they may be added and removed at any time
            setattr(self._optimizer, hooks, getattr(full, hooks))
        self._parameters = [
            _Parameter(name, parameter, named[name], name in small.layout.places, slots.get(name))
            for group in full.param_groups
            for parameter in group["params"]
            for name in (names[id(parameter)],)
        ]

    def is_for(self, parameters: list[Tensor]) -> bool:
        """Whether these are the full network's parameters that it was made for."""
        return len(parameters) == len(self._parameters) and all(
            mine.full is theirs for mine, theirs in zip(self._parameters, parameters, strict=True)
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the sub-network."""
        return self._optimizer.param_groups

    def step(self) -> None:
        """Take a step with the hyper-parameters that the full optimiser has now."""
        for group, full in zip(self._optimizer.param_groups, self._full.param_groups, strict=True):
            group.update({name: full[name] for name in full if name != "params"})
        self._optimizer.step()

    @torch.no_grad()
    def load(self, kept: Kept) -> None:
        """Take over the state of the kept filters."""
        if not _is_unchanged(self._full.state, self._of_full):
            self._link(kept)
        entries = first(self._layout.parameter_sizes, kept.entries)
        for kind in self._kinds:
            gather(self._packed[kind].blocks, entries, self._blocks(kind))

    @torch.no_grad()
    def store(self, kept: Kept) -> None:
        """Put the state of the kept filters back."""
        if not _is_unchanged(self._optimizer.state, self._of_small):
            self._take_back(kept)
        entries = first(self._layout.parameter_sizes, kept.entries)
        for kind in self._kinds:
            scatter(self._blocks(kind), entries, self._packed[kind].blocks)

    def release(self) -> None:
        """Let go of copies: the sub-network may wait long for its next mini-batch."""
        if self._of_full is None:
            self._optimizer.state.clear()

    def _link(self, kept: Kept) -> None:
        """Build the small state, parameter by parameter."""
        self._leave_exchanged()
        self._optimizer.state.clear()
        self._views.clear()
        self._kinds, self._of_full, self._of_small = set(), None, None
        for parameter in self._parameters:
            full_state = self._full.state.get(parameter.full)
            if not full_state:
                continue
            small_state = self._optimizer.state[parameter.small]
            for kind, value in full_state.items():
                if self._is_packed(parameter, parameter.full, value):
                    self._move(full_state, kind, parameter.name)
                    small_state[kind] = self._view(kind, parameter.name)
                elif parameter.slot and _is_elementwise(value, parameter.full):
                    small_state[kind] = parameter.slot.gather(value, kept)
                else:
                    small_state[kind] = value

    def _leave_exchanged(self) -> None:
        """Use new memory where state was exchanged: somebody may have put the former aside."""
        for kind, state in list(self._packed.items()):
            if any(
                state.is_left(parameter.name, self._full.state.get(parameter.full, {}).get(kind))
                for parameter in self._parameters
            ):
                self._packed[kind] = PackedState(self._full_layout, self._device)

    def _take_back(self, kept: Kept) -> None:
        """Put back what is not packed, and pack what this step has made."""
        copied = False
        for parameter in self._parameters:
            small_state = self._optimizer.state.get(parameter.small, {})
            full_state = self._full.state[parameter.full] if small_state else {}
            for kind, value in small_state.items():
                if self._is_packed(parameter, parameter.small, value):
                    view = self._view(kind, parameter.name)
                    if value is not view:  # made by this step
                        view.copy_(value)
                        small_state[kind] = view
                        self._move(full_state, kind, parameter.name)
                elif parameter.slot and _is_elementwise(value, parameter.small):
                    if full_state.get(kind) is None:
                        full_state[kind] = torch.zeros_like(parameter.full)
                    parameter.slot.scatter(value, full_state[kind], kept)
                    copied = True
                else:
                    full_state[kind] = value
        if not copied:  # until somebody exchanges a tensor, all small state is views and shared
            self._of_full = _contents(self._full.state)
            self._of_small = _contents(self._optimizer.state)

    @staticmethod
    def _is_packed(parameter: _Parameter, like: Tensor, value: object) -> bool:
        return parameter.packed and _is_elementwise(value, like) and value.dtype == like.dtype

    def _move(self, full_state: dict[str, object], kind: str, name: str) -> None:
        """Have the full state of a parameter lie with the packed ones."""
        self._kinds.add(kind)
        view = self._state(kind).view(name)
        value = full_state.get(kind)
        if value is not view:
            if isinstance(value, Tensor):
                view.copy_(value)
            else:  # nothing yet, or no longer
                view.zero_()
            full_state[kind] = view

    def _view(self, kind: str, name: str) -> Tensor:
        """The small state of a parameter."""
        if (kind, name) not in self._views:
            self._views[kind, name] = self._layout.view(self._blocks(kind), name)
        return self._views[kind, name]

    def _blocks(self, kind: str) -> list[Tensor]:
        return self._state(kind).small_blocks(self._layout.parameter_sizes)

    def _state(self, kind: str) -> PackedState:
        if kind not in self._packed:
            self._packed[kind] = PackedState(self._full_layout, self._device)
        return self._packed[kind]


class _Contents(NamedTuple):
    """The very objects that an optimiser's state consists of."""

    states: list[dict[str, Any]]
    values: list[tuple[dict[str, Any], str, Any]]


def _contents(state: Mapping[Any, dict[str, Any]]) -> _Contents:
    states = list(state.values())
    return _Contents(states, [(one, kind, value) for one in states for kind, value in one.items()])


def _is_unchanged(state: Mapping[Any, dict[str, Any]], known: _Contents | None) -> bool:
    """Whether a state still consists of the same objects; their values may differ."""
    return (
        known is not None
        and len(state) == len(known.states)
        and all(map(operator.is_, state.values(), known.states))
        and sum(map(len, known.states)) == len(known.values)
        and all(one.get(kind) is value for one, kind, value in known.values)
    )


def _is_elementwise(value: object, parameter: Tensor) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.shape == parameter.shape
