from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from distreal_dse import Data, Study
from distreal_dse.errors import DataError, InputError, StudyError, UnsupportedModelError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare, prepare_network
from tiny_study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return StudySource(str(write_study(tmp_path_factory.mktemp("study")))).load()


def weights(study: Study, seed: int) -> torch.Tensor:
    module = prepare(study, seed)[0].module
    return torch.cat([parameter.flatten() for parameter in module.parameters()]).detach()


def test_the_seed_alone_decides_the_first_weights(study: Study) -> None:
    torch.manual_seed(1)
    first = weights(study, 5)
    torch.manual_seed(2)
    assert torch.equal(weights(study, 5), first)
    assert not torch.equal(weights(study, 6), first)


def test_the_global_generator_is_left_alone(study: Study) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    prepare(study, 0)
    assert torch.equal(torch.rand(3), expected)


def test_the_network_has_the_groups_of_the_model(study: Study) -> None:
    network, data = prepare(study, 0)
    assert network.full_counts == (6, 8)
    assert data.train[0][0].shape == (1, 6, 6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(study: Study) -> None:
    with pytest.raises(InputError, match="cuda.*found none.*use cpu"):
        prepare(study, 0, "cuda")


def part(size: int, classes: int = 3) -> TensorDataset:
    return TensorDataset(torch.randn(size, 1, 6, 6), torch.arange(size) % classes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: Data(part(0), part(9), part(9)), "train data of study tiny is empty"),
        (lambda: Data(part(9), part(0), part(9)), "validation data of study tiny is empty"),
        (lambda: Data(part(9), part(9), part(0)), "test data of study tiny is empty"),
        (lambda: Data(part(9, classes=1), part(9), part(9)), "one class"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(
    study: Study, data: Callable[[], Data], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(replace(study, data=data), 0)


@pytest.mark.parametrize("name", ["model", "data"])
def test_an_error_of_a_users_function_is_told_in_one_line(study: Study, name: str) -> None:
    def fails() -> Any:
        raise KeyError("forgotten")

    changes: dict[str, Any] = {name: fails}
    with pytest.raises(StudyError, match=rf"{name}\(\) of study tiny fails: KeyError: 'forgotten'"):
        prepare(replace(study, **changes), 0)


@pytest.mark.parametrize("name", ["model", "data"])
def test_a_users_function_that_returns_something_else_is_refused(study: Study, name: str) -> None:
    changes: dict[str, Any] = {name: lambda: 3}
    with pytest.raises(InputError, match=f"{name}.*int"):
        prepare(replace(study, **changes), 0)


def test_a_study_can_be_prepared_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    network, _ = prepare(StudySource("./tiny.py").load(), 0)
    assert network.full_counts == (6, 8)


def test_an_input_shape_that_is_not_that_of_the_data_is_refused(study: Study) -> None:
    assert prepare(replace(study, input_shape=(1, 6, 6)), 0)[0].full_counts == (6, 8)
    with pytest.raises(StudyError, match=r"is \(1, 8, 8\): expected .* training data, \(1, 6, 6\)"):
        prepare(replace(study, input_shape=(1, 8, 8)), 0)


def test_the_network_without_data_is_that_with_data(study: Study) -> None:
    network, shape = prepare_network(study, 5)
    assert shape == (1, 6, 6)

    def no_data() -> Data:
        raise AssertionError("data was loaded")

    described = replace(study, data=no_data, input_shape=(1, 6, 6))
    for other, _ in (
        prepare_network(described, 5),
        prepare_network(described, 5, "cpu", (1, 6, 6)),
    ):
        assert other.channels.fingerprint == network.channels.fingerprint
        for name, tensor in other.module.state_dict().items():
            assert torch.equal(tensor, network.module.state_dict()[name])


class WithoutStatistics(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(1, 6, 3), torch.nn.GroupNorm(2, 6), torch.nn.Flatten(),
            torch.nn.Linear(96, 3),
        )  # fmt: skip


def test_scaling_follows_the_running_statistics_unless_the_study_says_otherwise(
    study: Study,
) -> None:
    without = replace(study, model=WithoutStatistics)
    assert prepare(study, 0)[0].scaling == "inverted"
    assert prepare(without, 0)[0].scaling == "none"
    assert prepare(replace(study, scaling="none"), 0)[0].scaling == "none"
    assert prepare(replace(without, scaling="inverted"), 0)[0].scaling == "inverted"


class Wrapping(torch.nn.Module):
    """Returns its scores in something."""

    def __init__(self, wrap: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.layers = WithoutStatistics()
        self.wrap = wrap

    def forward(self, inputs: torch.Tensor) -> object:
        return self.wrap(self.layers(inputs))


@pytest.mark.parametrize(
    ("wrap", "found"),
    [
        (lambda scores: {"logits": scores}, "a dict with 'logits'"),
        (lambda scores: (scores, scores), "a tuple"),
        (lambda scores: scores[:, 0], r"a tensor of shape \(2,\) for 2 samples"),
        (lambda scores: scores.mean(), r"a tensor of shape \(\) for 2 samples"),
    ],
)
def test_a_model_that_returns_no_scores_is_refused_by_name_and_type(
    study: Study, wrap: Callable[[torch.Tensor], object], found: str
) -> None:
    wrapping = replace(study, model=lambda: Wrapping(wrap))
    message = rf"model Wrapping of study tiny returns {found}: expected a tensor of scores"
    for make in (prepare, prepare_network):
        with pytest.raises(UnsupportedModelError, match=message):
            make(wrapping, 0)


def test_the_check_of_outputs_leaves_the_network_in_training(study: Study) -> None:
    module = prepare(study, 0)[0].module
    assert all(part.training for part in module.modules())
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            assert not buffer.any()


def test_a_batch_size_above_the_training_data_is_refused(study: Study) -> None:
    assert prepare(replace(study, batch_size=100), 0)[1] is not None
    with pytest.raises(StudyError, match="batch_size of study tiny is 101: .* the 100 samples"):
        prepare(replace(study, batch_size=101), 0)
