from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distreal_dse import Data, Study
from distreal_dse.cost import LatencySamples, StepTimer
from distreal_dse.cost._steps import TOGETHER
from distreal_dse.dropout import DroppableNetwork, KeptCounts
from distreal_dse.dropout._network import CACHED_SUBNETWORKS
from distreal_dse.errors import InputError, StudyError

FULL, HALF, NARROW = (12, 8), (6, 4), (1, 1)
SHAPE = (1, 6, 6)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def no_data() -> Data:
    raise AssertionError("data was loaded")


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1)


def made(**changes: Any) -> tuple[Study, DroppableNetwork]:
    study = Study(**{"model": cnn, "data": no_data, "name": "timed", **changes})
    return study, DroppableNetwork(study.model(), torch.randn(2, *SHAPE))


def values(network: DroppableNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def unchanged(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


def measure(
    study: Study, network: DroppableNetwork, vectors: list[KeptCounts], repetitions: int = 3
) -> LatencySamples:
    samples = LatencySamples(network.full_counts)
    StepTimer(study, network, SHAPE, batch_size=4).measure(vectors, repetitions, samples)
    return samples


def test_every_vector_is_timed_in_turn_with_the_full_network() -> None:
    study, network = made()
    samples = measure(study, network, [HALF, NARROW, FULL], repetitions=5)
    found = samples.latencies([HALF, NARROW, FULL])
    assert [one.counts for one in found.vectors] == [HALF, NARROW, FULL]
    assert [one.repetitions for one in found.vectors] == [5, 5, 5]
    for one in (found.full, *(one.seconds for one in found.vectors)):
        assert 0 < one.low <= one.median <= one.high < 10
    assert found.vectors[2].ratio.median == 1


def test_the_full_network_alone_can_be_timed() -> None:
    study, network = made()
    assert len(measure(study, network, [], repetitions=4)) == 4
    assert len(measure(study, network, [FULL], repetitions=4)) == 4


SLEEP = 0.03


@pytest.mark.parametrize("slow", [FULL, HALF])
def test_a_ratio_is_that_of_the_vector_to_the_full_network(slow: KeptCounts) -> None:
    def wait(layer: nn.Module, inputs: object, outputs: Tensor) -> None:
        if outputs.shape[1] == slow[0]:
            time.sleep(SLEEP)

    def waiting() -> nn.Module:
        module = cnn()
        module[0].register_forward_hook(wait)  # type: ignore[index]
        return module

    study, network = made(model=waiting)
    found = measure(study, network, [HALF, NARROW]).latencies([HALF, NARROW])
    half, narrow = found.vectors
    if slow == FULL:
        assert found.full.median > SLEEP
        assert half.ratio.median < 1 and narrow.ratio.median < 1
    else:
        assert half.seconds.median > SLEEP
        assert half.ratio.median > 1 and half.ratio.median > narrow.ratio.median
    assert found.cost(half) == half.ratio.median * found.full.median


@pytest.mark.parametrize("optimizer", [adam, None])
def test_the_network_is_unharmed(optimizer: Callable[..., Any] | None) -> None:
    study, network = made(**({"optimizer": optimizer} if optimizer else {}))
    network.module(torch.randn(2, *SHAPE)).sum().backward()
    gradients = [parameter.grad for parameter in network.module.parameters()]
    copies = [gradient.clone() for gradient in gradients if gradient is not None]
    before, state = values(network), torch.get_rng_state()
    measure(study, network, [HALF, NARROW])
    assert unchanged(before, values(network))
    after = [parameter.grad for parameter in network.module.parameters()]
    assert all(one is other for one, other in zip(gradients, after, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(copies, after, strict=True))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_of_their_own_are_trained_as_devices_do_in_the_first_round() -> None:
    losses: list[float] = []

    def noted(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        losses.append(loss.item())
        return loss

    def no_luck() -> nn.Module:
        return nn.Sequential(*(layer for layer in cnn() if not isinstance(layer, nn.Dropout)))

    study, network = made(loss=noted, model=no_luck, clip_norm=0.5)
    before, samples = values(network), LatencySamples(network.full_counts)
    timer = StepTimer(study, network, SHAPE, batch_size=4)
    timer.measure([], 4, samples, alone=[HALF])
    # Three steps of each warm up; then values are as at first in each round.
    warm_up, rounds = losses[:6], losses[6:]
    assert len(rounds) == 8
    assert {*rounds} == {warm_up[0], warm_up[3]}
    assert len({*warm_up}) == 6
    assert unchanged(before, values(network))
    # An optimiser of the study, with its largest norm.
    unclipped: list[float] = []
    losses = unclipped
    free = replace(study, clip_norm=None)
    StepTimer(free, network, SHAPE, batch_size=4).measure([], 1, samples, alone=[HALF])
    assert unclipped[3] == warm_up[3] and unclipped[4] != warm_up[4]


def test_an_interrupted_measurement_leaves_its_samples_and_no_harm() -> None:
    study, network = made()
    before, threads = values(network), torch.get_num_threads()
    samples = LatencySamples(FULL)

    def interrupt(done: int, total: int) -> None:
        assert total == 9
        if done == 2:
            raise KeyboardInterrupt

    timer = StepTimer(study, network, SHAPE, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        timer.measure([HALF], 9, samples, interrupt)
    assert samples.latencies([HALF]).vectors[0].repetitions == 2
    assert unchanged(before, values(network))
    assert torch.get_num_threads() == threads


def test_a_step_that_fails_is_told_with_the_study_and_does_no_harm() -> None:
    def no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("no loss today")

    study, network = made(loss=no_loss)
    before = values(network)
    with pytest.raises(StudyError, match=r"study timed .*\(4, 1, 6, 6\) fails: .*no loss today"):
        measure(study, network, [HALF])
    assert unchanged(before, values(network))


def test_a_model_without_classes_is_refused() -> None:
    study, network = made(model=lambda: nn.Sequential(*list(cnn())[:-1], nn.Linear(8, 1)))  # type: ignore[call-overload]
    assert len(measure(study, network, [HALF], repetitions=1)) == 1  # one class is one
    study, network = made(
        model=lambda: nn.Sequential(*list(cnn())[:-1], nn.Linear(8, 1), nn.Flatten(0))  # type: ignore[call-overload]
    )
    with pytest.raises(StudyError, match="no scores of classes"):
        measure(study, network, [HALF])


def test_a_learning_rate_that_diverges_can_be_timed() -> None:
    study, network = made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    assert len(measure(study, network, [HALF], repetitions=4)) == 4


def test_many_vectors_are_timed_without_building_one_anew_in_between() -> None:
    assert TOGETHER < CACHED_SUBNETWORKS
    study, network = made()
    vectors = [(first, second) for first in range(1, 11) for second in range(1, 5)]
    rounds: list[tuple[int, int]] = []
    samples = LatencySamples(FULL)
    StepTimer(study, network, SHAPE, 4).measure(
        vectors, 2, samples, lambda done, total: rounds.append((done, total))
    )
    found = samples.latencies(vectors)
    assert {one.repetitions for one in found.vectors} == {2}
    assert len(found.vectors) == len(vectors) == 40
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two groups of 20, two rounds each
    assert len(samples) == 2 * 2 * 5  # a full step with every four


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0: expected 1 or more"),
        ({"threads": 0}, "--threads is 0: expected 1 to"),
        ({"threads": (os.cpu_count() or 1) + 1}, "the cores there are"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    study, network = made()
    with pytest.raises(InputError, match=message):
        StepTimer(study, network, SHAPE, **{"batch_size": 4, **settings})


def test_no_repetitions_are_refused() -> None:
    study, network = made()
    with pytest.raises(InputError, match="--repetitions is 0: expected 1 or more"):
        measure(study, network, [HALF], repetitions=0)


def test_threads_are_pinned_while_it_measures() -> None:
    seen = []

    def look(layer: nn.Module, inputs: object, outputs: Tensor) -> None:
        seen.append(torch.get_num_threads())

    study, network = made()
    threads = torch.get_num_threads()
    network.module[0].register_forward_hook(look)  # type: ignore[index]
    StepTimer(study, network, SHAPE, 4, threads=1).measure([], 1, LatencySamples(FULL))
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_waited_for() -> None:
    study = Study(model=cnn, data=no_data, name="timed")
    network = DroppableNetwork(cnn().cuda(), torch.randn(2, *SHAPE).cuda())
    found = measure(study, network, [HALF]).latencies([HALF])
    assert found.vectors[0].seconds.median > 0
