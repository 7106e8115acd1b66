"""Mask policies from text."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from distreal_dse.dropout import (
    ComposedMasks,
    MaskPolicy,
    RandomMasks,
    check_mask_policy,
    make_policy,
    policy_names,
)
from distreal_dse.errors import InputError

PLUG_IN = """
import torch
from distreal_dse.dropout import MaskPolicy


class Last(MaskPolicy):
    def __init__(self, gap="0"):
        self.gap = int(gap)

    @property
    def spec(self):
        return f"last:gap={self.gap}"

    def draw(self, widths, counts, generator):
        return torch.cat([torch.arange(w) >= w - n for w, n in zip(widths, counts)])


def misnamed():
    return Last()


def number():
    return 3
"""


@pytest.mark.parametrize(
    ("text", "canonical", "policy"),
    [
        ("random", "random", RandomMasks()),
        ("random:redraw=1", "random", ComposedMasks()),
        ("random:redraw=5", "random:redraw=5", ComposedMasks(redraw=5)),
        ("random:redraw=round", "random-round", ComposedMasks(redraw="round")),
        ("random-round", "random-round", ComposedMasks(redraw="round")),
        (
            "random-round:core=.5",
            "core:core=0.5,redraw=round",
            ComposedMasks(core=0.5, redraw="round"),
        ),
        ("ordered", "ordered", ComposedMasks("fixed")),
        ("rolling", "rolling", ComposedMasks("rolling")),
        (
            "rolling:core=0.5,blocks=3",
            "rolling:blocks=3,core=0.5",
            ComposedMasks("rolling", blocks=3, core=0.5),
        ),
        ("blocks", "blocks:blocks=4", ComposedMasks(blocks=4)),
        ("core", "core:core=0.5", ComposedMasks(core=0.5)),
        ("core:core=0", "random", RandomMasks()),
        (
            "blocks:redraw=round,blocks=8,core=0.25",
            "blocks:blocks=8,core=0.25,redraw=round",
            ComposedMasks(blocks=8, core=0.25, redraw="round"),
        ),
    ],
)
def test_text_makes_a_policy_and_the_policy_its_canonical_text(
    text: str, canonical: str, policy: ComposedMasks
) -> None:
    made = make_policy(text)
    assert made.spec == canonical == policy.spec
    assert make_policy(canonical).spec == canonical
    made.start_round(3)
    policy.start_round(3)
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(6):
        masks = [
            each.draw((12, 20), (5, 9), source) for each, source in ((made, one), (policy, other))
        ]
        assert torch.equal(*masks)


def test_a_policy_is_taken_as_it_is() -> None:
    policy = RandomMasks()
    assert make_policy(policy) is policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blokcs", "'blokcs': expected one of random, random-round, ordered, .*found 'blokcs'"),
        ("", "'': expected one of random"),
        ("blocks:", "'blocks:': expected NAME:SETTING=VALUE,… with each setting once, found ''"),
        ("blocks:4", "expected NAME:SETTING=VALUE,….* found '4'"),
        ("blocks:blocks=", "found 'blocks='"),
        ("blocks:blocks=4,blocks=5", "each setting once, found 'blocks=5'"),
        ("blocks:size=4", "expected the settings blocks, core, redraw of 'blocks', found 'size'"),
        ("ordered:core=0.5", "expected no settings of 'ordered', found 'core'"),
        ("rolling:redraw=2", "expected the settings blocks, core of 'rolling', found 'redraw'"),
        ("random-round:redraw=2", "settings blocks, core of 'random-round', found 'redraw'"),
        ("blocks:blocks=1", "blocks of a mask policy: expected .* 2 or more, or 0 .* found 1"),
        ("blocks:blocks=2.5", "blocks: expected a whole number, found '2.5'"),
        ("core:core=1", "core of a mask policy: expected 0 ≤ share < 1 .*'ordered'.*found 1.0"),
        ("core:core=-0.1", "expected 0 ≤ share < 1"),
        ("core:core=nan", "expected 0 ≤ share < 1"),
        ("core:core=half", "core: expected a number, found 'half'"),
        ("random:redraw=0", "redraw of a mask policy: expected 1 or more .*round, found 0"),
        ("random:redraw=epoch", "redraw: expected a whole number or round, found 'epoch'"),
    ],
)
def test_text_that_makes_no_policy_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_policy(text)
    assert "\n" not in str(caught.value) and f"mask policy '{text}'" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"order": "sorted"}, "order of a mask policy: expected random or fixed or rolling"),
        ({"order": "fixed", "blocks": 4}, "order .* expected random or rolling"),
        ({"order": "rolling", "redraw": "round"}, "expected random where there is something"),
        ({"redraw": "epoch"}, "redraw of a mask policy"),
    ],
)
def test_compositions_without_a_meaning_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ComposedMasks(**wrong)  # type: ignore[arg-type]


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers policies, as pip leaves it behind."""
    (tmp_path / "masks_of_somebody.py").write_text(PLUG_IN)
    info = tmp_path / "masks_of_somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: masks-of-somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
        [distreal_dse.mask_policies]
        last = masks_of_somebody:Last
        misnamed = masks_of_somebody:misnamed
        number = masks_of_somebody:number
        missing = masks_of_somebody:nothing
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plug_in")
def test_a_package_may_offer_a_policy() -> None:
    assert policy_names()[-1] == "number" and "last" in policy_names()
    policy = make_policy("last:gap=2")
    assert policy.spec == "last:gap=2"
    assert policy.draw((4, 2), (1, 1), torch.Generator()).tolist() == [0, 0, 0, 1, 0, 1]
    check_mask_policy(lambda: make_policy("last"))
    with pytest.raises(InputError, match="expected one of random, .*core, last, misnamed"):
        make_policy("lost")


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("last:gap=wide", "its plug-in fails: ValueError: .*'wide'"),
        ("last:size=2", "its plug-in fails: TypeError: .*size"),
        ("missing", "its plug-in fails: AttributeError: .*nothing"),
        ("number", "expected its plug-in to make a MaskPolicy .* found int"),
        ("misnamed", "whose spec begins with 'misnamed', found one of spec 'last:gap=0'"),
    ],
)
def test_a_plug_in_that_makes_no_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"mask policy '{text}': .*{message}"):
        make_policy(text)


def test_a_policy_of_ones_own_is_named_after_its_class() -> None:
    class Mine(MaskPolicy):
        draw = RandomMasks.draw

    assert Mine().spec == "Mine"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": 2.5}, "blocks of a mask policy: expected a whole number, .* found 2.5"),
        ({"blocks": 4.0}, "blocks of a mask policy: .* found 4.0"),
        ({"redraw": 2.5}, "redraw of a mask policy: .* whole ones, or round, found 2.5"),
        ({"redraw": float("inf")}, "redraw of a mask policy: .* found inf"),
        ({"redraw": None}, "redraw of a mask policy: .* found None"),
        ({"core": "0.5"}, "core of a mask policy: expected 0 ≤ share < 1 .* found 0.5"),
    ],
)
def test_choices_of_another_kind_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ComposedMasks(**wrong)
