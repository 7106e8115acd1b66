"""Whether a split keeps to what federated training relies on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from fl.world.splits.base import SMALLEST, Split

# Classes of unequal size, in no order; each of ten owners has some of several.
LABELS = (torch.arange(600) * 7919) % 600 % 13 % 8
OWNERS = torch.arange(600) % 10
POPULATIONS: tuple[tuple[str, ...], ...] = (
    ("strong",),
    ("strong", "weak"),
    ("strong", "medium", "weak", "weak", "medium", "weak", "weak"),
)
SEEDS = (0, 1)


def check_split(make: Callable[[], Split]) -> None:
    """Refuse a split that breaks the contract of `Split`; for the tests of a plug-in.

    600 samples of 8 classes and 10 owners are dealt to 1, 2 and 7 devices of up to three classes.
    Each device must get at least two, none twice; the result must follow from the arguments
    alone, and PyTorch's global generator must be left alone.

    Parameters
    ----------
    make
        Makes the split, always the same.

    Raises
    ------
    InputError
        Naming the split and what it does wrong.
    """
    split = make()
    where = f"split {split.spec!r}"
    _expect(split.spec == make().spec, where, "the same spec each time it is made")
    before = torch.get_rng_state()
    for device_classes in POPULATIONS:
        for seed in SEEDS:
            shares = _dealt(split, device_classes, seed)
            _check(shares, len(device_classes), where)
            for made, why in ((make(), "made anew"), (split, "used before")):
                again = _dealt(made, device_classes, seed)
                same = len(again) == len(shares) and all(map(torch.equal, shares, again))
                _expect(same, where, f"the same indices from the same arguments when {why}")
    _expect(torch.equal(torch.get_rng_state(), before), where, "no use of the global generator")


def _dealt(split: Split, device_classes: Sequence[str], seed: int) -> list[Tensor]:
    owners = OWNERS.clone() if split.needs_owners else None
    return split.split(LABELS.clone(), device_classes, owners, seed)


def _check(shares: Sequence[Tensor], devices: int, where: str) -> None:
    _expect(len(shares) == devices, where, f"one tensor for each of {devices} devices")
    plain = all(share.dtype == torch.int64 and share.dim() == 1 for share in shares)
    _expect(plain, where, "int64 indices of shape [samples]")
    smallest = min(len(share) for share in shares)
    _expect(smallest >= SMALLEST, where, f"two samples or more for each device, not {smallest}")
    dealt = torch.cat(list(shares))
    known = bool(((dealt >= 0) & (dealt < len(LABELS))).all())
    _expect(known, where, f"indices in 0 … {len(LABELS) - 1}")
    _expect(len(dealt.unique()) == len(dealt), where, "no sample twice")


def _expect(holds: bool, where: str, expected: str) -> None:
    if not holds:
        raise InputError(f"{where}: expected {expected}; mend the split")
