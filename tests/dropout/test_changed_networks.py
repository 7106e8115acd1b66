"""Sub-networks of a network that is changed, exchanged or copied after they were built."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from distreal_dse.dropout import (
    DroppableNetwork,
    KeptCounts,
    RandomMasks,
    SubNetwork,
    _packing,
    zero_dropped,
)
from distreal_dse.errors import InputError
from networks import CLASSES, Plain, Residual, inputs_of, kept_part, targets_of, trained, trainer_of

pytestmark = pytest.mark.usefixtures("packed")

COUNTS = (4, 3)  # of Plain


def momentum(module: nn.Module) -> Optimizer:
    return SGD(module.parameters(), lr=0.1, momentum=0.9)


def built(make: Callable[[], nn.Module] = Plain, counts: KeptCounts = COUNTS) -> DroppableNetwork:
    """A network whose sub-network of ``counts`` was trained already."""
    network = DroppableNetwork(trained(make), inputs_of())
    trainer_of(network, SGD(network.module.parameters(), lr=0.0)).step(
        inputs_of(), targets_of(), counts
    )
    return network


def state_of(network: DroppableNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.module.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def mask_of(network: DroppableNetwork, counts: KeptCounts, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return RandomMasks().draw(network.full_counts, counts, draws)


def check_against_zeroing(network: DroppableNetwork, counts: KeptCounts = COUNTS) -> None:
    """Outputs and kept statistics of a sub-network are those of the zeroed full network."""
    mask = mask_of(network, counts, seed=5)
    zeroed = copy.deepcopy(network.module)
    zero_dropped(zeroed, network.channels, mask)
    expected = zeroed(inputs_of(seed=2))
    small = network.subnetwork(counts)
    kept = small.select(mask)
    small.load(kept)
    outputs = small.module(inputs_of(seed=2))
    torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-11)
    small.backward(outputs.sum())
    small.store(kept)
    for name, value in zeroed.named_buffers():
        region = kept_part(network.channels, name, mask, value)
        found = network.module.get_buffer(name)
        torch.testing.assert_close(found[region], value[region], rtol=1e-9, atol=1e-11)


# --- Layers that are changed ----------------------------------------------------------------------


def change_norm(norm: nn.BatchNorm2d) -> None:
    norm.momentum, norm.eps = 0.5, 0.3


def average_all(norm: nn.BatchNorm2d) -> None:
    norm.momentum = None


@pytest.mark.parametrize("change", [change_norm, average_all])
def test_settings_of_norms_are_followed(change: Callable[[nn.BatchNorm2d], None]) -> None:
    network = built()
    for part in network.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            change(part)
    check_against_zeroing(network)


class WithDropout(nn.Sequential):
    def __init__(self, rate: float) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(rate), nn.Conv2d(8, 6, 3), nn.LeakyReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
        )  # fmt: skip


def test_rate_of_ordinary_dropout_is_followed() -> None:
    network = built(lambda: WithDropout(0.5))
    for part in network.module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.LeakyReLU):
            part.negative_slope = 0.7
    check_against_zeroing(network)


def test_settings_of_a_users_own_layer_are_followed() -> None:
    class Tempered(Plain):
        temperature = 1.0
        remembered: Tensor | None = None

        def __init__(self) -> None:
            super().__init__()
            self.temperature = 2.0
            self.squash: Callable[[Tensor], Tensor] = torch.tanh
            self.remembered = None

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.squash(super().forward(inputs) * self.temperature)
            self.remembered = outputs  # what can't be followed is left alone
            return outputs

    network = built(Tempered)
    assert isinstance(network.module, Tempered)
    network.module.temperature, network.module.squash = 0.25, torch.sigmoid
    network.module(inputs_of())
    network.module.remembered = None  # PyTorch copies no outputs
    check_against_zeroing(network)


def test_parameters_frozen_and_released_later_are_followed() -> None:
    network = built(Residual, (4, 3, 3))
    optimizer = SGD(network.module.parameters(), lr=0.1, weight_decay=0.1)
    trainer = trainer_of(network, optimizer)
    for frozen in ("stem", "head", "nothing"):
        for name, parameter in network.module.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        before = state_of(network)
        trainer.step(inputs_of(), targets_of(), (4, 3, 3))
        for name, _ in network.module.named_parameters():
            same = torch.equal(network.module.get_parameter(name), before[name])
            assert same == name.startswith(frozen), (frozen, name)


@pytest.mark.parametrize("counts", [COUNTS, (8, 6)], ids=["part", "full"])
def test_single_layers_in_evaluation_mode_are_followed(counts: KeptCounts) -> None:
    network = built(counts=counts)
    parts = [part for part in network.module.modules() if isinstance(part, nn.BatchNorm2d)]
    parts[1].eval()
    check_against_zeroing(network, counts)
    parts[1].train()
    parts[0].eval()
    check_against_zeroing(network, counts)


# --- Tensors and layers that are exchanged for others ---------------------------------------------


def assign_state(module: nn.Module) -> None:
    module.load_state_dict(trained(Plain, seed=3).state_dict(), assign=True)


def convert_back_and_forth(module: nn.Module) -> None:
    module.float().double()


def new_head(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module[-1] = nn.Linear(6 * 4 * 4, CLASSES).double()


def new_statistics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.full_like(part.bias, 0.25)


EXCHANGES = [assign_state, convert_back_and_forth, new_head, new_statistics]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_training_goes_on_with_exchanged_tensors(exchange: Callable[[nn.Module], None]) -> None:
    network = built()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exchange(network.module)
    fresh = DroppableNetwork(copy.deepcopy(network.module), inputs_of())
    check_against_zeroing(network)
    check_against_zeroing(fresh)
    for one in (network, fresh):
        trainer = trainer_of(one, momentum(one.module))
        for number in range(3):
            trainer.step(inputs_of(seed=number), targets_of(), COUNTS if number != 1 else (8, 6))
    assert_same(state_of(network), state_of(fresh))
    assert_same(network.copy_state(), state_of(network))


def test_a_state_is_loaded_into_exchanged_tensors() -> None:
    network = built()
    assign_state(network.module)
    state = {name: value + 1 for name, value in network.copy_state().items()}
    network.load_state(state)
    assert_same(state_of(network), state)


def test_a_trainer_goes_on_where_its_optimizer_holds_the_parameters() -> None:
    network = built()
    optimizer = momentum(network.module)
    trainer = trainer_of(network, optimizer, seed=1)
    trainer.step(inputs_of(), targets_of(), COUNTS)
    other, its_optimizer = copy.deepcopy((network, optimizer))
    again = trainer_of(other, its_optimizer, seed=2)
    trainer = trainer_of(network, optimizer, seed=2)
    for number in range(3):
        new_statistics(network.module)  # with the sub-networks and optimisers that there are
        trainer.step(inputs_of(seed=number), targets_of(), COUNTS)
        with torch.no_grad():
            for part in other.module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    assert part.running_mean is not None
                    part.running_mean.fill_(0.25)
        again.step(inputs_of(seed=number), targets_of(), COUNTS)
        assert_same(state_of(network), state_of(other))


@pytest.mark.parametrize("counts", [COUNTS, (8, 6)], ids=["part", "full"])
def test_an_optimizer_of_parameters_that_were_exchanged_is_refused(counts: KeptCounts) -> None:
    network = built()
    trainer = trainer_of(network, momentum(network.module))
    trainer.step(inputs_of(), targets_of(), counts)
    new_head(network.module)
    with pytest.raises(InputError, match="no longer has: .* network.module.parameters"):
        trainer.step(inputs_of(), targets_of(), counts)


def test_foreign_parameters_that_are_added_later_are_refused() -> None:
    network = built()
    optimizer = momentum(network.module)
    trainer = trainer_of(network, optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(InputError, match="parameters of another network"):
        trainer.step(inputs_of(), targets_of(), COUNTS)


def other_classes(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module[-1] = nn.Linear(6 * 4 * 4, CLASSES + 1).double()


def another_layer(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module.append(nn.Linear(CLASSES, CLASSES).double())


def without_bias(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module[-1].register_parameter("bias", None)


def other_stride(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module[4] = nn.Conv2d(8, 6, 5, padding=2, bias=False).double()


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        (other_classes, r"tensor 8.weight of the network is \(6, 96\) now: expected \(5, 96\)"),
        (another_layer, r"tensor 9.weight of the network is \(5, 5\) now: expected none"),
        (without_bias, "tensor 8.bias of the network is missing now"),
        (other_stride, r"tensor 4.weight of the network is \(6, 8, 5, 5\) now"),
    ],
)
def test_networks_of_other_shapes_are_refused(
    exchange: Callable[[nn.Module], None], message: str
) -> None:
    network = built()
    exchange(network.module)
    with pytest.raises(InputError, match=message + ".* make a new DroppableNetwork"):
        network.subnetwork(COUNTS)


def test_parameters_that_are_tied_later_are_refused() -> None:
    network = built(Residual, (4, 3, 3))
    assert isinstance(network.module, Residual)
    network.module.wide_norm.weight = network.module.shortcut_norm.weight
    with pytest.raises(InputError, match="wide_norm.weight and shortcut_norm.weight are the same"):
        network.subnetwork((4, 3, 3))


def test_layers_that_cost_other_macs_are_refused() -> None:
    network = built(Residual, (4, 3, 3))
    assert isinstance(network.module, Residual)
    network.module.inner = nn.Conv2d(8, 7, 3, padding=2, bias=False).double()
    network.module.outer = nn.Conv2d(7, 8, 3, bias=False).double()
    with pytest.raises(InputError, match="other MACs now: .* make a new DroppableNetwork"):
        network.subnetwork((4, 3, 3))


def test_a_sub_network_of_tensors_that_were_exchanged_is_refused() -> None:
    network = built()
    alone = SubNetwork(network.module, network.channels, COUNTS)
    small = network.subnetwork(COUNTS)
    assign_state(network.module)
    network.subnetwork((2, 2))
    for one in (small, alone):
        with pytest.raises(InputError, match="were exchanged: .* get a new one"):
            one.load(one.select(mask_of(network, COUNTS)))


# --- Copies ---------------------------------------------------------------------------------------


def pickled(what: DroppableNetwork) -> DroppableNetwork:
    copied: DroppableNetwork = pickle.loads(pickle.dumps(what))
    return copied


@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
def test_a_copy_trains_as_a_network_of_its_own(
    make_copy: Callable[[DroppableNetwork], DroppableNetwork],
) -> None:
    network = built()
    before = state_of(network)
    alone = DroppableNetwork(copy.deepcopy(network.module), inputs_of())
    other = make_copy(network)
    results = []
    for one in (other, alone):
        trainer = trainer_of(one, momentum(one.module))
        for number, counts in enumerate((COUNTS, (8, 6), (2, 5), COUNTS)):
            trainer.step(inputs_of(seed=number), targets_of(), counts)
        results.append(state_of(one))
    assert_same(*results)
    assert not torch.equal(results[0]["0.weight"], before["0.weight"])
    assert_same(state_of(network), before)
    check_against_zeroing(network)
    check_against_zeroing(other)


def test_a_copy_takes_no_more_memory_than_its_values() -> None:
    network = built(lambda: Plain(200), (100, 3))
    values = sum(tensor.nbytes for tensor in network.copy_state().values())
    assert len(pickle.dumps(network.module)) > 2 * values or _packing.LARGEST_PACKED == 0
    assert len(pickle.dumps(network)) < 1.5 * values + len(pickle.dumps(network.channels)) + 20_000


def test_a_trainer_is_copied_with_its_network_and_optimizer() -> None:
    network = built()
    trainer = trainer_of(network, Adam(network.module.parameters(), lr=0.01))
    trainer.step(inputs_of(), targets_of(), COUNTS)
    other, its_network = copy.deepcopy((trainer, network))
    assert its_network.module is not network.module
    for number, counts in enumerate((COUNTS, (8, 6), (2, 5))):
        losses = {
            one.step(inputs_of(seed=number), targets_of(), counts) for one in (trainer, other)
        }
        assert len(losses) == 1
    assert_same(state_of(its_network), state_of(network))


def test_a_sub_network_alone_is_not_copied() -> None:
    with pytest.raises(InputError, match="copy its DroppableNetwork"):
        copy.deepcopy(built().subnetwork(COUNTS))


# --- Values that are put aside --------------------------------------------------------------------


def test_values_swapped_out_and_back_are_the_same() -> None:
    """As moving averages of weights are tried out."""
    network = built()
    before = state_of(network)
    aside = {name: parameter.data for name, parameter in network.module.named_parameters()}
    for parameter in network.module.parameters():
        parameter.data = torch.ones_like(parameter)
    small = network.subnetwork(COUNTS)
    small.load(small.select(mask_of(network, COUNTS)))
    assert all(bool((small.module.get_parameter(name) != 0).all()) for name in aside)
    for name, parameter in network.module.named_parameters():
        parameter.data = aside[name]
    assert_same(state_of(network), before)
    check_against_zeroing(network)


@pytest.mark.parametrize("clear", [True, False])
def test_optimizer_state_exchanged_and_back_is_the_same(clear: bool) -> None:
    network = built()
    optimizer = momentum(network.module)
    trainer = trainer_of(network, optimizer)
    trainer.step(inputs_of(), targets_of(), COUNTS)
    aside = optimizer.state_dict()
    before = copy.deepcopy(aside["state"])
    if clear:
        optimizer.state.clear()
    else:
        other = copy.deepcopy(aside)
        for state in other["state"].values():
            state["momentum_buffer"].fill_(7.0)
        optimizer.load_state_dict(other)
    trainer.step(inputs_of(seed=1), targets_of(), COUNTS)
    trainer.step(inputs_of(seed=1), targets_of(), (2, 2))
    optimizer.load_state_dict(aside)
    assert before
    for number, state in optimizer.state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], before[number]["momentum_buffer"])


def test_parameters_made_to_share_memory_are_refused() -> None:
    network = built(Residual, (4, 3, 3))
    assert isinstance(network.module, Residual)
    network.module.wide_norm.weight.data = network.module.wide_norm.bias.data
    if _packing.LARGEST_PACKED == 0:
        pytest.skip("noticed where tensors are packed")
    with pytest.raises(InputError, match="wide_norm.bias and wide_norm.weight share memory now"):
        network.subnetwork((4, 3, 3)).load(
            network.subnetwork((4, 3, 3)).select(mask_of(network, (4, 3, 3)))
        )
