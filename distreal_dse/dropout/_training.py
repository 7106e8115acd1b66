"""Training a network by mini-batches of its sub-networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

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
        optimizer = self._optimizer_of(small, kept)
        loss = self._ordinary_step(small.module, optimizer, inputs, targets)
        small.store(kept)
        self._store_state(small, kept, optimizer)
        return loss

    def _ordinary_step(
        self, module: torch.nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor
    ) -> float:
        loss = self._loss(module(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def _optimizer_of(self, small: SubNetwork, kept: list[Tensor]) -> Optimizer:
        """An optimiser of the same kind over the small tensors, with the kept part of the state."""
        parameters = dict(small.module.named_parameters())
        kind = type(self._optimizer)
        known = inspect.signature(kind).parameters
        optimizer = kind(
            [
                {**group, "params": [parameters[self._name_of[id(p)]] for p in group["params"]]}
                for group in self._optimizer.param_groups
            ],
            **{name: value for name, value in self._optimizer.defaults.items() if name in known},
        )
        for full, name, slot in self._optimized(small):
            state = self._optimizer.state.get(full)
            if state:
                optimizer.state[parameters[name]] = {
                    key: slot.gather(value, kept)
                    if slot and _is_elementwise(value, full)
                    else value
                    for key, value in state.items()
                }
        return optimizer

    def _store_state(self, small: SubNetwork, kept: list[Tensor], optimizer: Optimizer) -> None:
        parameters = dict(small.module.named_parameters())
        for full, name, slot in self._optimized(small):
            for key, value in optimizer.state.get(parameters[name], {}).items():
                state = self._optimizer.state[full]
                if slot is None or not _is_elementwise(value, parameters[name]):
                    state[key] = value
                    continue
                if state.get(key) is None:
                    state[key] = torch.zeros_like(full, memory_format=torch.preserve_format)
                slot.scatter(value, state[key], kept)
        # Tells learning rate schedulers, as Optimizer.step() would, that a step was taken.
        vars(self._optimizer)["_opt_called"] = True

    def _optimized(self, small: SubNetwork) -> Iterator[tuple[Tensor, str, Slot | None]]:
        """Each parameter of the full optimiser, its name, and its slot unless it is whole."""
        slots = {slot.name: slot for slot in small.slots}
        for group in self._optimizer.param_groups:
            for full in group["params"]:
                name = self._name_of[id(full)]
                yield full, name, slots.get(name)


def _is_elementwise(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
