"""One step of the optimiser for a sub-network and one inside of it."""

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
    MaskPolicy,
    RandomMasks,
    kept_counts,
    make_policy,
    zero_dropped,
)
from distreal_dse.errors import InputError
from networks import NETWORKS, Plain, inputs_of, kept_part, targets_of, trained

# Rates of the outer and of the inner sub-network in each mini-batch.
RATES = ((0.3, 0.6), (0.0, 0.5), (0.5, 0.5), (0.0, 0.0), (0.2, 0.8))


def distilled(outputs: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    soft = functional.kl_div(
        outputs.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )
    return 0.25 * functional.cross_entropy(outputs, targets) + 0.75 * soft


def optimizer_of(module: nn.Module, kind: str) -> Optimizer:
    if kind == "adam":
        return Adam(module.parameters(), lr=0.01, weight_decay=0.01)
    return SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def trainer_of(
    network: DroppableNetwork, optimizer: Optimizer, masks: MaskPolicy | None = None
) -> DropoutTrainer:
    return DropoutTrainer(
        network,
        optimizer,
        functional.cross_entropy,
        masks or make_policy("ordered"),
        torch.Generator().manual_seed(0),
        clip_norm=0.5,
    )


def counts_of(network: DroppableNetwork, rate: float) -> KeptCounts:
    return kept_counts([rate] * len(network.groups), network.groups)


def values_of(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                values[f"{name} {key}"] = value.detach().clone()
    return values


def first(network: DroppableNetwork, counts: KeptCounts) -> Tensor:
    widths = network.full_counts
    return torch.cat([torch.arange(w) < c for w, c in zip(widths, counts, strict=True)])


def zeroing_step(
    full: nn.Module,
    optimizer: Optimizer,
    network: DroppableNetwork,
    masks: tuple[Tensor, Tensor],
    inputs: Tensor,
    targets: Tensor,
) -> float:
    """By zeroing in the full network, whose gradients add up; no small network."""
    channels = network.channels
    start = values_of(full, optimizer)
    statistics, losses, teacher = dict(full.named_buffers()), [], torch.empty(0)
    optimizer.zero_grad()
    for mask in masks:
        before = {name: tensor.clone() for name, tensor in statistics.items()}
        handles = zero_dropped(full.train(), channels, mask)
        outputs = full(inputs)
        if losses:
            losses.append(distilled(outputs, teacher, targets))
        else:
            teacher = outputs.detach()
            losses.append(functional.cross_entropy(outputs, targets))
        losses[-1].backward()
        for handle in handles:
            handle.remove()
        for name, tensor in statistics.items():
            dropped = ~kept_part(channels, name, mask, tensor)
            tensor[dropped] = before[name][dropped]
    outer_parts = {
        name: kept_part(channels, name, masks[0], parameter)
        for name, parameter in full.named_parameters()
    }
    torch.nn.utils.clip_grad_norm_(full.parameters(), 0.5)
    optimizer.step()
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            dropped = ~outer_parts[name]
            parameter[dropped] = start[name][dropped]
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    old = start.get(f"{name} {key}", torch.zeros_like(value))
                    value[dropped] = old[dropped]
    return losses[0].item()


DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_nested_step_equals_autograd_of_both_losses_with_zeroing(
    kind: str, optimizer: str, device: str
) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]).to(device), inputs_of().to(device))
    full = copy.deepcopy(network.module)
    its_optimizer = optimizer_of(network.module, optimizer)
    of_full = optimizer_of(full, optimizer)
    trainer = trainer_of(network, its_optimizer)
    for number, rates in enumerate(RATES):
        inputs, targets = inputs_of(seed=number).to(device), targets_of(seed=number).to(device)
        counts, inner = (counts_of(network, rate) for rate in rates)
        if counts == inner:
            plain = copy.deepcopy(network.module), copy.deepcopy(its_optimizer.state_dict())
            loss = trainer.step_nested(inputs, targets, counts, inner, distilled)
            found = values_of(network.module, its_optimizer)
            network.module.load_state_dict(plain[0].state_dict())
            its_optimizer.load_state_dict(plain[1])
            assert loss == trainer.step(inputs, targets, counts)
            expected = values_of(network.module, its_optimizer)
            assert all(torch.equal(found[name], expected[name]) for name in found)
            full.load_state_dict(network.module.state_dict())
            of_full.load_state_dict(copy.deepcopy(its_optimizer.state_dict()))
            continue
        loss = trainer.step_nested(inputs, targets, counts, inner, distilled)
        masks = first(network, counts), first(network, inner)
        assert torch.equal(trainer.last_mask, masks[0])
        assert loss == pytest.approx(
            zeroing_step(full, of_full, network, masks, inputs, targets), rel=1e-9
        )
        values = values_of(network.module, its_optimizer)
        for name, value in values_of(full, of_full).items():
            torch.testing.assert_close(values[name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_ordinary_steps_may_follow() -> None:
    """Nothing of the inner sub-network is left behind in gradients or memory."""
    networks = [DroppableNetwork(trained(Plain), inputs_of()) for _ in range(2)]
    for position, network in enumerate(networks):
        optimizer = SGD(network.module.parameters(), lr=0.1)
        trainer = trainer_of(network, optimizer)
        if position:
            with torch.no_grad():
                before = copy.deepcopy(network.module.state_dict())
            trainer.step_nested(inputs_of(), targets_of(), (6, 4), (3, 2), distilled)
            network.module.load_state_dict(before)
        trainer.step(inputs_of(), targets_of(), (6, 4))
        trainer.step(inputs_of(), targets_of(), (3, 2))
        trainer.step(inputs_of(), targets_of(), network.full_counts)
    one, other = (network.module.state_dict() for network in networks)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_masks_that_are_not_nested_are_refused() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1), RandomMasks())
    with pytest.raises(InputError, match="masks 'random': expected .* part of those of more"):
        for _ in range(20):
            trainer.step_nested(inputs_of(), targets_of(), (4, 3), (3, 2), distilled)
