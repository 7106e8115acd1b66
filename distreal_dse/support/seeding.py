"""Randomness by name: every stream is derived from the user's seed and what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "masks", replicate)``; equal keys, equal seeds."""
    # int() makes NumPy's integers and bools write themselves like Python's.
    plain = tuple(part if isinstance(part, str) else int(part) for part in key)
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that starts from `derive_seed` of the key."""
    return torch.Generator().manual_seed(derive_seed(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed PyTorch's global generators inside the block and restore them behind it.

    For code that offers no generator argument: the initialisation of layers, `nn.Dropout`.
    """
    seed = derive_seed(*key)
    with torch.random.fork_rng():
        # Not torch.manual_seed(): where CUDA is not in use, that takes a millisecond and remembers
        # every call.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        yield
