"""Splits from text."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from distreal_dse.errors import InputError
from fl.world.splits import (
    ByClassSplit,
    DirichletSplit,
    IidSplit,
    OwnersSplit,
    ShardsSplit,
    Split,
    check_split,
    make_split,
    split_names,
)

PLUG_IN = """
import torch
from fl.world.splits import Split


class Stripes(Split):
    def __init__(self, width="2"):
        self.width = int(width)

    @property
    def spec(self):
        return f"stripes:width={self.width}"

    def split(self, labels, device_classes, owners, seed):
        holders = torch.arange(len(labels)) // self.width % len(device_classes)
        return [(holders == device).nonzero().flatten() for device in range(len(device_classes))]


def misnamed():
    return Stripes()


def number():
    return 3
"""


@pytest.mark.parametrize(
    ("text", "canonical", "split"),
    [
        ("iid", "iid", IidSplit()),
        ("dirichlet:alpha=0.3", "dirichlet:alpha=0.3", DirichletSplit(0.3)),
        ("dirichlet:alpha=1e-1", "dirichlet:alpha=0.1", DirichletSplit(0.1)),
        ("shards", "shards:shards=2", ShardsSplit()),
        ("shards:shards=3", "shards:shards=3", ShardsSplit(3)),
        ("owners", "owners", OwnersSplit()),
        ("by-class", "by-class", ByClassSplit()),
        ("by-class:mix=0", "by-class", ByClassSplit()),
        ("by-class:mix=.25", "by-class:mix=0.25", ByClassSplit(0.25)),
    ],
)
def test_text_makes_a_split_and_the_split_its_canonical_text(
    text: str, canonical: str, split: Split
) -> None:
    made = make_split(text)
    assert made == split == make_split(canonical)
    assert made.spec == canonical == split.spec
    assert make_split(split) is split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idd", "expected one of iid, dirichlet, shards, owners, by-class.*found 'idd'; did"),
        ("mine", "expected one of iid, dirichlet, shards, owners, by-class.*found 'mine'; if it"),
        ("", "expected one of iid"),
        ("shards:", "expected NAME:SETTING=VALUE,… with each setting once, found ''"),
        ("shards:2", "expected NAME:SETTING=VALUE,….* found '2'"),
        ("shards:shards=2,shards=3", "each setting once, found 'shards=3'"),
        ("shards:size=2", "expected the settings shards of 'shards', found 'size'"),
        ("iid:alpha=1", "expected no settings of 'iid', found 'alpha'"),
        ("dirichlet", "expected the setting alpha of 'dirichlet', found none; write dirichlet:al"),
        ("dirichlet:alpha=0", "alpha of a Dirichlet split: expected a number > 0, found 0.0"),
        ("dirichlet:alpha=low", "alpha: expected a number, found 'low'"),
        ("shards:shards=2.5", "shards: expected a whole number, found '2.5'"),
        ("by-class:mix=2", "mix of a split by class: expected 0 ≤ share ≤ 1, found 2.0"),
    ],
)
def test_text_that_makes_no_split_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_split(text)
    assert "\n" not in str(caught.value) and f"split '{text}'" in str(caught.value)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers splits, as pip leaves it behind."""
    (tmp_path / "splits_of_somebody.py").write_text(PLUG_IN)
    info = tmp_path / "splits_of_somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: splits-of-somebody\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
        [distreal_dse.splits]
        stripes = splits_of_somebody:Stripes
        misnamed = splits_of_somebody:misnamed
        number = splits_of_somebody:number
        missing = splits_of_somebody:nothing
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plug_in")
def test_a_package_may_offer_a_split() -> None:
    assert "stripes" in split_names()
    split = make_split("stripes:width=3")
    assert split.spec == "stripes:width=3"
    shares = split.split(torch.zeros(12).long(), ["a", "b"], None, 0)
    assert [share.tolist() for share in shares] == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    check_split(lambda: make_split("stripes"))
    with pytest.raises(InputError, match="expected one of iid, .*by-class, misnamed"):
        make_split("lost")


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stripes:width=wide", "its plug-in fails: ValueError: .*'wide'"),
        ("stripes:size=2", "its plug-in fails: TypeError: .*size"),
        ("missing", "its plug-in fails: AttributeError: .*nothing"),
        ("number", "expected its plug-in to make a Split .* found int"),
        ("misnamed", "whose spec begins with 'misnamed', found one of spec 'stripes:width=2'"),
    ],
)
def test_a_plug_in_that_makes_no_split_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"split '{text}': .*{message}"):
        make_split(text)
