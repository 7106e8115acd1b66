"""The mask policy of DISTREAL: a new uniform draw per mini-batch."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distreal_dse.dropout import RandomMasks


@st.composite
def widths_and_counts(draw: st.DrawFn) -> tuple[list[int], tuple[int, ...]]:
    widths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    return widths, tuple(draw(st.integers(1, width)) for width in widths)


def drawn(widths: list[int], counts: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A mask, and the state of the generator behind it."""
    generator = torch.Generator().manual_seed(seed)
    return RandomMasks().draw(widths, counts, generator), generator.get_state()


@given(widths_and_counts(), st.integers(0, 1000))
def test_each_group_keeps_exactly_its_count(
    sizes: tuple[list[int], tuple[int, ...]], seed: int
) -> None:
    widths, counts = sizes
    mask, _ = drawn(widths, counts, seed)
    assert mask.dtype == torch.bool and mask.shape == (sum(widths),)
    assert tuple(int(group.sum()) for group in mask.split(widths)) == counts


@given(widths_and_counts(), st.data(), st.integers(0, 1000))
def test_masks_of_smaller_counts_are_nested_in_those_of_larger_ones(
    sizes: tuple[list[int], tuple[int, ...]], data: st.DataObject, seed: int
) -> None:
    widths, counts = sizes
    fewer = tuple(data.draw(st.integers(1, count)) for count in counts)
    assert not (drawn(widths, fewer, seed)[0] & ~drawn(widths, counts, seed)[0]).any()


@given(widths_and_counts())
def test_draw_takes_the_same_randomness_whatever_the_counts(
    sizes: tuple[list[int], tuple[int, ...]],
) -> None:
    widths, counts = sizes
    assert torch.equal(drawn(widths, counts)[1], drawn(widths, tuple(widths))[1])


def test_masks_of_a_seed_are_those_that_stored_figures_were_made_with() -> None:
    generator = torch.Generator().manual_seed(2022)
    found = [
        "".join("01"[kept] for kept in RandomMasks().draw((8, 2, 11), counts, generator).tolist())
        for counts in ((3, 1, 5), (4, 2, 1), (8, 1, 8))
    ]
    assert found == ["010000110100111001001", "011100101101000000000", "111111110101110111110"]
    assert torch.rand(1, generator=generator).item() == 0.5629451870918274


def test_equal_seeds_give_equal_masks_and_a_stream_gives_new_ones() -> None:
    one, other = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    masks = [RandomMasks().draw([30, 30], (15, 15), one) for _ in range(3)]
    again = [RandomMasks().draw([30, 30], (15, 15), other) for _ in range(3)]
    assert all(torch.equal(left, right) for left, right in zip(masks, again, strict=True))
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    drawn([16, 4], (8, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_filters_and_pairs_of_filters_are_kept_equally_often() -> None:
    draws, width, count = 4000, 8, 3
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack(
        [RandomMasks().draw([width, 5], (count, 2), generator) for _ in range(draws)]
    ).double()

    def assert_near(shares: Tensor, expected: float) -> None:
        deviation = (expected * (1 - expected) / draws) ** 0.5
        assert (shares - expected).abs().max() < 5 * deviation

    together = masks.T @ masks / draws
    first, second = together[:width, :width], together[width:, width:]
    assert_near(first.diagonal(), 3 / 8)
    assert_near(second.diagonal(), 2 / 5)
    assert_near(first[~torch.eye(width, dtype=torch.bool)], 3 / 8 * 2 / 7)
    assert_near(second[~torch.eye(5, dtype=torch.bool)], 2 / 5 * 1 / 4)
    assert_near(together[:width, width:], 3 / 8 * 2 / 5)  # groups are independent
