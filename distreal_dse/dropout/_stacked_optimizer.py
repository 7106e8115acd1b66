"""One optimiser for the stacked parameters of several devices.

Element-wise optimisers don't know where one device ends and the next begins. What they keep for
each element is stacked as parameters are; what they keep for each parameter, such as a number of
steps, is equal for devices that have taken as many.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._optimizer_state import STEP_HOOKS
from distreal_dse.dropout._optimizers import elementwise_kind
from distreal_dse.dropout._stacks import Entries, StackedSubNetwork, Stacks
from distreal_dse.errors import UnsupportedOptimizerError

# State of a whole parameter, even where that is a single number.
OF_PARAMETER = ("step", "mu_product")
# Whole numbers of 64 bits for each entry at once, at most: those to read and to write by, what they
# are made of, and results in between.
INDICES = 9


class _Elementwise:
    """Stands for state that is stacked."""


STACKED = _Elementwise()


class StackedOptimizer:
    """Takes the steps of an optimiser for several rows of `Stacks` at once.

    Parameters
    ----------
    optimizer
        That each row begins with: over the parameters of the network, without steps taken so far.
        It stays as it is.
    names
        Name of each of its parameters, by ``id``.
    stacks
        The rows.

    Raises
    ------
    UnsupportedOptimizerError
        If it is not element-wise, or calls hooks, which would see all devices at once.
    """

    def __init__(self, optimizer: Optimizer, names: Mapping[int, str], stacks: Stacks) -> None:
        check_stackable(optimizer)
        self._kind = elementwise_kind(optimizer)
        known = inspect.signature(self._kind).parameters
        self._defaults = {k: v for k, v in optimizer.defaults.items() if k in known}
        self._groups = [
            {**group, "params": [names[id(one)] for one in group["params"]]}
            for group in optimizer.param_groups
        ]
        self.trained = [name for group in self._groups for name in group["params"]]
        """Names of its parameters."""
        self._stacks = stacks
        self._blocks: dict[str, list[Tensor]] = {}  # by kind of state
        begun: dict[str, dict[str, Any]] = {}
        for parameter, state in optimizer.state.items():
            begun[name := names[id(parameter)]] = {}
            for kind, value in state.items():
                if _is_elementwise(kind, value, parameter.shape):
                    stacks.fill(self._of_kind(kind), {name: value})
                    value = STACKED
                begun[name][kind] = value
        self._states = [begun] * stacks.rows  # exchanged as a whole, never changed

    def step(
        self,
        rows: Sequence[int],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        small: StackedSubNetwork,
        entries: Entries,
    ) -> None:
        """Take a step.

        Parameters
        ----------
        rows
            Who takes it, K of them; all have taken as many steps before.
        parameters
            By name, shape [K, …]; changed in place.
        gradients
            Of those that the loss depends on, likewise.
        small, entries
            The sub-network that the parameters are of, and where it lies.
        """
        before = self._states[rows[0]]
        groups = [{**g, "params": [parameters[n] for n in g["params"]]} for g in self._groups]
        optimizer = self._kind(groups, **self._defaults)
        optimizer.state.clear()
        flat = {
            kind: small.gather(blocks, entries)
            for kind, blocks in self._blocks.items()
            if any(state.get(kind) is STACKED for state in before.values())
        }
        views = {kind: small.views(blocks) for kind, blocks in flat.items()}
        for name in self.trained:
            parameters[name].grad = gradients.get(name)
            if name in before:
                optimizer.state[parameters[name]] = {
                    kind: views[kind][name] if value is STACKED else _own(value)
                    for kind, value in before[name].items()
                }
        optimizer.step()
        after = dict(before)
        for name in self.trained:
            parameter, state = parameters[name], {}
            for kind, value in optimizer.state.get(parameter, {}).items():
                if _is_elementwise(kind, value, parameter.shape):
                    if kind not in flat:
                        flat[kind] = small.gather(self._of_kind(kind), entries)
                        views[kind] = small.views(flat[kind])
                    if value is not views[kind][name]:
                        views[kind][name].copy_(value)
                    value = STACKED
                state[kind] = value
            if state:
                after[name] = state
            parameter.grad = None
        for kind, blocks in flat.items():
            small.scatter(blocks, self._of_kind(kind), entries)
        for row in rows:
            self._states[row] = after

    def _of_kind(self, kind: str) -> list[Tensor]:
        if kind not in self._blocks:
            self._blocks[kind] = self._stacks.empty()
        return self._blocks[kind]


def stacked_bytes(network: DroppableNetwork, optimizer: Optimizer) -> tuple[int, int]:
    """Return the bytes that stacks need of each device.

    Parameters
    ----------
    network
        Of the device.
    optimizer
        Over its parameters; stays as it is.

    Returns
    -------
    tuple of int
        Of its values with what its optimiser keeps of them; and while it trains the full network,
        of copies of these, and of the indices that say where they lie.

    Raises
    ------
    UnsupportedOptimizerError
        If it is not element-wise.
    """
    stacks = Stacks(network, 1)
    one = torch.zeros(2)
    one.grad = torch.zeros(2)
    known = inspect.signature(kind := elementwise_kind(optimizer)).parameters
    defaults = {name: value for name, value in optimizer.defaults.items() if name in known}
    tried = kind([{**optimizer.param_groups[0], "params": [one]}], **defaults)
    tried.step()
    kinds = sum(_is_elementwise(name, value, one.shape) for name, value in tried.state[one].items())
    values = (1 + kinds) * stacks.bytes_of_row
    return values, values + INDICES * 8 * sum(stacks.layout.sizes)


def check_stackable(optimizer: Optimizer) -> None:
    """Refuse an optimiser whose steps can't be taken for several devices at once.

    Raises
    ------
    UnsupportedOptimizerError
        Naming it.
    """
    elementwise_kind(optimizer)
    if any(getattr(optimizer, hooks) for hooks in STEP_HOOKS):
        raise UnsupportedOptimizerError(
            f"optimiser {type(optimizer).__name__} calls step hooks, which would see the parameters"
            " of all devices at once"
        )


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _is_elementwise(kind: str, value: object, shape: torch.Size) -> bool:
    return kind not in OF_PARAMETER and isinstance(value, Tensor) and value.shape == shape
