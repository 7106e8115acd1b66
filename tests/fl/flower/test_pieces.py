from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from distreal_dse.errors import InputError  # noqa: E402
from distreal_dse.study.preparation import prepare  # noqa: E402
from fl.flower.pieces import pack_bits, put, sizes, take, unpack_bits  # noqa: E402
from fl.testing import STUDY  # noqa: E402
from fl.world.transfer import state_sizes  # noqa: E402

NETWORK = prepare(STUDY, seed=0)[0]
CHANNELS, WIDTHS = NETWORK.channels, NETWORK.full_counts
UNITS = sum(WIDTHS)
masks = st.lists(st.booleans(), min_size=UNITS, max_size=UNITS).map(torch.tensor)


def state_of(seed: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(99, one.shape, generator=random).to(one.dtype)
        for name, one in NETWORK.copy_state().items()
    }


def belongs(name: str, shape: torch.Size, units: Tensor) -> Tensor:
    """Which elements of a tensor belong to units, one by one."""
    found = torch.ones(shape, dtype=torch.bool)
    for axis, along in enumerate(CHANNELS.axes.get(name, ())):
        for place in range(shape[axis]):
            if along is not None and along[place] < UNITS and not units[along[place]]:
                found.index_fill_(axis, torch.tensor([place]), False)
    return found


@given(masks)
@settings(max_examples=30, deadline=None)
def test_what_is_taken_is_put_where_it_was_and_nothing_else_changes(units: Tensor) -> None:
    new, old = state_of(1), state_of(2)
    found = put(take(new, units, CHANNELS), old, units, CHANNELS)
    for name, tensor in found.items():
        own = belongs(name, tensor.shape, units)
        assert torch.equal(tensor, torch.where(own, new[name], old[name]))
    assert all(torch.equal(old[name], one) for name, one in state_of(2).items())


@given(masks)
@settings(max_examples=30, deadline=None)
def test_a_part_is_as_large_as_the_sub_network(units: Tensor) -> None:
    part = take(state_of(1), units, CHANNELS)
    counts = tuple(int(one.sum()) for one in units.split(list(WIDTHS)))
    size_of = state_sizes(NETWORK.copy_state(), CHANNELS)
    assert sum(array.nbytes for array in part.values()) == size_of(counts)
    assert {kind: len(array) for kind, array in part.items()} == sizes(state_of(1), units, CHANNELS)


def test_parts_do_not_depend_on_the_order_of_a_state() -> None:
    units = torch.arange(UNITS) % 3 > 0
    state = state_of(1)
    backwards = dict(reversed(state.items()))
    one, other = take(state, units, CHANNELS), take(backwards, units, CHANNELS)
    assert all(np.array_equal(array, other[kind]) for kind, array in one.items())


@pytest.mark.parametrize("spoil", ["short", "type", "missing", "shape"])
def test_parts_of_other_units_are_refused(spoil: str) -> None:
    units = torch.arange(UNITS) % 2 == 0
    part = take(state_of(1), units, CHANNELS)
    floats = part["float32"]
    part |= {
        "short": {"float32": floats[:-1]},
        "type": {"float32": floats.astype(np.float16)},
        "shape": {"float32": floats[None]},
        "missing": {},
    }[spoil]
    if spoil == "missing":
        del part["int64"]
    with pytest.raises(InputError, match=f"expected .* for {int(units.sum())} units, found"):
        put(part, state_of(2), units, CHANNELS)


@given(st.lists(st.booleans(), max_size=70).map(lambda bits: torch.tensor(bits, dtype=torch.bool)))
def test_bits_are_unpacked_as_they_were(bits: Tensor) -> None:
    packed = pack_bits(bits)
    assert len(packed) == -(-len(bits) // 8)
    assert torch.equal(unpack_bits(packed, len(bits)), bits)


def test_bits_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="expected 3 bytes for 24 units, found 2"):
        unpack_bits(b"ab", 24)
