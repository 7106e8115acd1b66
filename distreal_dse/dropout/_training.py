"""Training a network by mini-batches of its sub-networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distreal_dse.dropout._channels import ChannelMap
from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._optimizer_state import PackedState, SmallOptimizer
from distreal_dse.dropout._optimizers import elementwise_kind
from distreal_dse.dropout._policies import MaskPolicy
from distreal_dse.dropout._policy_specs import make_policy
from distreal_dse.dropout._proximal import Proximal
from distreal_dse.dropout._subnetwork import Kept, SubNetwork
from distreal_dse.dropout._vector import KeptCounts, Vector, counts_of
from distreal_dse.errors import InputError

# Attributes that a copy of a trainer makes anew.
OF_THIS_TRAINER = ("_small_optimizers", "_packed", "_selected", "_held", "_holding")


Objective: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""The loss of a mini-batch, a scalar, from a network or sub-network, inputs and targets."""


class _Held(NamedTuple):
    """A sub-network that has values which the full network has not yet."""

    small: SubNetwork
    kept: Kept
    optimizer: SmallOptimizer


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
        learning rate schedules work as usual. Its step hooks are called with the optimiser that
        takes the step: for a sub-network one that holds the parameters of its kept filters, with
        their gradients and state. What a hook does to those is what the full network gets.
    loss
        Mean loss from ``(outputs, targets)``. One that needs parameters, such as a penalty, goes
        into ``objective``: those of the full network are not what a sub-network trains.
    policy
        Which filters are kept: a policy, or its text such as ``"random"`` (see `make_policy`).
    generator
        Randomness of the masks, on the CPU.
    clip_norm
        Largest Euclidean norm of the gradients of a mini-batch, all parameters that it trains
        taken together; longer ones are scaled down to it. None for no limit.
    proximal
        Pulls what is trained towards where it started; None for no pull. Losses that are returned
        are without it.
    objective
        Takes the place of the loss in `step`. It gets the network or sub-network at work, so that a
        loss that needs parameters finds those that are trained; None for the loss of the outputs.
        They have the values that act: with inverted scaling, weights times their factor. The
        optimiser's own weight decay decays the weights as they are.

    Raises
    ------
    UnsupportedOptimizerError
        If the optimiser may not be element-wise, so that its state can't be cut down to kept
        filters.
    InputError
        If the optimiser is over parameters of another network, or ``clip_norm`` is out of range.
    """

    def __init__(
        self,
        network: DroppableNetwork,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        policy: MaskPolicy | str,
        generator: torch.Generator,
        clip_norm: float | None = None,
        proximal: Proximal | None = None,
        objective: Objective | None = None,
    ) -> None:
        elementwise_kind(optimizer)
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"clip_norm: expected a number above 0, or None, found {clip_norm}")
        self._network = network
        self._optimizer = optimizer
        self._loss = loss
        self._policy = make_policy(policy) if isinstance(policy, str) else policy
        self._own_objective = objective
        self._loss_is_checked = False
        self._holding = False
        self._generator = generator
        self._clip_norm = clip_norm
        self._proximal = proximal
        self._begin()
        self._everything = torch.ones(sum(network.full_counts), dtype=torch.bool)
        self.last_mask: Tensor = self._everything
        """Units that the last mini-batch trained, shape [units], on the CPU."""

    def _begin(self) -> None:
        """Know the optimiser of the network as it is now, without those of sub-networks."""
        self._times = self._network.follow()
        # Weak: a sub-network that the network no longer keeps takes its optimiser with it.
        self._small_optimizers: WeakKeyDictionary[SubNetwork, SmallOptimizer] = WeakKeyDictionary()
        self._packed: dict[str, PackedState] = {}
        self._selected: tuple[SubNetwork, Tensor, Kept] | None = None
        self._held: _Held | None = None
        self._check_parameters()

    def _follow(self) -> None:
        if self._network.follow() != self._times:
            self._begin()

    def _subnetwork(self, counts: KeptCounts) -> SubNetwork:
        small = self._network.subnetwork(counts)  # which follows
        if self._network.times != self._times:
            self._begin()
        return small

    def _check_parameters(self) -> None:
        names = self._network.parameter_names
        for group in self._optimizer.param_groups:
            if any(id(parameter) not in names for parameter in group["params"]):
                raise InputError(
                    "the optimiser holds parameters of another network, or some that this one no "
                    "longer has: expected those of the network that is trained; make it of "
                    "network.module.parameters()"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what refers to the tensors of this very network and optimiser."""
        return {name: value for name, value in vars(self).items() if name not in OF_THIS_TRAINER}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._holding = False
        self._begin()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Leave a sub-network's values where they are while its mask stays.

        Within, the full network and its optimiser get them when another sub-network or mask is
        trained, and at the end; so let both alone, and the modes of layers. Results are the same
        bits. It saves a share of each step with masks that are drawn once per round, say. Running
        statistics have seen a mini-batch that fails, which they have not otherwise.
        """
        before, self._holding = self._holding, True
        try:
            yield
        finally:
            self._holding = before
            self._put_back()

    def _take(self, small: SubNetwork, kept: Kept, optimizer: SmallOptimizer) -> None:
        """Have the values of what is kept in the sub-network, ready for a forward pass."""
        if self._held is not None and self._held.kept is kept:
            small.go_on(kept)
            return
        self._put_back()
        small.load(kept)
        optimizer.load(kept)
        if self._holding:
            self._held = _Held(small, kept, optimizer)

    def _put_back(self) -> None:
        """Give the full network and its optimiser what a sub-network has."""
        if (held := self._held) is not None:
            self._held = None
            held.small.unscale()  # where an interrupt came in between
            held.small.store(held.kept)
            held.optimizer.store(held.kept)
            held.optimizer.release()

    def step(
        self,
        inputs: Tensor,
        targets: Tensor,
        counts: Vector,
        objective: Objective | None = None,
    ) -> float:
        """Train one mini-batch with ``counts`` kept units per group; return its loss.

        Layers are in the mode (training or evaluation) that they have in the full network.

        Parameters
        ----------
        inputs, targets
            Shapes [N, ...]; on the device of the network.
        counts
            From `kept_counts`, or what `Front.lookup` gives, a list, or a name; see `Vector`.
        objective
            Takes the place of the trainer's, this time; None for that.

        Raises
        ------
        VectorError
            If the vector does not fit the groups, as a dict does not.
        InputError
            If the loss uses parameters of the full network in a mini-batch of a sub-network.
        """
        objective = objective or self._own_objective or self._objective
        if not isinstance(counts, tuple):
            counts = counts_of(counts, self._network.groups)
        if self._held is not None and self._held.small.counts != counts:
            self._put_back()
        if counts == self._network.full_counts:
            self._follow()
            self.last_mask = self._everything
            return self._full_step(inputs, targets, objective)
        small = self._subnetwork(counts)
        mask = self._draw(counts)
        kept = self._select(small, mask)
        self.last_mask = mask
        optimizer = self._small_optimizer(small)
        self._take(small, kept, optimizer)
        try:
            loss = objective(small.module, inputs, targets)
            with self._loss_checked():
                small.backward(loss)
            self._finish(small.module, optimizer.param_groups)
            optimizer.step()
            if self._held is None:
                small.store(kept)
                optimizer.store(kept)
        finally:
            if self._held is None:
                optimizer.release()
            small.unscale()
            small.clear_gradients()
        # Tells learning rate schedulers, as Optimizer.step() would, that a step was taken.
        vars(self._optimizer)["_opt_called"] = True
        return loss.item()

    def step_nested(
        self,
        inputs: Tensor,
        targets: Tensor,
        counts: Vector,
        inner_counts: Vector,
        inner_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> float:
        """Train one mini-batch with a sub-network and with one inside of it, by one step.

        The optimiser takes a step with the sum of both gradients; `last_mask` is that of the outer
        one, and running statistics see the outputs of the outer one first. With equal counts it is
        a `step`.

        Parameters
        ----------
        inputs, targets
            As for `step`.
        counts, inner_counts
            Kept units per group of the outer sub-network, and of the inner one.
        inner_loss
            Mean loss of the inner one from ``(its outputs, outputs of the outer one, targets)``;
            the second are constants.

        Returns
        -------
        float
            The loss of the outer one.

        Raises
        ------
        InputError
            If the mask policy draws an inner mask that is not inside the outer one.
        """
        counts = counts_of(counts, self._network.groups)
        inner_counts = counts_of(inner_counts, self._network.groups)
        if inner_counts == counts:
            return self.step(inputs, targets, counts)
        self._put_back()
        is_full = counts == self._network.full_counts
        mask = self._everything if is_full else self._draw(counts)
        inner_mask = self._draw(inner_counts)
        check_inside(inner_mask, mask, self._policy)
        self.last_mask = mask

        def train_inner(module: nn.Module, outputs: Tensor) -> None:
            inner = self._subnetwork(inner_counts)
            kept = inner.select(inner_mask)
            inner.load(kept)
            try:
                loss = inner_loss(inner.module(inputs), outputs.detach(), targets)
                inner.backward(loss)
                inner.store(kept)  # running statistics; parameters are as they were
                _add_gradients(inner.module, module, inner_mask, mask, self._network.channels)
            finally:
                inner.clear_gradients()

        if is_full:
            self._follow()
            seen: list[Tensor] = []

            def outer(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
                seen.append(module(inputs))
                return self._loss(seen[0], targets)

            return self._full_step(
                inputs, targets, outer, lambda: train_inner(self._network.module, seen[0])
            )
        small = self._subnetwork(counts)
        kept = self._select(small, mask)
        optimizer = self._small_optimizer(small)
        try:
            small.load(kept)
            outputs = small.module(inputs)
            loss = self._loss(outputs, targets)
            small.backward(loss)
            small.store(kept)  # running statistics, for the inner one to go on with
            train_inner(small.module, outputs)
            small.reload(kept)
            optimizer.load(kept)
            self._finish(small.module, optimizer.param_groups)
            optimizer.step()
            small.store(kept)
            optimizer.store(kept)
        finally:
            optimizer.release()
            small.clear_gradients()
        vars(self._optimizer)["_opt_called"] = True
        return loss.item()

    @contextmanager
    def _loss_checked(self) -> Iterator[None]:
        """Refuse a loss that uses parameters of the full network: they would get gradients.

        Nothing would be trained by these. One step shows it.
        """
        if self._loss_is_checked:
            yield
            return
        parameters = [one for group in self._optimizer.param_groups for one in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        yield
        if used := [one for one in parameters if one.grad is not None]:
            raise InputError(
                "loss of a sub-network: expected it to use the sub-network's parameters, found "
                f"{self._network.parameter_names[id(used[0])]} of the full network in it; take it "
                "from the module that an objective gets: "
                "DropoutTrainer(…, objective=lambda module, inputs, targets: …)"
            )
        self._loss_is_checked = True

    def _draw(self, counts: KeptCounts) -> Tensor:
        return self._policy.draw(self._network.channels.widths, counts, self._generator)

    def _select(self, small: SubNetwork, mask: Tensor) -> Kept:
        """What a mask keeps; found once where it stays from mini-batch to mini-batch."""
        if self._selected is not None:
            last, last_mask, kept = self._selected
            if last is small and torch.equal(last_mask, mask):
                return kept
            self._selected = None  # frees its indices before others are made
        kept = small.select(mask)
        self._selected = small, mask.clone(), kept  # a policy may change its mask
        return kept

    def _objective(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(module(inputs), targets)

    def _full_step(
        self,
        inputs: Tensor,
        targets: Tensor,
        objective: Objective,
        before_step: Callable[[], None] | None = None,
    ) -> float:
        loss = objective(self._network.module, inputs, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if before_step is not None:
            before_step()
        self._finish(self._network.module, self._optimizer.param_groups)
        self._optimizer.step()
        return loss.item()

    def _finish(self, module: nn.Module, param_groups: list[dict[str, Any]]) -> None:
        """Make gradients of the loss those that a step is taken with."""
        if self._proximal is not None:
            self._proximal.add(module, self.last_mask, self._network.channels)
        if self._clip_norm is not None:
            parameters = [p for group in param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self._clip_norm)

    def _small_optimizer(self, small: SubNetwork) -> SmallOptimizer:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        optimizer = self._small_optimizers.get(small)
        if optimizer is None or not optimizer.is_for(parameters):
            self._check_parameters()
            optimizer = SmallOptimizer(
                self._optimizer, self._network.parameter_names, small, self._packed
            )
            self._small_optimizers[small] = optimizer
        return optimizer


def check_inside(inner_mask: Tensor, mask: Tensor, policy: MaskPolicy) -> None:
    """Refuse masks of nested sub-networks that are not nested.

    Raises
    ------
    InputError
        If the inner one keeps a unit that the outer one drops.
    """
    if bool((inner_mask & ~mask).any()):
        raise InputError(
            f"masks '{policy.spec}': expected those of fewer filters to be a part of "
            "those of more, found others; train nested sub-networks with masks 'ordered', say"
        )


@torch.no_grad()
def _add_gradients(
    inner: nn.Module, outer: nn.Module, inner_mask: Tensor, mask: Tensor, channels: ChannelMap
) -> None:
    """Add the gradients of a sub-network to those of the one around it, where they belong."""
    kept, inner_kept = (torch.cat([one, one.new_ones(1)]) for one in (mask, inner_mask))
    outer_parameters = dict(outer.named_parameters())
    for name, parameter in inner.named_parameters():
        if parameter.grad is None:
            continue
        into = outer_parameters[name]
        if into.grad is None:
            into.grad = torch.zeros_like(into)
        rows, columns = (
            None if units is None else _positions(inner_kept[units], kept[units], into.device)
            for units in (*channels.axes.get(name, ()), None, None)[:2]
        )
        if rows is not None and columns is not None:
            into.grad[rows[:, None], columns] += parameter.grad
        elif rows is not None:
            into.grad.index_add_(0, rows, parameter.grad)
        elif columns is not None:
            into.grad.index_add_(1, columns, parameter.grad)
        else:
            into.grad += parameter.grad


def _positions(inner: Tensor, outer: Tensor, device: torch.device) -> Tensor:
    """Where the channels of the inner mask lie among those of the outer one."""
    return inner[outer].nonzero().flatten().to(device)
