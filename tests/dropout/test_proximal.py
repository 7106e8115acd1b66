"""FedProx's proximal term: against autograd of the whole objective, with zeroing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    Proximal,
    kept_counts,
    make_policy,
    zero_dropped,
)
from distreal_dse.errors import InputError
from networks import NETWORKS, inputs_of, kept_part, targets_of, trained

# Rates of the mini-batches: the full network, and sub-networks.
RATES = (0.3, 0.0, 0.5, 0.3)
WEIGHT = 0.7


def optimizer_of(module: nn.Module, kind: str) -> Optimizer:
    if kind == "adam":
        return Adam(module.parameters(), lr=0.01)
    return SGD(module.parameters(), lr=0.1, momentum=0.9)


def counts_of(network: DroppableNetwork, rate: float) -> KeptCounts:
    return kept_counts([rate] * len(network.groups), network.groups)


def first(network: DroppableNetwork, counts: KeptCounts) -> Tensor:
    widths = network.full_counts
    return torch.cat([torch.arange(w) < c for w, c in zip(widths, counts, strict=True)])


def trainer_of(
    network: DroppableNetwork, optimizer: Optimizer, proximal: Proximal | None
) -> DropoutTrainer:
    return DropoutTrainer(
        network,
        optimizer,
        functional.cross_entropy,
        make_policy("ordered"),
        torch.Generator(),
        clip_norm=2.0,
        proximal=proximal,
    )


def step_of_equation_2(
    full: nn.Module,
    optimizer: Optimizer,
    network: DroppableNetwork,
    masks: list[Tensor],
    start: dict[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
) -> None:
    """One step on the losses of sub-networks plus μ/2 ‖w − w_t‖² of what the first one has."""
    channels = network.channels
    before = {name: tensor.detach().clone() for name, tensor in full.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.zero_grad()
    for mask in masks:
        handles = zero_dropped(full.train(), channels, mask)
        functional.cross_entropy(full(inputs), targets).backward()
        for handle in handles:
            handle.remove()
    parts = {n: kept_part(channels, n, masks[0], p) for n, p in full.named_parameters()}
    squares = [
        ((p - start[n]) ** 2)[parts[n]].sum()
        for n, p in full.named_parameters()
        if p.grad is not None
    ]
    (WEIGHT / 2 * sum(squares)).backward()  # type: ignore[union-attr]
    torch.nn.utils.clip_grad_norm_(full.parameters(), 2.0)
    optimizer.step()
    with torch.no_grad():
        for index, (name, parameter) in enumerate(full.named_parameters()):
            dropped = ~parts[name]
            parameter[dropped] = before[name][dropped]
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    old = state.get(index, {}).get(key, torch.zeros_like(value))
                    value[dropped] = old[dropped]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_steps_are_those_of_the_objective_of_equation_2(
    kind: str, optimizer: str, nested: bool
) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of())
    start = {name: value + 0.1 for name, value in network.copy_state().items()}
    full = copy.deepcopy(network.module)
    own, of_full = (optimizer_of(module, optimizer) for module in (network.module, full))
    trainer = trainer_of(network, own, Proximal(WEIGHT, start))
    for number, rate in enumerate(RATES):
        inputs, targets = inputs_of(seed=number), targets_of(seed=number)
        both = [counts_of(network, rate), counts_of(network, 0.8)][: 1 + nested]
        masks = [first(network, counts) for counts in both]
        step_of_equation_2(full, of_full, network, masks, start, inputs, targets)
        if nested:
            trainer.step_nested(
                inputs,
                targets,
                *both,
                lambda outputs, _, targets: functional.cross_entropy(outputs, targets),
            )
        else:
            trainer.step(inputs, targets, *both)
        for (name, found), expected in zip(
            network.module.named_parameters(), full.parameters(), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, msg=name)
        full.load_state_dict(network.module.state_dict())  # running statistics


def test_a_weight_of_zero_changes_no_bit() -> None:
    found = []
    for proximal in (None, Proximal(0.0, {})):
        network = DroppableNetwork(trained(NETWORKS["plain"]), inputs_of())
        trainer = trainer_of(network, optimizer_of(network.module, "momentum"), proximal)
        losses = [
            trainer.step(inputs_of(seed=i), targets_of(seed=i), counts_of(network, rate))
            for i, rate in enumerate(RATES)
        ]
        found.append((losses, network.copy_state()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())


def test_what_it_starts_from_is_not_changed() -> None:
    network = DroppableNetwork(trained(NETWORKS["residual"]), inputs_of())
    start = network.copy_state()
    kept = {name: value.clone() for name, value in start.items()}
    trainer = trainer_of(network, optimizer_of(network.module, "adam"), Proximal(WEIGHT, start))
    for number, rate in enumerate(RATES):
        counts = counts_of(network, rate)
        trainer.step(inputs_of(seed=number), targets_of(seed=number), counts)
    assert all(torch.equal(value, kept[name]) for name, value in start.items())


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match=r"\(prox\): expected 0 or more, such as 0.01, found"):
        Proximal(weight, {})
