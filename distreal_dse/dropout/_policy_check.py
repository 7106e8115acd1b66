"""Whether a mask policy keeps to what everything that trains relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distreal_dse.dropout._policies import MaskPolicy
from distreal_dse.dropout._vector import KeptCounts
from distreal_dse.errors import InputError

WIDTHS = (12, 1, 7, 32)
# Two vectors that nothing has in common, few and all channels.
VECTORS: tuple[KeptCounts, ...] = ((6, 1, 3, 8), (3, 1, 7, 31), (1, 1, 1, 1), WIDTHS)
ROUNDS, DRAWS = 3, 8


def check_mask_policy(make: Callable[[], MaskPolicy]) -> None:
    """Refuse a policy that breaks the contract of `MaskPolicy`; for the tests of a plug-in.

    Masks are drawn for a few vectors in a few rounds. They must be boolean, of the right shape, and
    keep the counts; follow from the generator, the round and the draws of this round alone; take
    the same randomness whatever the counts are; and leave PyTorch's global generator alone.

    Parameters
    ----------
    make
        Makes the policy, always the same.

    Raises
    ------
    InputError
        Naming the policy and what it does wrong.
    """
    policy = make()
    where = f"mask policy {policy.spec!r}"
    _expect(policy.spec == make().spec, where, "the same spec each time it is made")
    before = torch.get_rng_state()
    drawn = [list(_masks(policy, counts, where)) for counts in VECTORS]
    _expect(torch.equal(torch.get_rng_state(), before), where, "no use of the global generator")
    for counts, found in zip(VECTORS, drawn, strict=True):
        for made, why in ((make(), "made anew"), (policy, "used before")):
            again = list(_masks(made, counts, where))
            same = all(
                torch.equal(one[0], other[0]) for one, other in zip(found, again, strict=True)
            )
            _expect(same, where, f"the same masks from the same generator and rounds when {why}")
        alike = zip(found, drawn[0], strict=True)
        same = all(torch.equal(one[1], other[1]) for one, other in alike)
        _expect(same, where, "the same use of the generator whatever the counts are")


def _masks(policy: MaskPolicy, counts: KeptCounts, where: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks of some rounds, each with the state of the generator behind it."""
    generator = torch.Generator().manual_seed(0)
    for number in range(ROUNDS):
        policy.start_round(number)
        for _ in range(DRAWS):
            mask = policy.draw(WIDTHS, counts, generator)
            boolean = mask.dtype == torch.bool and mask.shape == (sum(WIDTHS),)
            _expect(boolean, where, f"boolean masks of shape [{sum(WIDTHS)}]")
            kept = tuple(int(group.sum()) for group in mask.split(WIDTHS))
            _expect(kept == counts, where, f"{counts} units kept of {WIDTHS}, not {kept}")
            yield mask.clone(), generator.get_state()


def _expect(holds: bool, where: str, expected: str) -> None:
    if not holds:
        raise InputError(f"{where}: expected {expected}; mend the policy")
