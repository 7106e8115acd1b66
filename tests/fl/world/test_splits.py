"""The contract of splits, and what each of them promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from distreal_dse.errors import InputError
from fl.world.splits import (
    ByClassSplit,
    DirichletSplit,
    IidSplit,
    OwnersSplit,
    ShardsSplit,
    Split,
    check_split,
    split_iid,
)

SPLITS = [
    IidSplit(),
    DirichletSplit(0.3),
    DirichletSplit(1e-9),
    DirichletSplit(1e9),
    ShardsSplit(),
    ShardsSplit(5),
    OwnersSplit(),
    ByClassSplit(),
    ByClassSplit(0.3),
    ByClassSplit(1.0),
]
NAMES = ("strong", "medium", "weak")


def specs(splits: Sequence[Split]) -> list[str]:
    return [split.spec for split in splits]


def devices_of(count: int, classes: int = 3) -> list[str]:
    return [NAMES[index % classes] for index in range(count)]


def class_counts(shares: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Shape [devices, classes]."""
    return torch.stack(
        [labels[share].bincount(minlength=int(labels.max()) + 1) for share in shares]
    )


# --- The contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS, ids=specs(SPLITS))
def test_shipped_splits_pass_the_check_that_plug_ins_are_offered(split: Split) -> None:
    check_split(lambda: split)


@pytest.mark.parametrize("split", SPLITS, ids=specs(SPLITS))
@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=120).map(torch.tensor),
    devices=st.integers(1, 12),
    owners=st.integers(1, 30),
    seed=st.integers(0, 2**40),
)
@example(labels=torch.zeros(2, dtype=torch.int64), devices=1, owners=1, seed=0)
def test_devices_get_two_or_more_samples_and_none_twice(
    split: Split, labels: Tensor, devices: int, owners: int, seed: int
) -> None:
    owned = [f"owner {index % owners}" for index in range(len(labels))]
    try:
        shares = split.split(labels, devices_of(devices), owned, seed)
    except InputError as error:
        assert "\n" not in str(error) and "expected" in str(error)
        # Refused is only what can't be dealt.
        if isinstance(split, OwnersSplit):
            assert sum(count > 1 for count in Counter(owned).values()) < devices
        elif isinstance(split, ShardsSplit):
            assert len(labels) < devices * max(2, split.shards)
        elif not isinstance(split, ByClassSplit):
            assert len(labels) < 2 * devices
        return
    dealt = torch.cat(shares).tolist()
    sizes = [len(share) for share in shares]
    assert len(shares) == devices and min(sizes) >= 2
    assert len(set(dealt)) == len(dealt) and set(dealt) <= set(range(len(labels)))
    again = split.split(labels.clone(), devices_of(devices), list(owned), seed)
    assert all(torch.equal(one, other) for one, other in zip(shares, again, strict=True))
    if not isinstance(split, OwnersSplit):
        assert len(dealt) == len(labels)
    if isinstance(split, (IidSplit, DirichletSplit)):
        assert max(sizes) - min(sizes) <= 1
    if isinstance(split, ShardsSplit):
        assert max(sizes) - min(sizes) <= split.shards


BY_COUNTS = [split for split in SPLITS if split.needs_labels]


@pytest.mark.parametrize("split", BY_COUNTS, ids=specs(BY_COUNTS))
@given(order=st.permutations(list(range(60))), seed=st.integers(0, 99))
def test_numbers_by_class_do_not_depend_on_the_order_of_the_samples(
    split: Split, order: list[int], seed: int
) -> None:
    labels = torch.arange(60) ** 2 % 7 + 3
    shuffled = labels[order]
    one = split.split(labels, devices_of(5), None, seed)
    other = split.split(shuffled, devices_of(5), None, seed)
    assert torch.equal(class_counts(one, labels), class_counts(other, shuffled))


@pytest.mark.parametrize("split", SPLITS, ids=specs(SPLITS))
def test_another_seed_deals_otherwise(split: Split) -> None:
    labels, owners = torch.arange(200) % 10, torch.arange(200) % 20
    one, other = (split.split(labels, devices_of(6), owners, seed) for seed in (0, 1))
    assert [sorted(share.tolist()) for share in one] != [sorted(share.tolist()) for share in other]


TOO_FEW = [split for split in SPLITS if not isinstance(split, OwnersSplit)]


@pytest.mark.parametrize("split", TOO_FEW, ids=specs(TOO_FEW))
def test_more_devices_than_half_the_samples_are_refused(split: Split) -> None:
    with pytest.raises(InputError, match="19 samples: expected at least two .* 10 devices"):
        split.split(torch.arange(19) % 4, devices_of(10), None, 0)


# --- iid ------------------------------------------------------------------------------------------


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


# --- Dirichlet ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 3.0, 30.0])
def test_class_shares_spread_as_the_dirichlet_multinomial_distribution_says(alpha: float) -> None:
    """Variance p (1 − p) / (alpha + 1) of the proportions, and on top that of n draws by them."""
    quota, devices, prior = 20, 12_000, np.array([0.5, 0.3, 0.2])
    labels = torch.tensor(np.repeat([0, 1, 2], (prior * quota * devices).astype(int)))
    shares = class_counts(DirichletSplit(alpha).split(labels, ["a"] * devices, None, 0), labels)
    expected = prior * (1 - prior) * (quota + alpha) / (quota * (alpha + 1))
    # The few devices that draw after a class has run out have other shares.
    assert (shares / quota).numpy().var(0) == pytest.approx(expected, rel=0.1)


def test_class_shares_have_the_beta_distributions_of_dirichlet_proportions() -> None:
    """With a thousand draws each, what devices hold is nearly what they draw by."""
    alpha, quota, devices, prior = 4.0, 1000, 500, np.array([0.5, 0.3, 0.2])
    labels = torch.tensor(np.repeat([0, 1, 2], (prior * quota * devices).astype(int)))
    counts = class_counts(DirichletSplit(alpha).split(labels, ["a"] * devices, None, 1), labels)
    for number, p in enumerate(prior):
        marginal = stats.beta(alpha * p, alpha * (1 - p))
        assert stats.kstest(counts[:, number] / quota, marginal.cdf).statistic < 0.07
        per_class = stats.beta(3 * alpha * p, 3 * alpha * (1 - p))  # the other convention
        assert stats.kstest(counts[:, number] / quota, per_class.cdf).statistic > 0.1


def test_drawing_at_once_has_the_distribution_of_drawing_one_by_one() -> None:
    from fl.world.splits.dirichlet import _drawn

    shares, left, quota, runs = np.array([0.7, 0.2, 0.1]), np.array([3, 4, 9]), 8, 4000
    random = np.random.default_rng(5)

    def one_by_one() -> tuple[int, ...]:
        drawn = np.zeros(3, dtype=int)
        for _ in range(quota):
            weights = shares * (drawn < left)
            drawn[random.choice(3, p=weights / weights.sum())] += 1
        return tuple(drawn)

    found = Counter(tuple(_drawn(quota, shares, left, random)) for _ in range(runs))
    expected = Counter(one_by_one() for _ in range(runs))
    kinds = sorted(found | expected)
    frequent = [kind for kind in kinds if found[kind] + expected[kind] >= 20]
    table = [[count[kind] for kind in frequent] for count in (found, expected)]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert all(all(n <= limit for n, limit in zip(kind, left, strict=True)) for kind in kinds)


def test_a_small_alpha_gives_one_class_and_a_large_one_all() -> None:
    labels = torch.arange(10_000) % 10
    few = class_counts(DirichletSplit(1e-6).split(labels, ["a"] * 100, None, 0), labels)
    # Some of the last devices finish a class off and begin another.
    assert (few.max(1).values == 100).float().mean() > 0.8
    many = class_counts(DirichletSplit(1e6).split(labels, ["a"] * 100, None, 0), labels)
    # Pearson's statistic of a device; the median leaves out those that get what is left over.
    statistic = (many.double() - 10).square().sum(1).median() / 10
    assert float(statistic) == pytest.approx(stats.chi2(9).median(), rel=0.2)


def test_what_is_left_over_does_not_fall_to_the_last_devices_by_index() -> None:
    """Otherwise the classes of the devices with high indices would differ systematically."""
    labels = torch.arange(2000) % 10
    one_class = torch.zeros(20)
    for seed in range(60):
        shares = DirichletSplit(0.01).split(labels, ["a"] * 20, None, seed)
        one_class += (class_counts(shares, labels).max(1).values == 100).float()
    assert abs(float(one_class[:10].mean() - one_class[10:].mean())) < 6


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=f"alpha .* expected a number > 0, found {alpha}"):
        DirichletSplit(alpha)


# --- Shards ---------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 10), st.integers(0, 2**31))
def test_devices_hold_whole_shards_of_the_sorted_data(shards: int, devices: int, seed: int) -> None:
    """With shards of one class each, a device has so many classes at most, in whole shards."""
    assume(shards * devices >= 2)
    labels = torch.arange(shards * devices * 6) // 6
    dealt = ShardsSplit(shards).split(labels, ["a"] * devices, None, seed)
    counts = class_counts(dealt, labels)
    assert torch.equal(counts.sum(0), torch.full((shards * devices,), 6))
    assert set(counts.flatten().tolist()) <= {0, 6}
    assert torch.equal((counts > 0).sum(1), torch.full((devices,), shards))


def test_too_many_shards_are_refused() -> None:
    with pytest.raises(InputError, match="40 samples.* each of the 50 shards of 10 devices"):
        ShardsSplit(5).split(torch.arange(40) % 4, ["a"] * 10, None, 0)
    with pytest.raises(InputError, match="shards of a split: expected 1 or more, found 0"):
        ShardsSplit(0)


# --- Owners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["texts", "numbers", "tensor"])
def test_a_device_holds_all_samples_of_one_owner(kind: str) -> None:
    numbers = torch.arange(50) * 17 % 7
    owners = {
        "texts": [f"f{number:04}" for number in numbers.tolist()],
        "numbers": numbers.tolist(),
        "tensor": numbers,
    }[kind]
    shares = OwnersSplit().split(torch.zeros(50).long(), devices_of(7), owners, 3)
    held = [numbers[share].unique().tolist() for share in shares]
    assert all(len(found) == 1 for found in held)
    assert sorted(found[0] for found in held) == list(range(7))
    assert sum(len(share) for share in shares) == 50


def test_fewer_devices_than_owners_are_a_sample_that_grows_with_them() -> None:
    owners, labels = torch.arange(400) % 40, torch.zeros(400).long()
    few, more = (OwnersSplit().split(labels, devices_of(n), owners, 0) for n in (5, 12))
    assert all(torch.equal(one, other) for one, other in zip(few, more, strict=False))
    taken = [int(owners[share[0]]) for share in more]
    assert len(set(taken)) == 12
    assert taken != sorted(taken) and max(taken) > 12


def test_owners_of_one_sample_are_left_out() -> None:
    owners = ["anna", "ben", "anna", "cleo", "cleo"]
    shares = OwnersSplit().split(torch.zeros(5).long(), ["a", "a"], owners, 0)
    assert sorted(share.tolist() for share in shares) == [[0, 2], [3, 4]]
    with pytest.raises(InputError, match="has 2 owners of two or more samples.* 3 devices"):
        OwnersSplit().split(torch.zeros(5).long(), ["a"] * 3, owners, 0)


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        (None, "expected an owner of each sample, found none; take another split or give"),
        ([1, 2, 3], r"for each of the 4 samples, found shape \(3,\)"),
        ([0.5, 0.5, 1.5, 1.5], "a text or a whole number, .* of float64"),
        ([[1], [1], [2], [2]], r"found shape \(4, 1\)"),
    ],
)
def test_owners_that_are_none_are_refused(owners: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OwnersSplit().split(torch.zeros(4).long(), ["a"], owners, 0)  # type: ignore[arg-type]


# --- By class -------------------------------------------------------------------------------------


def test_no_class_of_devices_sees_the_label_classes_of_another() -> None:
    labels, devices = torch.arange(3000) % 10, devices_of(30)
    split = ByClassSplit()
    shares = split.split(labels, devices, None, 4)
    homes = split.label_classes(labels, devices, 4)
    assert sorted(torch.cat(list(homes.values())).tolist()) == list(range(10))
    assert sorted(len(found) for found in homes.values()) == [3, 3, 4]
    for name, share in zip(devices, shares, strict=True):
        assert set(labels[share].tolist()) == set(homes[name].tolist())
    for name in NAMES:
        sizes = [len(share) for share, one in zip(shares, devices, strict=True) if one == name]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == 300 * len(homes[name])


def test_label_classes_go_by_the_share_of_the_devices_and_are_drawn_by_the_seed() -> None:
    labels, devices = torch.arange(1000) % 10, ["weak"] * 12 + ["strong"] * 7 + ["rare"]
    found = [ByClassSplit().label_classes(labels, devices, seed) for seed in range(20)]
    for homes in found:
        assert {name: len(own) for name, own in homes.items()} == {
            "weak": 6, "strong": 3, "rare": 1
        }  # fmt: skip
    assert {int(homes["rare"]) for homes in found} != {int(found[0]["rare"])}
    assert len({int(homes["rare"]) for homes in found}) > 4


def test_a_share_of_the_samples_is_dealt_to_all() -> None:
    labels, devices = torch.arange(12_000) % 6, devices_of(12)
    split = ByClassSplit(mix=0.25)
    homes = split.label_classes(labels, devices, 0)
    for name, share in zip(devices, split.split(labels, devices, None, 0), strict=True):
        at_home = torch.isin(labels[share], homes[name]).float().mean()
        assert at_home == pytest.approx(0.75 + 0.25 / 3, abs=0.03)
        assert len(share) == pytest.approx(1000, abs=40)  # the mixed part takes from all classes
    counts = class_counts(ByClassSplit(mix=1.0).split(labels, devices, None, 0), labels)
    assert stats.chi2_contingency(counts.numpy()).pvalue > 1e-3


def test_too_few_label_classes_or_samples_are_refused() -> None:
    with pytest.raises(InputError, match="2 label classes: .* each of the 3 classes of devices"):
        ByClassSplit().split(torch.arange(60) % 2, devices_of(3), None, 0)
    lopsided = torch.tensor([0] * 97 + [1] * 3)
    for seed in range(3):
        with pytest.raises(InputError, match="2 devices of class .* at least two for each, found"):
            ByClassSplit().split(lopsided, devices_of(4, classes=2), None, seed)
    assert ByClassSplit(0.9).split(lopsided, devices_of(4, classes=2), None, 0)


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan")])
def test_a_mix_out_of_range_is_refused(mix: float) -> None:
    with pytest.raises(InputError, match=f"mix .* expected 0 ≤ share ≤ 1, found {mix}"):
        ByClassSplit(mix)


# --- The check of plug-ins ------------------------------------------------------------------------


class Wrong(Split):
    """Deals one sample after the other, with one fault."""

    needs_labels = False

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def split(self, labels, device_classes, owners, seed):  # type: ignore[no-untyped-def]
        self.calls += 1
        shares = list(torch.arange(len(labels)).tensor_split(len(device_classes)))
        faulty = {
            "missing": shares[:-1],
            "lonely": [*shares[:-1], shares[-1][:1]],
            "double": [*shares[:-1], torch.cat([shares[-1], shares[-1][:1]])],
            "outside": [*shares[:-1], shares[-1] + 1],
            "floats": [share.double() for share in shares],
            "state": [share.roll(self.calls) for share in shares],
        }
        if self.fault == "global":
            torch.randn(1)
        return faulty.get(self.fault, shares)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "one tensor for each of 1 devices"),
        ("lonely", "two samples or more for each device, not 1"),
        ("double", "no sample twice"),
        ("outside", "indices in 0 … 599"),
        ("floats", "int64 indices"),
        ("state", "the same indices from the same arguments when"),
        ("global", "no use of the global generator"),
    ],
)
def test_the_check_finds_what_breaks_the_contract(fault: str, message: str) -> None:
    with pytest.raises(InputError, match=f"split 'Wrong': expected {message}.*mend the split"):
        check_split(lambda: Wrong(fault))
    check_split(lambda: Wrong("none"))
