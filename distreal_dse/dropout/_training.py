"""Training a network by mini-batches of its sub-networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._policies import MaskPolicy
from distreal_dse.dropout._subnetwork import Slot, SubNetwork
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.errors import UnsupportedOptimizerError

# Optimisers that update each element from the state of that element alone, so that the state of
# kept filters can be cut out and put back.
ELEMENTWISE_OPTIMIZERS = (
    torch.optim.Adadelta, torch.optim.Adagrad, torch.optim.Adam, torch.optim.Adamax,
    torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.SGD,
)  # fmt: skip


class DropoutTrainer:
    """Trains a full network; each mini-batch may train a sub-network of it instead.

    The full network and its optimiser own all values. A mini-batch that drops filters gathers
    the kept slices of parameters, buffers and optimiser state into the smaller network, takes an
    ordinary step there, and scatters them back: dropped filters keep theirs. A mini-batch that
    drops nothing is an ordinary step on the full network.

    Parameters
    ----------
    network
        The network to train.
    optimizer
        Over ``network.module``'s parameters. Its hyper-parameters are read at every step, so
        learning rate schedules work as usual.
    loss
        Mean loss from ``(outputs, targets)``.
    policy
        Which filters are kept.
    generator
        Randomness of the masks, on the CPU.

    Raises
    ------
    UnsupportedOptimizerError
        If the optimiser's state can't be cut down to kept filters.
    """

    def __init__(
        self,
        network: DroppableNetwork,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        policy: MaskPolicy,
        generator: torch.Generator,
    ) -> None:
        if not isinstance(optimizer, ELEMENTWISE_OPTIMIZERS):
            raise UnsupportedOptimizerError(
                f"optimiser {type(optimizer).__name__} is not supported: expected one of "
                + ", ".join(sorted(kind.__name__ for kind in ELEMENTWISE_OPTIMIZERS))
            )
        self._network = network
        self._optimizer = optimizer
        self._loss = loss
        self._policy = policy
        self._generator = generator
        self._name_of = {id(p): name for name, p in network.module.named_parameters()}
        # Weak: a sub-network that the network no longer keeps takes its optimiser with it.
        self._plans: WeakKeyDictionary[SubNetwork, _Plan] = WeakKeyDictionary()

    def step(self, inputs: Tensor, targets: Tensor, counts: KeptCounts) -> float:
        """Train one mini-batch with ``counts`` kept units per group; return its loss.

        Layers are in the mode (training or evaluation) that they have in the full network.

        Parameters
        ----------
        inputs, targets
            Shapes [N, ...]; on the device of the network.
        counts
            From `kept_counts` or a front point.
        """
        if counts == self._network.full_counts:
            return self._ordinary_step(self._network.module, self._optimizer, inputs, targets)
        small = self._network.subnetwork(counts)
        mask = self._policy.draw(self._network.channels.widths, counts, self._generator)
        kept = small.select(mask)
        small.load(kept)
        plan = self._plan(small)
        self._load_state(plan, kept)
        loss = self._ordinary_step(small.module, plan.optimizer, inputs, targets)
        small.store(kept)
        self._store_state(plan, kept)
        return loss

    def _ordinary_step(
        self, module: torch.nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor
    ) -> float:
        loss = self._loss(module(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def _plan(self, small: SubNetwork) -> _Plan:
        """The sub-network's plan, with the hyper-parameters that the full optimiser has now."""
        full_groups = self._optimizer.param_groups
        parameters = [parameter for group in full_groups for parameter in group["params"]]
        plan = self._plans.get(small)
        if plan is None or [id(p) for p, _, _ in plan.parameters] != [id(p) for p in parameters]:
            plan = self._plans[small] = self._new_plan(small, parameters)
        for group, full_group in zip(plan.optimizer.param_groups, full_groups, strict=True):
            group.update({name: full_group[name] for name in full_group if name != "params"})
        return plan

    def _new_plan(self, small: SubNetwork, parameters: list[Tensor]) -> _Plan:
        slots = {slot.name: slot for slot in small.slots}
        named = dict(small.module.named_parameters())
        names = [self._name_of[id(parameter)] for parameter in parameters]
        kind = type(self._optimizer)
        known = inspect.signature(kind).parameters
        defaults = {key: v for key, v in self._optimizer.defaults.items() if key in known}
        groups = [
            {**group, "params": [named[self._name_of[id(p)]] for p in group["params"]]}
            for group in self._optimizer.param_groups
        ]
        return _Plan(
            optimizer=kind(groups, **defaults),
            parameters=[
                (parameter, named[name], slots.get(name))
                for parameter, name in zip(parameters, names, strict=True)
            ],
        )

    @torch.no_grad()
    def _load_state(self, plan: _Plan, kept: list[Tensor]) -> None:
        plan.optimizer.state.clear()
        for full, small, slot in plan.parameters:
            state = self._optimizer.state.get(full)
            if state:
                plan.optimizer.state[small] = {
                    key: slot.gather(value, kept)
                    if slot and _is_elementwise(value, full)
                    else value
                    for key, value in state.items()
                }

    @torch.no_grad()
    def _store_state(self, plan: _Plan, kept: list[Tensor]) -> None:
        for full, small, slot in plan.parameters:
            for key, value in plan.optimizer.state.get(small, {}).items():
                state = self._optimizer.state[full]
                if slot is None or not _is_elementwise(value, small):
                    state[key] = value
                    continue
                if state.get(key) is None:
                    state[key] = torch.zeros_like(full, memory_format=torch.preserve_format)
                slot.scatter(value, state[key], kept)
        # Tells learning rate schedulers, as Optimizer.step() would, that a step was taken.
        vars(self._optimizer)["_opt_called"] = True


class _Plan(NamedTuple):
    """A sub-network's optimiser; its parameters beside the full ones, with slots unless whole."""

    optimizer: Optimizer
    parameters: list[tuple[Tensor, Tensor, Slot | None]]


def _is_elementwise(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
