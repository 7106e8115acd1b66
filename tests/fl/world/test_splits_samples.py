"""Labels and owners of data sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from distreal_dse.errors import DataError, InputError
from distreal_dse.support.compat import torchvision
from fl.world.splits import IidSplit, OwnersSplit, ShardsSplit, labels_of, owners_of, split_dataset

LABELS = [2, 0, 1, 1, 2, 0, 0, 1]


class Listed(Dataset[Any]):
    """Samples of the ``given`` labels; counts how many are read."""

    def __init__(self, given: list[Any], **attributes: Any) -> None:
        self.given, self.read = given, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        self.read += 1
        return torch.randn(2), self.given[index]  # as random augmentation does


def tensors(labels: list[int]) -> TensorDataset:
    return TensorDataset(torch.zeros(len(labels), 2), torch.tensor(labels))


@pytest.mark.parametrize(
    "make",
    [
        tensors,
        Listed,
        lambda labels: Listed(labels, targets=labels),
        lambda labels: Listed(labels, targets=torch.tensor(labels, dtype=torch.int32)),
        lambda labels: Listed(labels, labels=labels),
        lambda labels: Listed([torch.tensor(label) for label in labels]),
    ],
)
def test_labels_of_data_sets_and_their_parts(make: Callable[[list[int]], Dataset[Any]]) -> None:
    dataset = make(LABELS)
    found = labels_of(dataset)
    assert found.dtype == torch.int64 and found.tolist() == LABELS
    part = Subset(Subset(dataset, [7, 3, 0, 4]), [2, 1])
    assert labels_of(part).tolist() == [2, 1]


def test_stated_labels_spare_the_reading_of_the_samples() -> None:
    dataset = Listed(LABELS * 100, targets=LABELS * 100)
    assert labels_of(dataset).tolist() == LABELS * 100
    assert dataset.read <= 3


@pytest.mark.parametrize("targets", [[label + 1 for label in LABELS], LABELS[:3], list("abbcabca")])
def test_stated_labels_that_differ_from_those_of_the_samples_are_not_believed(
    targets: list[Any],
) -> None:
    assert labels_of(Listed(LABELS, targets=targets)).tolist() == LABELS


def test_labels_of_a_torchvision_data_set() -> None:
    fake = torchvision.datasets.FakeData(12, (1, 2, 2), 3)
    assert labels_of(fake).tolist() == [fake[index][1] for index in range(12)]


def test_the_users_random_numbers_stay_as_they_are() -> None:
    before = torch.get_rng_state()
    labels_of(Listed(LABELS))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("label", [0.5, "cat", torch.tensor([1, 0])])
def test_targets_that_are_no_class_indices_are_refused(label: Any) -> None:
    with pytest.raises(DataError, match="labels of the training data can't be read .*class index"):
        labels_of(Listed([label] * 4))


@pytest.mark.parametrize("owners", [[5, 5, 6, 6, 7, 7, 8, 8], torch.arange(8), list("aabbccdd")])
def test_owners_of_a_data_set_and_of_a_part(owners: Any) -> None:
    dataset = Listed(LABELS, owners=owners)
    assert owners_of(dataset) is owners
    part = owners_of(Subset(dataset, [6, 0]))
    assert list(part) == [owners[6], owners[0]]


def test_missing_owners_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match="TensorDataset.* has no owners: .*add it .* another split"):
        owners_of(tensors(LABELS))
    with pytest.raises(DataError, match="has 8 samples and 3 owners: expected one owner per"):
        owners_of(Listed(LABELS, owners=[1, 2, 3]))
    with pytest.raises(InputError, match="has no owners"):
        split_dataset(OwnersSplit(), Subset(tensors(LABELS), [0, 1]), ["a"], 0)


def test_a_data_set_is_read_only_where_the_split_needs_it() -> None:
    dataset = Listed(LABELS, owners=[1, 1, 2, 2, 1, 2, 1, 2])
    assert sum(len(share) for share in split_dataset(IidSplit(), dataset, ["a"] * 4, 0)) == 8
    by_owner = split_dataset(OwnersSplit(), dataset, ["a"] * 2, 0)
    assert sorted(share.tolist() for share in by_owner) == [[0, 1, 4, 6], [2, 3, 5, 7]]
    assert dataset.read == 0
    shards = split_dataset(ShardsSplit(1), dataset, ["a"] * 2, 0)
    assert sorted(sorted(LABELS[i] for i in share.tolist()) for share in shards) == [
        [0, 0, 0, 1],
        [1, 1, 2, 2],
    ]
