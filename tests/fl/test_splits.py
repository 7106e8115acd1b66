import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.errors import InputError
from fl.splits import split_iid


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**31))
def test_every_sample_is_dealt_once_and_evenly(size: int, devices: int, seed: int) -> None:
    if devices > size:
        with pytest.raises(InputError, match=f"{size} samples.*{devices} devices"):
            split_iid(size, devices, seed)
        return
    shards = split_iid(size, devices, seed)
    assert sorted(torch.cat(shards).tolist()) == list(range(size))
    assert {len(shard) for shard in shards} <= {size // devices, size // devices + 1}
    assert len(shards) == devices


def test_the_split_is_random_and_follows_from_the_seed() -> None:
    first, again, other = (torch.cat(split_iid(100, 4, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(100))
