"""Randomness by name."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.support.seeding import derive_seed, generator, seeded

keys = st.lists(st.one_of(st.integers(), st.text(max_size=8)), max_size=4).map(tuple)


def test_seed_is_the_same_in_every_process_and_version() -> None:
    # A stored study is resumed with the seeds that it was started with.
    digest = hashlib.blake2b(b"(7, 'masks', 0)", digest_size=8).hexdigest()
    assert derive_seed(7, "masks", 0) == int(digest, 16) // 2


@given(keys)
def test_seeds_are_63_bit_and_accepted_by_torch(key: tuple[int | str, ...]) -> None:
    assert 0 <= derive_seed(*key) < 2**63
    generator(*key)


@given(keys, keys)
def test_equal_keys_give_equal_seeds_and_others_do_not(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_number_and_its_text_are_different_keys() -> None:
    assert len({derive_seed(1, 2), derive_seed("1", 2), derive_seed(12), derive_seed(2, 1)}) == 4


def test_generators_of_equal_keys_draw_equally() -> None:
    one, other, third = generator(3, "data"), generator(3, "data"), generator(3, "masks")
    draws = torch.rand(8, generator=one)
    assert torch.equal(draws, torch.rand(8, generator=other))
    assert not torch.equal(draws, torch.rand(8, generator=third))


def test_seeded_block_draws_equally_and_restores_the_global_generator() -> None:
    before = torch.get_rng_state()
    with seeded(5, "init"):
        one = torch.nn.Linear(4, 4).weight
    torch.rand(3)
    torch.set_rng_state(before)
    with seeded(5, "init"):
        other = torch.nn.Linear(4, 4).weight
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_block_restores_the_global_generator_behind_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError), seeded(0):
        torch.rand(1)
        raise ArithmeticError
    assert torch.equal(torch.get_rng_state(), before)
