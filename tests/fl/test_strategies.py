"""Which masks DISTREAL trains with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distreal_dse import Study
from distreal_dse.dropout import KeptCounts, MaskPolicy
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, LookupTable
from fl.strategies import Distreal, masks_of
from fl.world.devices import Device


class Own(MaskPolicy):
    """Of a user; there is no text that makes it."""

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        return torch.cat(
            [torch.arange(width) < count for width, count in zip(widths, counts, strict=True)]
        )


def with_masks(front: Front, masks: object) -> Front:
    return replace(front, settings={"masks": masks})


def test_a_front_is_trained_with_the_masks_of_its_search(front: Front, study: Study) -> None:
    searched = with_masks(front, "blocks:blocks=8,redraw=round")
    for policy in (masks_of(searched), masks_of(searched, study)):
        assert policy.spec == "blocks:blocks=8,redraw=round"
    plan = Distreal(LookupTable(searched)).plan(Device(0, "any", 1.0), 1, 1.0, 0)
    assert plan.masks.spec == "blocks:blocks=8,redraw=round"


def test_a_front_without_masks_in_its_settings_means_random_ones(
    front: Front, study: Study
) -> None:
    assert front.settings == {}
    assert masks_of(front).spec == "random"
    assert masks_of(front, replace(study, masks="ordered")).spec == "random"


def test_a_policy_of_the_studys_own_is_found_by_its_spec(front: Front, study: Study) -> None:
    policy = Own()
    assert masks_of(with_masks(front, "Own"), replace(study, masks=policy)) is policy
    with pytest.raises(InputError, match="mask policy 'Own': expected one of random"):
        masks_of(with_masks(front, "Own"), study)


def test_masks_that_are_no_text_are_refused(front: Front) -> None:
    with pytest.raises(FrontError, match="front hand-made: masks .* expected text .* found 3"):
        masks_of(with_masks(front, 3))


def test_no_two_devices_share_the_state_of_a_policy(front: Front) -> None:
    strategy = Distreal(LookupTable(with_masks(front, "random-round")))
    one, other = (strategy.plan(Device(i, "any", 1.0), 1, 1.0, 0).masks for i in range(2))
    masks = [
        policy.draw((64,), (32,), torch.Generator().manual_seed(seed))
        for seed, policy in enumerate((one, other))
    ]
    assert not torch.equal(*masks)
    assert torch.equal(masks[0], one.draw((64,), (32,), torch.Generator()))
