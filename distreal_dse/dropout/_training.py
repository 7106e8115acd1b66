"""Training a network by mini-batches of its sub-networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._optimizer_state import PackedState, SmallOptimizer
from distreal_dse.dropout._policies import MaskPolicy
from distreal_dse.dropout._subnetwork import SubNetwork
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
    clip_norm
        Largest Euclidean norm of the gradients of a mini-batch, all parameters that it trains
        taken together; longer ones are scaled down to it. None for no limit.

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
        clip_norm: float | None = None,
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
        self._clip_norm = clip_norm
        self._name_of = {id(p): name for name, p in network.module.named_parameters()}
        # Weak: a sub-network that the network no longer keeps takes its optimiser with it.
        self._small_optimizers: WeakKeyDictionary[SubNetwork, SmallOptimizer] = WeakKeyDictionary()
        self._packed: dict[str, PackedState] = {}
        self._everything = torch.ones(sum(network.full_counts), dtype=torch.bool)
        self.last_mask: Tensor = self._everything
        """Units that the last mini-batch trained, shape [units], on the CPU."""

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
            self.last_mask = self._everything
            return self._full_step(inputs, targets)
        small = self._network.subnetwork(counts)
        mask = self._policy.draw(self._network.channels.widths, counts, self._generator)
        kept = small.select(mask)
        self.last_mask = mask
        small.load(kept)
        optimizer = self._small_optimizer(small)
        optimizer.load(kept)
        try:
            loss = self._loss(small.module(inputs), targets)
            small.backward(loss, kept)
            self._clip(optimizer.param_groups)
            optimizer.step()
            small.store(kept)
            optimizer.store(kept)
        finally:
            optimizer.release()
        # Tells learning rate schedulers, as Optimizer.step() would, that a step was taken.
        vars(self._optimizer)["_opt_called"] = True
        return loss.item()

    def _full_step(self, inputs: Tensor, targets: Tensor) -> float:
        loss = self._loss(self._network.module(inputs), targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._clip(self._optimizer.param_groups)
        self._optimizer.step()
        return loss.item()

    def _clip(self, param_groups: list[dict[str, Any]]) -> None:
        if self._clip_norm is not None:
            parameters = [p for group in param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self._clip_norm)

    def _small_optimizer(self, small: SubNetwork) -> SmallOptimizer:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        optimizer = self._small_optimizers.get(small)
        if optimizer is None or not optimizer.is_for(parameters):
            optimizer = SmallOptimizer(self._optimizer, self._name_of, small, self._packed)
            self._small_optimizers[small] = optimizer
        return optimizer
