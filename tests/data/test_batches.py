"""Mini-batches, and data that nothing can be learned from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from distreal_dse.data.batches import check_data, fetch, in_order, shuffled_forever
from distreal_dse.errors import DataError
from distreal_dse.study import Data


class Listed(Dataset[Any]):
    """A map-style data set of what is in a list; an exception in it is raised."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        if isinstance(sample, Exception):
            raise sample
        return sample


def numbered(size: int) -> TensorDataset:
    """Sample i is the number i, of class i mod 3."""
    numbers = torch.arange(size)
    return TensorDataset(numbers.float()[:, None], numbers % 3)


def batches_of(size: int, batch: int, seed: int = 0, samples: Tensor | None = None) -> Any:
    chosen = torch.arange(size) if samples is None else samples
    return shuffled_forever(chosen, batch, torch.Generator().manual_seed(seed))


class Counted(TensorDataset):
    """Counts how often it is asked."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        Counted.asked += 1
        return super().__getitem__(index)


def test_a_part_of_tensors_is_fetched_at_once() -> None:
    whole = Counted(*numbered(20).tensors)
    part = Subset(Subset(whole, list(range(19, -1, -1))), [4, 2, 7, 0])
    Counted.asked = 0
    inputs, targets = fetch(part, torch.tensor([3, 1, 1]))
    assert Counted.asked == 1
    assert inputs.flatten().tolist() == [19.0, 17.0, 17.0]
    assert targets.tolist() == [19 % 3, 17 % 3, 17 % 3]


class Shifted(Subset[Any]):
    """A part that does more than to choose."""

    def __getitem__(self, index: Any) -> Any:
        inputs, target = super().__getitem__(index)
        return inputs + 100, target

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


def test_a_part_of_another_kind_is_asked_for_each_sample() -> None:
    inputs, _ = fetch(Shifted(numbered(5), [4, 2]), torch.tensor([1, 0]))
    assert inputs.flatten().tolist() == [102.0, 104.0]


# --- Order ----------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 50))
def test_all_samples_come_once_in_order(size: int, batch: int) -> None:
    parts = list(in_order(numbered(size), batch))
    assert [len(inputs) for inputs, _ in parts][:-1] == [batch] * (len(parts) - 1)
    values = [int(value) for inputs, _ in parts for value in inputs.flatten()]
    assert values == list(range(size))
    assert [int(label) for _, labels in parts for label in labels] == [i % 3 for i in range(size)]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3))
def test_shuffled_passes_hold_each_sample_at_most_once(size: int, batch: int, passes: int) -> None:
    length = max(1, size // batch)
    drawn = batches_of(size, batch)
    for _ in range(passes):
        one_pass = list(islice(drawn, length))
        assert all(len(indices) == min(batch, size) for indices in one_pass)
        seen = torch.cat(one_pass).tolist()
        assert len(set(seen)) == len(seen) == min(batch, size) * length
        assert set(seen) <= set(range(size))


def test_each_sample_comes_once_per_pass_where_batches_divide_the_data() -> None:
    drawn = batches_of(12, 4)
    first, second = (torch.cat(list(islice(drawn, 3))).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_left_out_samples_change_from_pass_to_pass() -> None:
    drawn = batches_of(10, 4)
    seen = {int(index) for _ in range(10) for indices in islice(drawn, 2) for index in indices}
    assert seen == set(range(10))


def test_shuffling_draws_from_the_given_samples_alone() -> None:
    samples = torch.tensor([5, 17, 40, 3])
    drawn = batches_of(0, 2, samples=samples)
    assert sorted(torch.cat(list(islice(drawn, 2))).tolist()) == [3, 5, 17, 40]


def test_equal_seeds_shuffle_equally_and_leave_the_global_generator_alone() -> None:
    def start(seed: int) -> list[list[int]]:
        return [indices.tolist() for indices in islice(batches_of(30, 7, seed), 9)]

    before = torch.get_rng_state()
    assert start(1) == start(1)
    assert start(1) != start(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_tensor_data_and_other_map_style_data_are_fetched_alike() -> None:
    tensors = numbered(9)
    indices = torch.tensor([4, 0, 8])
    expected = fetch(tensors, indices)
    listed = Listed([(tensors[i][0], int(tensors[i][1])) for i in range(9)])
    for other in (listed, Subset(tensors, range(9))):
        inputs, labels = fetch(other, indices)
        assert torch.equal(inputs, expected[0]) and torch.equal(labels, expected[1])
        assert labels.dtype == torch.int64


# --- Data that nothing can be learned from --------------------------------------------------------

GOOD = numbered(6)


def refusal_of(train: Any, validation: Any = GOOD, test: Any = GOOD) -> str:
    with pytest.raises(DataError) as refused:
        check_data(Data(train, validation, test), "my-study")
    message = str(refused.value)
    assert "my-study" in message
    return message


def test_good_data_is_accepted() -> None:
    check_data(Data(GOOD, GOOD, GOOD), "my-study")
    check_data(Data(Listed([(torch.zeros(2), 0), (torch.ones(2), 1)]), GOOD, GOOD), "my-study")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_empty_data_is_refused_by_name_of_its_part(part: str) -> None:
    parts: dict[str, Any] = {"train": GOOD, "validation": GOOD, "test": GOOD, part: Listed([])}
    with pytest.raises(DataError, match=f"^{part} data of study my-study is empty"):
        check_data(Data(**parts), "my-study")


def test_training_data_of_one_class_is_refused() -> None:
    assert "one class" in refusal_of(TensorDataset(torch.randn(20, 2), torch.full((20,), 4)))


def test_evaluation_data_may_hold_one_class() -> None:
    one = TensorDataset(torch.randn(3, 2), torch.ones(3, dtype=torch.int64))
    check_data(Data(GOOD, one, one), "my-study")


def test_second_class_at_the_end_of_sorted_data_is_found() -> None:
    labels = (torch.arange(10_000) >= 9_000).long()
    check_data(Data(TensorDataset(torch.zeros(10_000, 1), labels), GOOD, GOOD), "my-study")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(2), 0


def test_data_without_length_is_refused() -> None:
    assert "no length" in refusal_of(Stream())


@pytest.mark.parametrize(
    "targets",
    [torch.rand(6), torch.randint(2, (6, 3)), torch.rand(6, 1)],
    ids=["float", "several", "float column"],
)
def test_targets_that_are_not_class_indices_are_refused(targets: Tensor) -> None:
    assert "expected one class index" in refusal_of(TensorDataset(torch.randn(6, 2), targets))


@pytest.mark.parametrize(
    "sample",
    [
        torch.zeros(2),
        (torch.zeros(2),),
        (torch.zeros(2), 0, 0),
        (object(), 0),
        ("text", 0),
        (torch.zeros(2), "cat"),
        {"inputs": torch.zeros(2)},
        None,
        ValueError("broken file"),
        KeyError("image"),
    ],
    ids=lambda sample: re.sub(" at 0x[0-9a-f]+", "", repr(sample)),
)
def test_samples_of_another_form_are_refused(sample: Any) -> None:
    assert "expected" in refusal_of(Listed([sample] * 4))


@pytest.mark.parametrize(
    "error", [FileNotFoundError("cat.jpg"), OSError("truncated")], ids=["missing", "truncated"]
)
def test_files_that_cannot_be_read_are_refused_with_the_reason(error: Exception) -> None:
    assert str(error) in refusal_of(Listed([error] * 4))


def test_images_of_different_sizes_are_refused() -> None:
    images = [(torch.zeros(3, 8, 8 + i % 2), i % 2) for i in range(6)]
    assert "train data" in refusal_of(Listed(images))


def test_checking_data_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    check_data(Data(GOOD, GOOD, GOOD), "my-study")
    assert torch.equal(torch.get_rng_state(), before)
