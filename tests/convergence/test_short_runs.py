from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from distreal_dse import Data, ShortRun, Study
from distreal_dse.convergence import Convergence, Replicate, ShortRuns
from distreal_dse.dropout import DroppableNetwork, KeptCounts, RandomMasks, make_policy
from distreal_dse.errors import DivergedError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from tiny_study import write_study


class Logged(Dataset[tuple[Tensor, Tensor]]):
    """A data set that remembers which samples were taken, in order."""

    def __init__(self, data: Dataset[tuple[Tensor, Tensor]], size: int) -> None:
        self.samples = [data[index] for index in range(size)]
        self.taken: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.taken.append(index)
        return self.samples[index]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return StudySource(str(write_study(tmp_path_factory.mktemp("study")))).load()


@pytest.fixture
def prepared(study: Study) -> tuple[DroppableNetwork, Data]:
    return prepare(study, seed=0)


@pytest.fixture
def runs(study: Study, prepared: tuple[DroppableNetwork, Data]) -> ShortRuns:
    network, data = prepared
    return ShortRuns(study, data, network, seed=0)


def logged(data: Data) -> tuple[Data, Logged]:
    train = Logged(data.train, 100)
    return replace(data, train=train), train


def plain_model() -> nn.Module:
    """Without batch normalisation, so that evaluation mode is all that an evaluation needs."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def test_a_replicate_gives_bit_identical_results_whenever_it_is_run(
    study: Study, runs: ShortRuns
) -> None:
    first = runs.run((3, 5), "search", 0)
    runs.run((6, 8), "search", 1)
    runs.run((1, 1), "other", 0)
    assert runs.run((3, 5), "search", 0) == first

    network, data = prepare(study, seed=0)
    anew = ShortRuns(study, data, network, seed=0)
    anew.run((2, 8), "search", 3)
    assert anew.run((3, 5), "search", 0) == first


def test_replicates_streams_and_seeds_differ(study: Study, runs: ShortRuns) -> None:
    network, data = prepare(study, seed=1)
    gains = {
        runs.run((3, 5), "search", 0).loss_gain,
        runs.run((3, 5), "search", 1).loss_gain,
        runs.run((3, 5), "verification", 0).loss_gain,
        ShortRuns(study, data, network, seed=1).run((3, 5), "search", 0).loss_gain,
    }
    assert len(gains) == 4


def test_every_vector_sees_the_same_data_in_the_same_order(
    study: Study, prepared: tuple[DroppableNetwork, Data]
) -> None:
    network, data = prepared
    data, train = logged(data)
    runs = ShortRuns(study, data, network, seed=0)
    trained = study.short_run.mini_batches * study.batch_size

    def order(counts: tuple[int, ...], replicate: int) -> list[int]:
        train.taken.clear()
        runs.run(counts, "search", replicate)
        return train.taken[:trained]

    orders = [order(counts, 0) for counts in ((6, 8), (3, 5), (1, 1))]
    assert orders[0] == orders[1] == orders[2]
    assert len(set(orders[0])) == trained  # without replacement
    assert order((3, 5), 1) != orders[0]


def test_vectors_with_more_filters_keep_those_of_smaller_ones_too(study: Study) -> None:
    study = replace(study, short_run=replace(study.short_run, mini_batches=1, full_share=0.0))
    network, data = prepare(study, seed=0)
    runs = ShortRuns(study, data, network, seed=0)

    def trained_filters(counts: tuple[int, ...]) -> set[int]:
        runs.run(counts, "search", 0)
        change = network.module.state_dict()["0.weight"] - runs.snapshot["0.weight"]
        return set(change.flatten(1).any(1).nonzero().flatten().tolist())

    two, two_again, four = map(trained_filters, ((2, 8), (2, 3), (4, 8)))
    assert two == two_again
    assert len(two) == 2 and len(four) == 4
    assert two < four


def trained_filters(study: Study, counts: tuple[int, ...], replicate: int) -> set[int]:
    """Filters of the first convolution that a short run of one mini-batch changes."""
    study = replace(study, short_run=replace(study.short_run, mini_batches=1, full_share=0.0))
    network, data = prepare(study, seed=0)
    runs = ShortRuns(study, data, network, seed=0)
    runs.run(counts, "search", replicate)
    change = network.module.state_dict()["0.weight"] - runs.snapshot["0.weight"]
    return set(change.flatten(1).any(1).nonzero().flatten().tolist())


def test_short_runs_keep_the_filters_that_the_studys_mask_policy_says(study: Study) -> None:
    ordered, rolling = replace(study, masks="ordered"), replace(study, masks="rolling")
    assert [trained_filters(ordered, (2, 8), r) for r in range(3)] == [{0, 1}] * 3
    # A replicate is a round.
    assert [trained_filters(rolling, (2, 8), r) for r in (0, 1, 5)] == [{0, 1}, {1, 2}, {0, 5}]


class Noting(RandomMasks):
    """Notes what it is asked; the log is the class's, so that all copies of a policy share it."""

    log: ClassVar[list[int | str]] = []

    def start_round(self, number: int) -> None:
        super().start_round(number)
        self.log.append(number)

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        self.log.append("mask")
        return super().draw(widths, counts, generator)


def test_a_short_run_is_a_round_and_the_warm_up_some_of_them(study: Study) -> None:
    policy = Noting()
    changed = replace(
        study, masks=policy, short_run=ShortRun(warm_up=7, mini_batches=3, full_share=0.0)
    )
    network, data = prepare(changed, seed=0)
    Noting.log.clear()
    runs = ShortRuns(changed, data, network, seed=0)
    # Full mini-batches, every second one of the warm-up, draw no mask.
    assert Noting.log == [0, "mask", 1, "mask", "mask", 2]
    Noting.log.clear()
    gain = runs.run((3, 5), "search", 4)
    assert Noting.log == [4, "mask", "mask", "mask"]
    assert runs.run((3, 5), "search", 4) == gain


def test_the_policy_of_a_study_is_left_alone(study: Study) -> None:
    policy = make_policy("random-round")
    network, data = prepare(study, seed=0)
    before = vars(policy).copy()
    ShortRuns(replace(study, masks=policy), data, network, seed=0).run((3, 5), "search", 2)
    assert vars(policy) == before


def test_random_masks_are_what_a_study_has_by_default(study: Study, runs: ShortRuns) -> None:
    changed = replace(study, masks=RandomMasks())
    network, data = prepare(changed, seed=0)
    assert ShortRuns(changed, data, network, seed=0).run((3, 5), "search", 0) == runs.run(
        (3, 5), "search", 0
    )


def test_the_warm_up_keeps_to_the_granularity(study: Study) -> None:
    seen: list[int] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        if layer.training:
            seen.append(outputs.shape[1])

    def watched() -> nn.Module:
        network = study.model()
        network.get_submodule("4").register_forward_hook(look)
        return network

    coarse = replace(
        study, model=watched, granularity=3, short_run=replace(study.short_run, warm_up=40)
    )
    network, data = prepare(coarse, seed=0)
    seen.clear()
    ShortRuns(coarse, data, network, seed=0)
    assert set(seen[1::2]) == {3, 6, 8}


def test_every_run_starts_from_the_snapshot(
    runs: ShortRuns, prepared: tuple[DroppableNetwork, Data]
) -> None:
    network, _ = prepared
    expected = runs.run((3, 5), "search", 0)
    with torch.no_grad():
        for tensor in network.module.state_dict().values():
            tensor.fill_(7)
    assert runs.run((3, 5), "search", 0) == expected


def test_a_run_does_not_change_the_snapshot(runs: ShortRuns) -> None:
    before = {name: tensor.clone() for name, tensor in runs.snapshot.items()}
    runs.run((3, 5), "search", 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in runs.snapshot.items())


def test_the_full_vector_gains_the_same_for_every_share_of_full_mini_batches(study: Study) -> None:
    def gain(share: float) -> Replicate:
        changed = replace(study, short_run=replace(study.short_run, full_share=share))
        network, data = prepare(changed, seed=0)
        return ShortRuns(changed, data, network, seed=0).run(network.full_counts, "search", 0)

    assert gain(0.0) == gain(0.5) == gain(0.9)


def test_a_short_run_of_the_full_vector_equals_a_plain_training_loop(study: Study) -> None:
    study = replace(study, model=plain_model)
    network, data = prepare(study, seed=0)
    data, train = logged(data)
    runs = ShortRuns(study, data, network, seed=0)
    train.taken.clear()
    found = runs.run(network.full_counts, "search", 0)

    module = copy.deepcopy(network.module)
    module.load_state_dict(runs.snapshot)
    inputs, targets = data.validation[:]  # all 40 samples of a TensorDataset

    def validation() -> tuple[float, float]:
        with torch.no_grad():
            outputs = module(inputs)
        loss = nn.functional.cross_entropy(outputs, targets).item()
        return loss, (outputs.argmax(1) == targets).float().mean().item()

    before, _ = validation()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for start in range(0, 3 * 16, 16):
        pairs = [train.samples[index] for index in train.taken[start : start + 16]]
        optimizer.zero_grad()
        outputs = module(torch.stack([image for image, _ in pairs]))
        nn.functional.cross_entropy(outputs, torch.stack([label for _, label in pairs])).backward()
        optimizer.step()
    after, accuracy = validation()
    assert found.loss_gain == pytest.approx(before - after, abs=1e-6)
    assert found.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("mini_batches", "share", "full"),
    [(10, 0.0, 0), (10, 0.5, 5), (10, 0.25, 2), (10, 0.9, 9), (7, 0.5, 3), (20, 0.35, 7)],
)
def test_the_given_share_of_mini_batches_trains_the_full_network(
    study: Study, mini_batches: int, share: float, full: int
) -> None:
    seen: list[int] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        if layer.training:
            seen.append(outputs.shape[1])

    def watched() -> nn.Module:
        network = study.model()
        network.get_submodule("0").register_forward_hook(look)
        return network

    watching = replace(
        study,
        model=watched,
        short_run=ShortRun(warm_up=0, mini_batches=mini_batches, full_share=share),
    )
    network, data = prepare(watching, seed=0)
    runs = ShortRuns(watching, data, network, seed=0)
    seen.clear()
    runs.run((2, 8), "search", 0)
    assert sorted(set(seen)) == ([2, 6] if full else [2])
    assert (seen.count(2), seen.count(6)) == (mini_batches - full, full)
    # Evenly spread: any first part of the run has its share, to within one mini-batch.
    for done in range(1, mini_batches + 1):
        assert abs(seen[:done].count(6) - share * done) < 1


def test_the_warm_up_mixes_full_mini_batches_with_sub_networks(study: Study) -> None:
    seen: list[int] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        if layer.training:
            seen.append(outputs.shape[1])

    def watched() -> nn.Module:
        network = study.model()
        network.get_submodule("4").register_forward_hook(look)
        return network

    watching = replace(study, model=watched, short_run=replace(study.short_run, warm_up=40))
    network, data = prepare(watching, seed=0)
    seen.clear()
    told: list[tuple[int, int]] = []
    ShortRuns(watching, data, network, 0, progress=lambda done, total: told.append((done, total)))
    assert len(seen) == 40
    assert seen[::2] == [8] * 20
    assert len(set(seen[1::2])) > 4  # rates from [0, 0.85]
    assert told == [(done, 40) for done in range(1, 41)]


def test_standard_error_is_sample_deviation_over_root_of_the_number() -> None:
    # Mean 7/3; squared deviations 16/9, 1/9, 25/9; their sum over n - 1 is 7/3; over n, 7/9.
    convergence = Convergence((Replicate(1.0, 0.5), Replicate(2.0, 0.75), Replicate(4.0, 1.0)))
    assert convergence.loss_gain == pytest.approx(7 / 3)
    assert convergence.standard_error == pytest.approx(math.sqrt(7) / 3)
    assert convergence.accuracy == pytest.approx(0.75)


def test_a_single_replicate_has_no_standard_error() -> None:
    assert math.isnan(Convergence((Replicate(1.0, 0.5),)).standard_error)


def with_rate(study: Study, rate: float, warm_up: int) -> Study:
    optimizer: Callable[..., torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=rate)  # noqa: E731
    return replace(study, optimizer=optimizer, short_run=replace(study.short_run, warm_up=warm_up))


def test_a_diverging_run_says_so(study: Study) -> None:
    diverging = with_rate(study, 1e30, warm_up=0)
    network, data = prepare(diverging, seed=0)
    runs = ShortRuns(diverging, data, network, seed=0)
    with pytest.raises(DivergedError, match=r"loss is (nan|inf)"):
        runs.run((3, 5), "search", 0)


def test_a_diverging_warm_up_says_so(study: Study) -> None:
    diverging = with_rate(study, 1e30, warm_up=5)
    network, data = prepare(diverging, seed=0)
    with pytest.raises(DivergedError, match="warm-up"):
        ShortRuns(diverging, data, network, seed=0)


def test_a_run_after_a_diverged_one_is_as_if_there_had_been_none(study: Study) -> None:
    rate = [0.05]
    switching = replace(study, optimizer=lambda p: torch.optim.SGD(p, lr=rate[0]))
    network, data = prepare(switching, seed=0)
    runs = ShortRuns(switching, data, network, seed=0)
    expected = runs.run((3, 5), "search", 0)
    rate[0] = 1e30
    with pytest.raises(DivergedError):
        runs.run((3, 5), "search", 0)
    rate[0] = 0.05
    assert runs.run((3, 5), "search", 0) == expected


def test_runs_leave_the_global_generator_alone(runs: ShortRuns) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    runs.run((3, 5), "search", 0)
    assert torch.equal(torch.rand(4), expected)


def test_ordinary_dropout_layers_draw_the_same_in_every_run_of_a_replicate(study: Study) -> None:
    def model() -> nn.Module:
        return nn.Sequential(*study.model().children(), nn.Dropout(0.5))

    dropping = replace(study, model=model)
    network, data = prepare(dropping, seed=0)
    runs = ShortRuns(dropping, data, network, seed=0)
    torch.manual_seed(1)
    first = runs.run((3, 5), "search", 0)
    torch.manual_seed(2)
    assert runs.run((3, 5), "search", 0) == first


def test_the_snapshot_is_the_same_for_the_same_seed(study: Study, tmp_path: Path) -> None:
    snapshots = []
    for _ in range(2):
        network, data = prepare(study, seed=4)
        snapshots.append(ShortRuns(study, data, network, seed=4).snapshot)
    one, other = snapshots
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_gradients_are_clipped_as_the_study_says(
    study: Study, prepared: tuple[DroppableNetwork, Data]
) -> None:
    """Norms of 1e-9 leave the parameters where they are."""
    network, data = prepared
    clipped = ShortRuns(replace(study, clip_norm=1e-9), data, network, seed=0)
    before = torch.cat([p.detach().flatten() for p in network.module.parameters()])
    clipped.run((3, 5), "search", 0)
    after = torch.cat([p.detach().flatten() for p in network.module.parameters()])
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-7)
