"""Training the networks of several devices at once: what `DropoutTrainer` does, K times.

References
----------
What ``vmap`` makes of a network: one operation for all K in place of one for each, such as a
grouped convolution for K convolutions; https://docs.pytorch.org/functorch/stable/notebooks/ensembling.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._proximal import check_proximal
from distreal_dse.dropout._stacked_optimizer import StackedOptimizer
from distreal_dse.dropout._stacks import (
    Entries,
    StackedSubNetwork,
    StackedSubNetworks,
    Stacks,
)
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.errors import UnsupportedModelError, described

StackedLoss: TypeAlias = Callable[..., Tensor]
"""Mean loss of one device's mini-batch from ``(outputs, targets, *facts)``, a scalar; it runs under
``torch.vmap``."""

StackedObjective: TypeAlias = Callable[..., Tensor | tuple[Tensor, Tensor]]
"""Likewise, from ``(network, inputs, targets, *facts)``; or two, see `StackedTrainer.step`."""

Beyond: TypeAlias = Callable[[str, Tensor], Tensor | None]
"""Which elements of a parameter learn from the second of two losses."""


@dataclass(frozen=True, eq=False)
class Part:
    """Who trains at once.

    Parameters
    ----------
    rows
        K rows.
    index
        The same as a tensor on the device of the network, shape [K].
    """

    rows: Sequence[int]
    index: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Mini-batches of K devices.

    Parameters
    ----------
    inputs, targets
        Shapes [K, N, ...] and [K, N].
    facts
        What the loss takes beside outputs and targets, shapes [K, ...].
    """

    inputs: Tensor
    targets: Tensor
    facts: tuple[Tensor, ...] = ()


class StackedTrainer:
    """Trains a network for several devices, each with values of its own, from one state.

    A device whose loss is not finite takes that step and none after it, without anyone waiting to
    see it: its later steps are written where nobody reads.

    Parameters
    ----------
    network
        Gives the layers; its own values stay as they are.
    optimizer
        Over its parameters; each device begins with it as it is, and it stays so.
    state
        Values that all devices begin with.
    devices
        How many there are: rows 0 … devices − 1.
    clip_norm, proximal
        As for `DropoutTrainer`; ``proximal`` is the weight of `Proximal`, 0 for none.
    known
        Sub-networks of the network that trainers before have built; None for none.

    Raises
    ------
    UnsupportedOptimizerError
        As `StackedOptimizer` does.
    """

    def __init__(
        self,
        network: DroppableNetwork,
        optimizer: Optimizer,
        state: Mapping[str, Tensor],
        devices: int,
        clip_norm: float | None = None,
        proximal: float = 0.0,
        known: StackedSubNetworks | None = None,
    ) -> None:
        check_proximal(proximal)
        network.follow()
        self._network, self._clip_norm, self._proximal = network, clip_norm, proximal
        self._state = state
        # One row takes the steps of those whose loss was not finite; one stays as it is.
        self._nowhere, self._start = devices, devices + 1
        self._stacks = Stacks(network, devices + 2)
        begun = {name: state.get(name, one) for name, one in self._stacks.tensors.items()}
        self._stacks.fill(self._stacks.blocks, begun)
        self._optimizer = StackedOptimizer(optimizer, network.parameter_names, self._stacks)
        self._finite = torch.ones(devices, dtype=torch.bool, device=self._stacks.device)
        self._small = known or StackedSubNetworks(network)

    def states(self) -> list[dict[str, Tensor]]:
        """Values of each device by name, as `DroppableNetwork.copy_state` has them; no copies."""
        return self._stacks.states(list(self._state))[: self._nowhere]

    def parameters(self) -> dict[str, Tensor]:
        """Parameters of all devices by name, shape [devices + 2, …]: the last two are nobody's."""
        stacks = self._stacks
        return {name: stacks.view(stacks.blocks, name) for name in stacks.parameters}

    def step(
        self,
        part: Part,
        batch: Batch,
        counts: KeptCounts,
        masks: Tensor,
        objective: StackedObjective,
        beyond: Beyond | None = None,
    ) -> Tensor:
        """Train a mini-batch of each of K devices; return their losses, shape [K].

        Parameters
        ----------
        part, batch
            Who, and what.
        counts
            Kept units per group, of all of them.
        masks
            Units that each keeps, as many as that; boolean, shape [K, units].
        objective
            Gives the loss of each; with ``beyond`` two of them, whose sum is the loss.
        beyond
            From the name of a parameter and itself to a mask of its shape: elements that learn from
            the second loss as well. None for no element.
        """
        read, write = part.index, self._written(part)
        small = self._subnetwork(counts)
        entries = small.entries(masks, read, write)
        flat = small.gather(self._stacks.blocks, entries)
        values = small.views(flat)

        def run(module: nn.Module, inputs: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
            loss = objective(module, inputs, *given)
            return loss if isinstance(loss, tuple) else (loss, loss)

        losses, second, gradients = self._gradients(small, values, entries, batch, run, beyond)
        if beyond is not None:
            losses = losses + second
        self._finish(part, small, entries, flat, values, gradients)
        self._note(part, losses)
        return losses

    def step_nested(
        self,
        part: Part,
        batch: Batch,
        counts: tuple[KeptCounts, KeptCounts],
        masks: tuple[Tensor, Tensor],
        losses: tuple[StackedLoss, StackedLoss],
    ) -> Tensor:
        """Train K sub-networks and one inside of each, by one step; see `DropoutTrainer`.

        Parameters
        ----------
        part, batch
            As for `step`.
        counts, masks
            Of the outer ones, and of the inner ones, which are parts of them.
        losses
            Of the outer one, and of the inner one from ``(outputs, outputs of the outer one,
            targets, *facts)``.

        Returns
        -------
        Tensor
            Losses of the outer ones, shape [K].
        """
        read, write = part.index, self._written(part)
        outer, inner = (self._subnetwork(one) for one in counts)
        entries = outer.entries(masks[0], read, write)
        flat = outer.gather(self._stacks.blocks, entries)
        found, outputs, gradients = self._gradients(
            outer, outer.views(flat), entries, batch, _with_outputs(losses[0])
        )
        # Running statistics, for the inner one to go on with.
        outer.scatter(flat, self._stacks.blocks, entries)
        # Where somebody's outer loss was not finite before, nothing was written; read from there.
        inner_entries = inner.entries(masks[1], read, write)
        inner_flat = inner.gather(self._stacks.blocks, inner_entries)
        taught = Batch(batch.inputs, outputs, (batch.targets, *batch.facts))
        _, _, inner_gradients = self._gradients(
            inner, inner.views(inner_flat), inner_entries, taught, _with_outputs(losses[1])
        )
        inner.scatter(inner_flat, self._stacks.blocks, inner_entries)
        self._add(gradients, inner_gradients, (outer, inner), (entries, inner_entries))
        flat = outer.gather(self._stacks.blocks, entries)
        self._finish(part, outer, entries, flat, outer.views(flat), gradients)
        self._note(part, found)
        return found

    def _written(self, part: Part) -> Tensor:
        """Rows to write to."""
        return torch.where(self._finite[part.index], part.index, self._nowhere)

    def _note(self, part: Part, losses: Tensor) -> None:
        self._finite[part.index] &= losses.isfinite()

    def _subnetwork(self, counts: KeptCounts) -> StackedSubNetwork:
        return self._small.of(self._stacks, counts)

    def _gradients(
        self,
        small: StackedSubNetwork,
        values: Mapping[str, Tensor],
        entries: Entries,
        batch: Batch,
        run: Callable[..., tuple[Tensor, Tensor]],
        beyond: Beyond | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Losses, what else ``run`` returns, and gradients for the weights before scaling."""
        acting = {**values, **small.scaled(values, entries)}
        module = small.module
        leaves = {}
        for name, parameter in module.named_parameters():
            # Not detach(), which would share the count of changes with running statistics.
            leaves[name] = acting[name].data.requires_grad_(parameter.requires_grad)
        buffers = {name: acting[name] for name, _ in module.named_buffers()}
        learning = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        given = (batch.inputs, batch.targets, *batch.facts)
        try:
            losses, more = _run_stacked(module, run, leaves, buffers, given)
            second = {} if beyond is None else _second_gradients(module, more, learning, beyond)
            found = torch.autograd.grad(losses.sum(), list(learning.values()), allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # operations that vmap does not know, layers that draw, …
            where = _culprit(module, lambda: _run_stacked(module, run, leaves, buffers, given))
            raise UnsupportedModelError(
                f"{where} can't be trained for several devices at once ({described(error)})"
            ) from error
        gradients = {
            name: gradient
            for name, gradient in zip(learning, found, strict=True)
            if gradient is not None
        }
        for name, gradient in second.items():
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return losses.detach(), more.detach(), {**gradients, **small.scaled(gradients, entries)}

    def _add(
        self,
        gradients: dict[str, Tensor],
        inner: Mapping[str, Tensor],
        networks: tuple[StackedSubNetwork, StackedSubNetwork],
        entries: tuple[Entries, Entries],
    ) -> None:
        """Add the gradients of inner networks to those of outer ones, where they belong."""
        many = len(entries[0].positions)
        full = self._stacks.empty(many)
        rows = torch.arange(many, device=self._stacks.device)
        places = [lie.at(rows) for lie in entries]
        for network, found, lie in zip(networks, (gradients, inner), places, strict=True):
            flat = network.gather(full, lie)
            views = network.views(flat)
            for name, gradient in found.items():
                views[name] += gradient
            network.scatter(flat, full, lie)
        summed = networks[0].views(networks[0].gather(full, places[0]))
        gradients |= {name: summed[name] for name in (*gradients, *inner)}

    @torch.no_grad()
    def _finish(
        self,
        part: Part,
        small: StackedSubNetwork,
        entries: Entries,
        flat: Sequence[Tensor],
        values: Mapping[str, Tensor],
        gradients: dict[str, Tensor],
    ) -> None:
        """Take a step with the gradients of the loss, and write all values back."""
        if self._proximal:
            started = entries.at(torch.full_like(part.index, self._start))
            start = small.views(small.gather(self._stacks.blocks, started))
            for name, gradient in gradients.items():
                pull = values[name] - start[name]
                gradients[name] = gradient.add(pull, alpha=self._proximal)
        if self._clip_norm is not None:
            self._clip(gradients)
        parameters = {name: values[name].data for name in self._stacks.parameters}
        self._optimizer.step(part.rows, parameters, gradients, small, entries)
        small.scatter(flat, self._stacks.blocks, entries)

    def _clip(self, gradients: dict[str, Tensor]) -> None:
        """Scale the gradients of each device down to the limit, as ``clip_grad_norm_`` does."""
        assert self._clip_norm is not None
        names = [name for name in self._optimizer.trained if name in gradients]
        if not names:
            return
        norms = [torch.linalg.vector_norm(_rows(gradients[name]), dim=1) for name in names]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factor = (self._clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for name in names:
            gradient = gradients[name]
            gradients[name] = gradient * factor.view(-1, *[1] * (gradient.dim() - 1))


def _rows(stack: Tensor) -> Tensor:
    """A stack of tensors, of scalars too, as a matrix with a row for each."""
    return stack.reshape(len(stack), -1)


def _second_gradients(
    module: nn.Module, losses: Tensor, learning: Mapping[str, Tensor], beyond: Beyond
) -> dict[str, Tensor]:
    """Gradients of second losses, shape [K], for the elements that learn from them."""
    found = torch.autograd.grad(
        losses.sum(), list(learning.values()), retain_graph=True, allow_unused=True
    )
    gradients = {}
    for name, gradient in zip(learning, found, strict=True):
        mask = beyond(name, module.get_parameter(name))
        if gradient is not None and mask is not None:
            gradients[name] = torch.where(mask, gradient, 0)
    return gradients


class _Called(nn.Module):
    """Runs a function of a network as if it were the network's forward()."""

    def __init__(self, module: nn.Module, run: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(self.module, *given)


def _run_stacked(
    module: nn.Module,
    run: Callable[..., tuple[Tensor, Tensor]],
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    given: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """Run a function of a network for K values of its tensors and K arguments."""
    called = _Called(module, run)
    tensors = {f"module.{name}": one for name, one in (*parameters.items(), *buffers.items())}

    def one(tensors: dict[str, Tensor], *given: Tensor) -> Any:
        return functional_call(called, tensors, given)

    # Layers that draw could not draw as they do one by one: so they are an error here.
    stacked: Any = torch.vmap(one, randomness="error")
    with torch.enable_grad():
        losses, more = stacked(tensors, *given)
    return losses, more


def _with_outputs(loss: StackedLoss) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(module: nn.Module, inputs: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        outputs = module(inputs)
        return loss(outputs, *given), outputs

    return run


def _culprit(module: nn.Module, again: Callable[[], object]) -> str:
    """Say in which layer something fails, by doing it again."""
    entered: list[str] = []
    handles = []
    for name, layer in module.named_modules():
        if name:
            said = f"layer {name} ({type(layer).__name__})"
            handles.append(layer.register_forward_pre_hook(lambda *_, s=said: entered.append(s)))
            handles.append(layer.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        again()
    except Exception:
        return entered[-1] if entered else "the loss"
    finally:
        for handle in handles:
            handle.remove()
    return "the backward pass of the network"
