"""Validation loss and accuracy of a full network."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from distreal_dse.data.evaluation import CALIBRATION_SAMPLES, EVALUATION_BATCH, evaluate
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, RandomMasks
from networks import Biased, Plain, Residual, inputs_of, targets_of, trained


def data_of(samples: int, seed: int = 0) -> TensorDataset:
    return TensorDataset(inputs_of(samples, seed), targets_of(samples, seed))


def score(
    module: nn.Module, data: TensorDataset, calibration: TensorDataset | None
) -> tuple[float, ...]:
    found = evaluate(module, data, functional.cross_entropy, calibration)
    return found.loss, found.accuracy


def test_score_of_a_network_without_batch_normalisation_by_hand() -> None:
    network = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0], [1.0]]))  # logits 0 and x
    inputs = torch.tensor([[2.0], [-1.0], [3.0], [0.5]], dtype=torch.double)
    data = TensorDataset(inputs, torch.tensor([1, 0, 0, 1]))  # right, right, wrong, right
    loss, accuracy = score(network, data, data)
    losses = [math.log(1 + math.exp(z)) for z in (-2.0, -1.0, 3.0, -0.5)]
    assert loss == pytest.approx(sum(losses) / 4, rel=1e-12)
    assert accuracy == 0.75


@pytest.mark.parametrize("samples", [1, EVALUATION_BATCH, EVALUATION_BATCH + 3])
def test_every_sample_counts_equally_whatever_the_batches(samples: int) -> None:
    network, data = trained(Biased), data_of(samples)
    with torch.no_grad():
        outputs = network(data.tensors[0])
    losses = -outputs.log_softmax(1)[torch.arange(samples), data.tensors[1]]
    hits = (outputs.argmax(1) == data.tensors[1]).double()
    loss, accuracy = score(network, data, data)
    assert loss == pytest.approx(losses.mean().item(), rel=1e-12)
    assert accuracy == pytest.approx(hits.mean().item(), rel=1e-12)


def test_statistics_are_those_of_the_calibration_data() -> None:
    network, data, calibration = trained(Plain), data_of(40, 1), data_of(100, 2)
    by_hand = copy.deepcopy(network)
    for norm in (by_hand[1], by_hand[5]):  # type: ignore[index]
        norm.momentum = 1.0  # the statistics of the last batch
    with torch.no_grad():
        by_hand.train()(calibration.tensors[0])
        outputs = by_hand.eval()(data.tensors[0])
    loss, accuracy = score(network, data, calibration)
    assert loss == pytest.approx(
        functional.cross_entropy(outputs, data.tensors[1]).item(), rel=1e-9
    )
    assert accuracy == (outputs.argmax(1) == data.tensors[1]).double().mean().item()


def test_calibration_averages_over_its_batches() -> None:
    network, data = trained(Plain), data_of(40)
    calibration = data_of(2 * EVALUATION_BATCH, 2)
    order = torch.randperm(2 * EVALUATION_BATCH, generator=torch.Generator().manual_seed(0))
    first = []
    with torch.no_grad():
        for indices in order.split(EVALUATION_BATCH):
            first.append(network[0](calibration.tensors[0][indices]))  # type: ignore[index]
    seen: list[Tensor] = []

    def look(norm: nn.Module, _: object, __: object) -> None:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        if not norm.training:
            seen.append(norm.running_mean.clone())

    handle = network[1].register_forward_hook(look)  # type: ignore[index]
    score(network, data, calibration)
    handle.remove()
    expected = torch.stack([maps.mean((0, 2, 3)) for maps in first]).mean(0)
    torch.testing.assert_close(seen[0], expected, rtol=1e-9, atol=1e-12)


def test_statistics_of_instance_normalisation_are_measured_too() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.InstanceNorm2d(6, track_running_stats=True),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).double()
    samples = EVALUATION_BATCH * 2
    inputs = torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    data = TensorDataset(inputs, torch.arange(samples) % 3)
    by_hand = copy.deepcopy(network).eval()
    with torch.no_grad():
        features = by_hand[0](inputs)
        by_hand[1].running_mean.copy_(features.mean((0, 2, 3)))  # type: ignore[operator,union-attr]
        by_hand[1].running_var.copy_(features.var((2, 3)).mean(0))  # type: ignore[operator,union-attr]
        expected = functional.cross_entropy(by_hand(inputs), data.tensors[1]).item()
    assert score(network, data, data)[0] == pytest.approx(expected, rel=1e-9)
    assert score(network, data, None)[0] != pytest.approx(expected, rel=1e-6)


def test_score_does_not_depend_on_the_gathered_statistics() -> None:
    network, data, calibration = trained(Residual), data_of(30), data_of(50, 1)
    expected = score(network, data, calibration)
    other = copy.deepcopy(network)
    for norm in other.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean += 3
            norm.running_var *= 7
    assert score(other, data, calibration) == expected
    assert score(network, data, data_of(50, 2)) != expected


@pytest.mark.parametrize("training", [True, False])
def test_without_calibration_data_the_running_statistics_count(training: bool) -> None:
    network, data = trained(Residual).train(training), data_of(30)
    with torch.no_grad():
        outputs = copy.deepcopy(network).eval()(data.tensors[0])
    before = state_of(network)
    loss, accuracy = score(network, data, None)
    expected = functional.cross_entropy(outputs, data.tensors[1]).item()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert accuracy == (outputs.argmax(1) == data.tensors[1]).double().mean().item()
    assert score(network, data, data_of(50, 1)) != (loss, accuracy)
    assert state_of(network) == before


def test_calibration_data_makes_no_difference_without_batch_normalisation() -> None:
    network, data = trained(Biased), data_of(30)
    assert score(network, data, data_of(50, 1)) == score(network, data, data_of(50, 2))


def without_statistics() -> nn.Sequential:
    """Tells the sign of its input, which its normalisation hides in a batch of one sign alone."""
    network = nn.Sequential(
        nn.BatchNorm1d(1, affine=False, track_running_stats=False), nn.Linear(1, 2, bias=False)
    ).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))  # type: ignore[operator]
    return network


def test_scores_by_batch_statistics_do_not_suffer_from_data_stored_by_class() -> None:
    samples = 4 * EVALUATION_BATCH
    inputs = torch.randn(samples, 1, generator=torch.Generator().manual_seed(1)).double()
    labels = (inputs[:, 0] > 0).long()
    by_class = labels.argsort(stable=True)
    stored = [
        TensorDataset(inputs[order], labels[order]) for order in (torch.arange(samples), by_class)
    ]
    (_, mixed), (_, sorted_by_class) = (score(without_statistics(), one, None) for one in stored)
    assert mixed > 0.9
    assert sorted_by_class > 0.9
    assert score(without_statistics(), stored[1], None)[1] == sorted_by_class


def test_batch_statistics_are_never_those_of_a_left_over() -> None:
    inputs = torch.randn(EVALUATION_BATCH + 1, 1, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs.double(), (inputs[:, 0] > 0).long())
    seen: list[int] = []
    network = without_statistics()
    network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    assert score(network, data, data)[1] > 0.9
    assert sorted(seen) == [EVALUATION_BATCH // 2, EVALUATION_BATCH // 2 + 1]


def test_calibration_looks_at_a_bounded_number_of_samples() -> None:
    looked_at: list[int] = []
    network = trained(Plain)
    network.register_forward_pre_hook(lambda module, inputs: looked_at.append(len(inputs[0])))
    score(network, data_of(3), data_of(CALIBRATION_SAMPLES + 100))
    assert sum(looked_at) == CALIBRATION_SAMPLES + 3


@pytest.mark.parametrize("samples", [EVALUATION_BATCH + 1, 5])
def test_a_last_calibration_batch_of_one_sample_does_no_harm(samples: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 5))
    loss, _ = score(network.double(), data_of(9), data_of(samples, 1))
    assert math.isfinite(loss)


def state_of(network: nn.Module) -> dict[str, object]:
    """All that an evaluation might change."""
    return {
        "values": {name: value.tolist() for name, value in network.state_dict().items()},
        "modes": {name: part.training for name, part in network.named_modules()},
        "momentum": {
            name: (part.momentum, part.track_running_stats)
            for name, part in network.named_modules()
            if isinstance(part, nn.BatchNorm2d)
        },
        "gradients": [parameter.requires_grad for parameter in network.parameters()],
        "identities": [id(tensor) for tensor in (*network.parameters(), *network.buffers())],
        "hooks": [len(part._forward_pre_hooks) for part in network.modules()],
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_evaluation_leaves_the_network_as_it_was(training: bool, momentum: float | None) -> None:
    network = trained(Residual).train(training)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = momentum
    before, random = state_of(network), torch.get_rng_state()
    score(network, data_of(10), data_of(20))
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_evaluation_keeps_the_mode_of_frozen_layers() -> None:
    network = trained(Residual).train()
    network.get_submodule("stem_norm").eval()
    before = state_of(network)
    score(network, data_of(10), data_of(20))
    assert state_of(network) == before


def test_failing_evaluation_leaves_the_network_as_it_was() -> None:
    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ArithmeticError("no loss")

    network = trained(Residual).train()
    before = state_of(network)
    with pytest.raises(ArithmeticError):
        evaluate(network, data_of(10), fails, data_of(20))
    with pytest.raises(RuntimeError):  # the network fails in the middle of the calibration
        score(network, data_of(10), TensorDataset(torch.zeros(9, 5, 8, 8), targets_of(9)))
    assert state_of(network) == before


def test_evaluation_draws_no_ordinary_dropout() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 5)).double().train()
    with torch.no_grad():
        expected = functional.cross_entropy(
            network[2](data_of(20).tensors[0].flatten(1)), data_of(20).tensors[1]
        )
    assert score(network, data_of(20), data_of(20))[0] == pytest.approx(expected.item(), rel=1e-12)


def test_evaluation_between_mini_batches_does_not_change_training() -> None:
    def run(evaluated: bool) -> dict[str, Tensor]:
        network = DroppableNetwork(trained(Residual), inputs_of())
        optimizer = torch.optim.SGD(network.module.parameters(), lr=0.1, momentum=0.9)
        masks = torch.Generator().manual_seed(0)
        trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, RandomMasks(), masks)
        for number in range(4):
            trainer.step(inputs_of(seed=number), targets_of(seed=number), (4, 3, 3))
            if evaluated:
                score(network.module, data_of(10), data_of(20))
        return dict(network.module.state_dict())

    with_evaluation, without = run(True), run(False)
    assert all(torch.equal(value, without[name]) for name, value in with_evaluation.items())
