"""Training by mini-batches of sub-networks."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from distreal_dse.dropout import (
    ChannelMap,
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    MaskPolicy,
    RandomMasks,
    kept_counts,
    zero_dropped,
)
from distreal_dse.errors import InputError, UnsupportedOptimizerError, VectorError
from networks import (
    CLASSES,
    NETWORKS,
    PACKINGS,
    Biased,
    Concatenating,
    Plain,
    Residual,
    inputs_of,
    kept_part,
    targets_of,
    trained,
    trainer_of,
)
from pairs import all_pairs

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1),
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda parameters: SGD(
        parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda parameters: Adam(parameters, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda parameters: Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1),
}
OTHER_OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adadelta": lambda parameters: torch.optim.Adadelta(parameters, lr=0.5),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    "adamax": lambda parameters: torch.optim.Adamax(parameters, lr=0.01),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.01),
    "radam": lambda parameters: torch.optim.RAdam(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(
        parameters, lr=0.01, momentum=0.5, centered=True
    ),
}

pytestmark = pytest.mark.usefixtures("packed")

# Rate of all groups in each mini-batch; zero is a step of the full network in between.
RATES = (0.5, 0.2, 0.0, 0.9, 0.5, 0.3)


def counts_of(network: DroppableNetwork, rate: float) -> KeptCounts:
    return kept_counts([rate] * len(network.groups), network.groups)


def values_of(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of parameters, buffers and the optimiser's tensors, by name."""
    values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                values[f"{name} {key}"] = value.detach().clone()
    return values


def zeroing_step(
    full: nn.Module,
    optimizer: Optimizer,
    channels: ChannelMap,
    mask: Tensor,
    inputs: Tensor,
    targets: Tensor,
    clip_norm: float = math.inf,
) -> float:
    """The same step without a small network: zero, step, and put back all that was dropped."""
    before = values_of(full, optimizer)
    handles = zero_dropped(full.train(), channels, mask)
    optimizer.zero_grad()
    loss = functional.cross_entropy(full(inputs), targets)
    loss.backward()
    norm = sum(p.grad.square().sum() for p in full.parameters() if p.grad is not None) ** 0.5
    for parameter in full.parameters():
        if parameter.grad is not None and norm > clip_norm:
            parameter.grad *= clip_norm / norm
    optimizer.step()
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        tensors: dict[str, Tensor] = dict(full.state_dict())
        for name, parameter in full.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name} {key}"] = value
        for name, tensor in tensors.items():
            dropped = ~kept_part(channels, name, mask, tensor)
            tensor[dropped] = before.get(name, torch.zeros_like(tensor))[dropped]
    return loss.item()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kind", "optimizer", "packed"), all_pairs(NETWORKS, OPTIMIZERS, PACKINGS), indirect=["packed"]
)
def test_training_equals_that_of_the_zeroed_network(kind: str, optimizer: str, device: str) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]).to(device), inputs_of().to(device))
    full = copy.deepcopy(network.module)
    its_optimizer = OPTIMIZERS[optimizer](network.module.parameters())
    of_full = OPTIMIZERS[optimizer](full.parameters())
    trainer = trainer_of(network, its_optimizer, seed=7)
    masks = torch.Generator().manual_seed(7)
    for number, rate in enumerate(RATES):
        inputs, targets = inputs_of(seed=number).to(device), targets_of(seed=number).to(device)
        counts = counts_of(network, rate)
        loss = trainer.step(inputs, targets, counts)
        mask = torch.ones(network.channels.fixed, dtype=torch.bool)
        if rate:
            mask = RandomMasks().draw(network.channels.widths, counts, masks)
        expected = zeroing_step(full, of_full, network.channels, mask, inputs, targets)
        assert loss == pytest.approx(expected, rel=1e-9)
        values = values_of(network.module, its_optimizer)
        for name, value in values_of(full, of_full).items():
            torch.testing.assert_close(values[name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["residual", "depthwise", "group-norm", "layer-norm", "shuffling"])
def test_channels_last_memory_format_is_preserved_and_changes_no_values(
    kind: str, device: str
) -> None:
    values = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        module = trained(NETWORKS[kind]).to(device, memory_format=memory_format)
        network = DroppableNetwork(module, inputs_of().to(device, memory_format=memory_format))
        optimizer = OPTIMIZERS["momentum"](module.parameters())
        trainer = trainer_of(network, optimizer)
        for number, rate in enumerate((0.5, 0.0, 0.3)):
            inputs = inputs_of(seed=number).to(device, memory_format=memory_format)
            targets = targets_of(seed=number).to(device)
            trainer.step(inputs, targets, counts_of(network, rate))
        for name, parameter in module.named_parameters():
            if parameter.dim() == 4:
                state = optimizer.state[parameter]["momentum_buffer"]
                for tensor in (parameter, state):
                    assert tensor.is_contiguous(memory_format=memory_format), name
        values.append(values_of(module, optimizer))
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        torch.testing.assert_close(values[1][name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "optimizer", "packed"),
    all_pairs(
        ("residual", "concatenating", "depthwise", "group-norm", "layer-norm", "instance-norm"),
        OPTIMIZERS | OTHER_OPTIMIZERS,
        PACKINGS,
    ),
    indirect=["packed"],
)
def test_dropped_filters_keep_their_values_momentum_and_statistics(
    kind: str, optimizer: str
) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of())
    its_optimizer = (OPTIMIZERS | OTHER_OPTIMIZERS)[optimizer](network.module.parameters())
    trainer = trainer_of(network, its_optimizer, seed=3)
    masks = torch.Generator().manual_seed(3)
    before = values_of(network.module, its_optimizer)
    for number, rate in enumerate((0.5, 0.8, 0.3)):
        counts = counts_of(network, rate)
        trainer.step(inputs_of(seed=number), targets_of(seed=number), counts)
        mask = RandomMasks().draw(network.channels.widths, counts, masks)
        after = values_of(network.module, its_optimizer)
        for name, value in after.items():
            dropped = ~kept_part(network.channels, name, mask, value)
            # State that an optimiser creates at its first step is zero where nothing was trained.
            assert torch.equal(
                value[dropped], before.get(name, torch.zeros_like(value))[dropped]
            ), name
        for name, parameter in network.module.named_parameters():
            kept = kept_part(network.channels, name, mask, parameter)
            moved = after[name] != before[name]
            if not (rate == 0.8 and kind in ("group-norm", "layer-norm")):
                # (The norm of a single kept channel does not depend on what lies before it.)
                assert moved[kept].any(), f"{name} was not trained"
        before = after


@pytest.mark.parametrize(
    ("kind", "optimizer", "packed"),
    all_pairs(NETWORKS, ("nesterov", "adam", "adamw"), PACKINGS),
    indirect=["packed"],
)
def test_rate_zero_is_bit_identical_to_plain_pytorch(kind: str, optimizer: str) -> None:
    plain = trained(NETWORKS[kind]).float()
    network = DroppableNetwork(copy.deepcopy(plain), inputs_of().float())
    of_plain = OPTIMIZERS[optimizer](plain.parameters())
    its_optimizer = OPTIMIZERS[optimizer](network.module.parameters())
    trainer = trainer_of(network, its_optimizer)
    for number in range(3):
        inputs, targets = inputs_of(seed=number).float(), targets_of(seed=number)
        loss = trainer.step(inputs, targets, counts_of(network, 0.0))
        plain.train()
        of_plain.zero_grad()
        expected = functional.cross_entropy(plain(inputs), targets)
        expected.backward()
        of_plain.step()
        assert loss == expected.item()
    assert_same(values_of(network.module, its_optimizer), values_of(plain, of_plain))


class WithDropout(nn.Sequential):
    """Ordinary dropout draws from the global generator."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(8, 6, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, CLASSES),
        )  # fmt: skip


def test_ordinary_dropout_draws_as_in_plain_pytorch_at_rate_zero() -> None:
    plain = trained(WithDropout)
    network = DroppableNetwork(copy.deepcopy(plain), inputs_of())
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1))
    of_plain = SGD(plain.parameters(), lr=0.1)
    start = torch.get_rng_state()
    for _ in range(3):
        trainer.step(inputs_of(), targets_of(), network.full_counts)
    behind = torch.get_rng_state()
    torch.set_rng_state(start)
    for _ in range(3):
        of_plain.zero_grad()
        functional.cross_entropy(plain.train()(inputs_of()), targets_of()).backward()
        of_plain.step()
    assert torch.equal(torch.get_rng_state(), behind)
    assert_same(dict(network.module.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_trainer_leaves_global_generators_alone(rate: float) -> None:
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    network = DroppableNetwork(trained(Concatenating), inputs_of())
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1, momentum=0.9))
    for _ in range(2):
        trainer.step(inputs_of(), targets_of(), counts_of(network, rate))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]


def test_full_mini_batches_take_no_mask_randomness() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    masks = torch.Generator().manual_seed(0)
    state = masks.get_state()
    optimizer = SGD(network.module.parameters(), lr=0.1)
    trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, RandomMasks(), masks)
    trainer.step(inputs_of(), targets_of(), network.full_counts)
    assert torch.equal(masks.get_state(), state)


def test_equal_seeds_train_equally_and_other_seeds_do_not() -> None:
    def run(seed: int) -> dict[str, Tensor]:
        network = DroppableNetwork(trained(Residual), inputs_of())
        optimizer = OPTIMIZERS["adam"](network.module.parameters())
        trainer = trainer_of(network, optimizer, seed)
        for number, rate in enumerate(RATES):
            trainer.step(inputs_of(seed=number), targets_of(seed=number), counts_of(network, rate))
        return values_of(network.module, optimizer)

    assert_same(run(1), run(1))
    assert not torch.equal(run(1)["stem.weight"], run(2)["stem.weight"])


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_layers_train_in_the_mode_that_they_have_in_the_full_network(rate: float) -> None:
    network = DroppableNetwork(trained(Plain).train(), inputs_of())
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1))
    counts = counts_of(network, rate)
    trainer.step(inputs_of(seed=0), targets_of(), counts)  # the sub-network is built by now
    frozen, *others = (
        part for part in network.module.modules() if isinstance(part, nn.BatchNorm2d)
    )
    frozen.eval()
    before = [copy.deepcopy(part.running_mean) for part in (frozen, *others)]
    trainer.step(inputs_of(seed=1), targets_of(), counts)
    after = [part.running_mean for part in (frozen, *others)]
    changed = [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]  # type: ignore[arg-type]
    assert changed == [False, *[True] * len(others)]


def test_groups_without_dropout_train_all_their_filters() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    before = copy.deepcopy(network.module.state_dict())
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1))
    trainer.step(inputs_of(), targets_of(), (8, 2))
    after = network.module.state_dict()
    trained_filters = (after["0.weight"] != before["0.weight"]).flatten(1).any(1)
    assert trained_filters.all()
    assert int((after["4.weight"] != before["4.weight"]).flatten(1).any(1).sum()) == 2


# --- Hyper-parameters -----------------------------------------------------------------------------


def test_learning_rate_schedule_takes_effect_in_sub_networks() -> None:
    network = DroppableNetwork(trained(Biased), inputs_of())
    optimizer = SGD(network.module.parameters(), lr=1.0)
    trainer = trainer_of(network, optimizer)
    schedule = StepLR(optimizer, step_size=1, gamma=0.0)
    trainer.step(inputs_of(), targets_of(), (4, 3))
    before = copy.deepcopy(network.module.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # has its own test
        schedule.step()
    trainer.step(inputs_of(), targets_of(), (4, 3))
    assert_same(dict(network.module.state_dict()), before)


def test_learning_rate_scales_the_step_of_a_sub_network() -> None:
    def moved(rate: float) -> Tensor:
        network = DroppableNetwork(trained(Biased), inputs_of())
        before = network.module.get_parameter("first.weight").detach().clone()
        optimizer = SGD(network.module.parameters(), lr=0.5)
        trainer = trainer_of(network, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        trainer.step(inputs_of(), targets_of(), (4, 3))
        return network.module.get_parameter("first.weight").detach() - before

    torch.testing.assert_close(moved(0.2), 4 * moved(0.05), rtol=1e-9, atol=1e-12)


def test_schedule_in_step_with_sub_networks_does_not_warn() -> None:
    network = DroppableNetwork(trained(Biased), inputs_of())
    optimizer = SGD(network.module.parameters(), lr=1.0)
    trainer = trainer_of(network, optimizer)
    schedule = StepLR(optimizer, step_size=1)
    trainer.step(inputs_of(), targets_of(), (4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def test_parameter_groups_keep_their_own_hyper_parameters() -> None:
    network = DroppableNetwork(trained(Biased), inputs_of())
    named = dict(network.module.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [named["first.weight"], named["second.bias"]], "lr": 0.0},
        {"params": [named["second.weight"]], "lr": 1e-3, "weight_decay": 100.0},
        {"params": [p for name, p in named.items() if name.startswith("head")]},
        {"params": [p for name, p in named.items() if name.startswith("hidden")]},
        {"params": [named["first.bias"]], "maximize": True},
    ]
    optimizer = SGD(groups, lr=0.1)
    full = copy.deepcopy(network.module)
    before = dict(full.state_dict())
    masks = torch.Generator().manual_seed(0)
    mask = RandomMasks().draw((8, 6), (4, 3), masks)
    handles = zero_dropped(full, network.channels, mask)
    functional.cross_entropy(full(inputs_of()), targets_of()).backward()
    for handle in handles:
        handle.remove()
    slopes = {name: p.grad for name, p in full.named_parameters() if p.grad is not None}

    trainer_of(network, optimizer).step(inputs_of(), targets_of(), (4, 3))
    after = network.module.state_dict()
    region = kept_part(network.channels, "second.weight", mask, before["second.weight"])
    expected = {
        **before,
        "second.weight": before["second.weight"]
        - 1e-3 * (slopes["second.weight"] + 100 * before["second.weight"]) * region,
        "first.bias": before["first.bias"] + 0.1 * slopes["first.bias"],
        **{
            name: before[name] - 0.1 * slopes[name]
            for name in ("head.weight", "head.bias", "hidden.weight", "hidden.bias")
        },
    }
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)
    assert torch.equal(after["first.weight"], before["first.weight"])


def test_optimizer_over_named_parameters_works() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    optimizer = SGD(network.module.named_parameters(), lr=0.1, momentum=0.9)
    trainer = trainer_of(network, optimizer)
    trainer.step(inputs_of(), targets_of(), (4, 3))
    assert optimizer.param_groups[0]["param_names"][0] == "0.weight"
    assert len(optimizer.state_dict()["state"]) == len(list(network.module.parameters()))


def test_an_optimizer_of_another_network_is_refused() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    with pytest.raises(InputError, match="optimiser holds parameters of another network"):
        trainer_of(network, SGD(trained(Plain).parameters(), lr=0.1))


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_norms_that_nothing_can_be_clipped_to_are_refused(norm: float) -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    optimizer = SGD(network.module.parameters(), lr=0.1)
    with pytest.raises(InputError, match="clip_norm: expected a number above 0"):
        DropoutTrainer(
            network, optimizer, functional.cross_entropy, RandomMasks(), torch.Generator(), norm
        )


def test_gradients_of_parameters_that_no_optimizer_holds_do_not_pile_up() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    some = [p for name, p in network.module.named_parameters() if not name.startswith("0.")]
    trainer = trainer_of(network, SGD(some, lr=0.0))
    for _ in range(2):
        trainer.step(inputs_of(), targets_of(), (4, 3))
        small = network.subnetwork((4, 3)).module
        assert all(parameter.grad is None for parameter in small.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_optimizer_over_some_parameters_leaves_the_others_alone(optimizer: str) -> None:
    network = DroppableNetwork(trained(Residual), inputs_of())
    its_optimizer = OPTIMIZERS[optimizer](
        [p for name, p in network.module.named_parameters() if name.startswith("head")]
    )
    before = copy.deepcopy(dict(network.module.named_parameters()))
    trainer_of(network, its_optimizer).step(inputs_of(), targets_of(), (4, 3, 3))
    for name, parameter in network.module.named_parameters():
        assert torch.equal(parameter, before[name]) == (not name.startswith("head")), name
    # The checkpoint of an optimiser knows its own parameters only.
    state = its_optimizer.state_dict()["state"]
    assert state.keys() <= {0, 1}


def test_frozen_parameters_stay_and_the_rest_is_trained() -> None:
    network = DroppableNetwork(trained(Residual), inputs_of())
    for name, parameter in network.module.named_parameters():
        parameter.requires_grad_(not name.startswith("stem"))
    before = copy.deepcopy(dict(network.module.named_parameters()))
    optimizer = OPTIMIZERS["adam"](network.module.parameters())
    trainer_of(network, optimizer).step(inputs_of(), targets_of(), (4, 3, 3))
    for name, parameter in network.module.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("stem"), name


# --- Life of a trainer ----------------------------------------------------------------------------


def test_checkpoint_behind_sub_networks_continues_identically() -> None:
    def start() -> tuple[DroppableNetwork, Optimizer]:
        network = DroppableNetwork(trained(Concatenating), inputs_of())
        return network, OPTIMIZERS["adam"](network.module.parameters())

    network, optimizer = start()
    trainer = trainer_of(network, optimizer, seed=1)
    for number, rate in enumerate(RATES):
        trainer.step(inputs_of(seed=number), targets_of(seed=number), counts_of(network, rate))
    restored, its_optimizer = start()
    restored.module.load_state_dict(copy.deepcopy(network.module.state_dict()))
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = trainer_of(restored, its_optimizer, seed=2)
    trainer = trainer_of(network, optimizer, seed=2)
    for one in (trainer, again):
        one.step(inputs_of(seed=9), targets_of(seed=9), counts_of(network, 0.5))
    assert_same(values_of(restored.module, its_optimizer), values_of(network.module, optimizer))


@pytest.mark.parametrize("kind", ["plain", "concatenating"])
def test_values_assigned_between_mini_batches_are_the_ones_trained(kind: str) -> None:
    """`torch.nn.utils.vector_to_parameters`, common in federated code, assigns ``p.data``."""

    def run(assign: Callable[[nn.Module, Tensor], None]) -> dict[str, Tensor]:
        network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of())
        optimizer = SGD(network.module.parameters(), lr=0.1)
        trainer = trainer_of(network, optimizer)
        counts = counts_of(network, 0.5)
        trainer.step(inputs_of(), targets_of(), counts)  # builds the sub-network
        vector = torch.nn.utils.parameters_to_vector(trained(NETWORKS[kind], 5).parameters())
        assign(network.module, vector.detach())
        trainer.step(inputs_of(seed=1), targets_of(seed=1), counts)
        return dict(network.module.named_parameters())

    def copied(module: nn.Module, vector: Tensor) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(vector[: parameter.numel()].view_as(parameter))
                vector = vector[parameter.numel() :]

    def assigned(module: nn.Module, vector: Tensor) -> None:
        torch.nn.utils.vector_to_parameters(vector, module.parameters())

    assert_same(run(assigned), run(copied))


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_clipped_as_in_the_zeroed_network(kind: str) -> None:
    network = DroppableNetwork(trained(NETWORKS[kind]), inputs_of())
    full = copy.deepcopy(network.module)
    optimizer = OPTIMIZERS["momentum"](network.module.parameters())
    of_full = OPTIMIZERS["momentum"](full.parameters())
    policy, masks = RandomMasks(), torch.Generator().manual_seed(7)
    trainer = DropoutTrainer(
        network, optimizer, functional.cross_entropy, policy,
        torch.Generator().manual_seed(7), clip_norm=0.1,
    )  # fmt: skip
    for number, rate in enumerate((0.5, 0.0, 0.3)):
        inputs, targets = inputs_of(seed=number), targets_of(seed=number)
        counts = counts_of(network, rate)
        trainer.step(inputs, targets, counts)
        mask = torch.ones(network.channels.fixed, dtype=torch.bool)
        if rate:
            mask = policy.draw(network.channels.widths, counts, masks)
        zeroing_step(full, of_full, network.channels, mask, inputs, targets, clip_norm=0.1)
        of_network = values_of(network.module, optimizer)
        for name, value in values_of(full, of_full).items():  # PyTorch divides by norm + 1e-6
            torch.testing.assert_close(of_network[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_state_that_was_thrown_away_starts_from_zero() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    optimizer = OPTIMIZERS["momentum"](network.module.parameters())
    trainer = trainer_of(network, optimizer)
    trainer.step(inputs_of(), targets_of(), network.full_counts)
    trainer.step(inputs_of(), targets_of(), (4, 3))
    optimizer.state.clear()
    trainer.step(inputs_of(), targets_of(), (1, 1))
    momentum = optimizer.state[network.module.get_parameter("0.weight")]["momentum_buffer"]
    assert int(momentum.flatten(1).any(1).sum()) == 1


def test_failing_loss_leaves_parameters_and_state_as_they_were() -> None:
    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ArithmeticError("no loss")

    network = DroppableNetwork(trained(Plain), inputs_of())
    optimizer = OPTIMIZERS["momentum"](network.module.parameters())
    trainer_of(network, optimizer).step(inputs_of(), targets_of(), (4, 3))
    before = values_of(network.module, optimizer)
    masks = torch.Generator().manual_seed(0)
    trainer = DropoutTrainer(network, optimizer, fails, RandomMasks(), masks)
    with pytest.raises(ArithmeticError):
        trainer.step(inputs_of(), targets_of(), (4, 3))
    after = values_of(network.module, optimizer)
    counters = {name for name in before if name.endswith("num_batches_tracked")}
    assert_same(
        {name: value for name, value in after.items() if name not in counters},
        {name: value for name, value in before.items() if name not in counters},
    )


class OneTooMany(MaskPolicy):
    """A user's policy with a bug."""

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        mask = RandomMasks().draw(widths, counts, generator)
        mask[mask.logical_not().nonzero()[0]] = True
        return mask


def test_mask_that_does_not_fit_the_counts_is_refused() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    before = copy.deepcopy(dict(network.module.state_dict()))
    optimizer = SGD(network.module.parameters(), lr=0.1)
    masks = torch.Generator().manual_seed(0)
    trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, OneTooMany(), masks)
    with pytest.raises((VectorError, ValueError)):
        trainer.step(inputs_of(), targets_of(), (4, 3))
    assert_same(dict(network.module.state_dict()), before)


class Turning(MaskPolicy):
    """Changes the one mask that it hands out: one half of the filters, then the other one."""

    def __init__(self) -> None:
        self.mask = torch.tensor([True] * 4 + [False] * 4 + [True] * 3 + [False] * 3)

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        return self.mask.logical_not_()


def test_a_policy_may_change_the_mask_that_it_handed_out() -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    weight = next(network.module.parameters())
    optimizer, masks = SGD(network.module.parameters(), lr=0.1), torch.Generator()
    trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, Turning(), masks)
    for first in (False, True, False):
        before = weight.detach().clone()
        trainer.step(inputs_of(), targets_of(), (4, 3))
        changed = (weight != before).flatten(1).any(1)
        assert changed.tolist() == [first] * 4 + [not first] * 4


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_loss_is_that_of_the_mini_batch_before_its_step(rate: float) -> None:
    network = DroppableNetwork(trained(Biased), inputs_of())
    counts = counts_of(network, rate)
    mask = RandomMasks().draw((8, 6), counts, torch.Generator().manual_seed(0))
    full = copy.deepcopy(network.module)
    zero_dropped(full, network.channels, mask if rate else torch.ones(14, dtype=torch.bool))
    expected = functional.cross_entropy(full(inputs_of()), targets_of()).item()
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.1))
    assert trainer.step(inputs_of(), targets_of(), counts) == pytest.approx(expected, rel=1e-9)


def test_training_in_sub_networks_learns() -> None:
    """Samples of two classes that differ in the mean of one colour."""
    draws = torch.Generator().manual_seed(0)
    targets = torch.arange(64) % 2
    inputs = torch.randn(64, 3, 8, 8, generator=draws, dtype=torch.double)
    inputs[:, 0] += 2.0 * targets[:, None, None] - 1
    network = DroppableNetwork(trained(Residual), inputs[:4])
    trainer = trainer_of(network, SGD(network.module.parameters(), lr=0.05, momentum=0.9))
    for _ in range(20):
        trainer.step(inputs, targets, counts_of(network, 0.5))
    with torch.no_grad():
        outputs = network.module.train()(inputs)
    assert (outputs.argmax(1) == targets).double().mean() > 0.95


@pytest.mark.parametrize("make", [torch.optim.LBFGS, torch.optim.Rprop, torch.optim.Adafactor])
def test_optimizer_whose_state_cannot_be_cut_is_refused_by_name(
    make: Callable[[Iterable[nn.Parameter]], Optimizer],
) -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    optimizer = make(network.module.parameters())
    with pytest.raises(UnsupportedOptimizerError, match=type(optimizer).__name__):
        trainer_of(network, optimizer)


# --- Optimisers of other classes, and hooks -------------------------------------------------------


class Renamed(SGD):
    """Another way to make one, and the step that it always takes."""

    def __init__(self, parameters: Iterable[nn.Parameter], speed: float) -> None:
        super().__init__(parameters, lr=speed, momentum=0.9)


class Normalising(SGD):
    """Looks at all elements of a parameter at once."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= parameter.grad.norm()
        super().step()


class Centralised(Adam):
    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad -= parameter.grad.mean()
        return bool(super()._init_group(group, *lists))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Normalising(p, lr=0.1), "Normalising .* a step.. of its own.* that of SGD"),
        (lambda p: Centralised(p, lr=0.1), "Centralised .* an? _init_group.. of its own.*Adam"),
    ],
    ids=["step", "what step calls"],
)
def test_subclasses_with_a_step_of_their_own_are_refused(make: MakeOptimizer, message: str) -> None:
    network = DroppableNetwork(trained(Plain), inputs_of())
    with pytest.raises(UnsupportedOptimizerError, match=message):
        trainer_of(network, make(network.module.parameters()))


def test_subclass_with_the_step_of_its_kind_trains_as_its_kind() -> None:
    def run(make: MakeOptimizer) -> dict[str, Tensor]:
        network = DroppableNetwork(trained(Plain), inputs_of())
        optimizer = make(network.module.parameters())
        trainer = trainer_of(network, optimizer)
        for number, rate in enumerate(RATES):
            trainer.step(inputs_of(seed=number), targets_of(seed=number), counts_of(network, rate))
        return values_of(network.module, optimizer)

    assert_same(
        run(lambda parameters: Renamed(parameters, 0.1)),
        run(lambda parameters: SGD(parameters, lr=0.1, momentum=0.9)),
    )


def test_step_hooks_see_and_change_the_gradients_of_the_kept_filters() -> None:
    """With gradients of ones, a step without momentum takes the learning rate off."""
    network = DroppableNetwork(trained(Biased), inputs_of())
    optimizer = SGD(network.module.parameters(), lr=0.25)
    trainer = trainer_of(network, optimizer, seed=3)
    trainer.step(inputs_of(), targets_of(), (4, 3))  # its own optimiser is made before the hooks
    trainer = trainer_of(network, optimizer, seed=3)
    calls: list[str] = []

    def all_ones(taking: Optimizer, *_: Any) -> None:
        calls.append("before")
        for group in taking.param_groups:
            for parameter in group["params"]:
                assert parameter.grad is not None
                parameter.grad.fill_(1.0)

    handles = [
        optimizer.register_step_pre_hook(all_ones),
        optimizer.register_step_post_hook(lambda *_: calls.append("behind")),
    ]
    masks = torch.Generator().manual_seed(3)
    for counts in ((4, 3), (8, 6), (4, 3)):
        before = {name: p.detach().clone() for name, p in network.module.named_parameters()}
        trainer.step(inputs_of(), targets_of(), counts)
        mask = torch.ones(14, dtype=torch.bool)
        if counts != (8, 6):
            mask = RandomMasks().draw((8, 6), counts, masks)
        for name, parameter in network.module.named_parameters():
            region = kept_part(network.channels, name, mask, parameter)
            torch.testing.assert_close(
                parameter.detach(), before[name] - 0.25 * region, rtol=0, atol=1e-12
            )
    assert calls == ["before", "behind"] * 3
    for handle in handles:
        handle.remove()
    trainer.step(inputs_of(), targets_of(), (4, 3))
    assert len(calls) == 6
