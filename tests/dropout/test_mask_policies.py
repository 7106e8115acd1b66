"""What all mask policies have in common, and what each composition adds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse.dropout import (
    ComposedMasks,
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    MaskPolicy,
    check_mask_policy,
    kept_counts,
    make_policy,
    zero_dropped,
)
from distreal_dse.errors import InputError
from networks import CLASSES, NETWORKS, Plain, inputs_of, targets_of, trained

RANDOM = (
    "random", "random:redraw=3", "random-round", "blocks", "blocks:blocks=7,redraw=5",
    "blocks:blocks=2,redraw=round", "core", "core:core=0.75,redraw=round",
    "blocks:blocks=4,core=0.25,redraw=round", "random-round:blocks=3,core=0.9",
)  # fmt: skip
SPECS = (*RANDOM, "ordered", "rolling", "rolling:blocks=4", "rolling:blocks=3,core=0.5")
every_policy = pytest.mark.parametrize("spec", SPECS)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[tuple[int, ...], KeptCounts, KeptCounts]:
    """Widths, and counts of which the second are not larger than the first."""
    widths = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=6)))
    more = tuple(draw(st.integers(1, width)) for width in widths)
    return widths, more, tuple(draw(st.integers(1, count)) for count in more)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(
    policy: MaskPolicy, number: int, widths: Sequence[int], counts: KeptCounts, seed: int = 0
) -> list[Tensor]:
    source = generator(seed)
    return [policy.draw(widths, counts, source) for _ in range(number)]


def kept_units(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


@every_policy
def test_a_policy_keeps_the_contract(spec: str) -> None:
    check_mask_policy(lambda: make_policy(spec))


@every_policy
@given(case=sizes(), seed=st.integers(0, 99), number=st.integers(0, 99))
def test_counts_are_kept_and_masks_are_nested_in_networks_of_any_widths(
    spec: str, case: tuple[tuple[int, ...], KeptCounts, KeptCounts], seed: int, number: int
) -> None:
    widths, more, fewer = case
    masks = []
    for counts in (more, fewer, widths):
        policy = make_policy(spec)
        policy.start_round(number)
        mask = policy.draw(widths, counts, generator(seed))
        assert mask.dtype == torch.bool and mask.shape == (sum(widths),)
        assert tuple(int(group.sum()) for group in mask.split(widths)) == counts
        masks.append(mask)
    large, small, full = masks
    assert not (small & ~large).any()
    assert full.all()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "redraw=3" in spec or "round" in spec])
def test_a_budget_that_changes_within_the_redraw_period_follows_one_order(spec: str) -> None:
    policy, source = make_policy(spec), generator()
    for _ in range(3):
        policy.start_round(0)
        small, large, again = (
            policy.draw((20, 9), counts, source) for counts in ((5, 2), (15, 7), (5, 2))
        )
        assert torch.equal(small, again)
        assert not (small & ~large).any() and small.sum() < large.sum()


@pytest.mark.parametrize(("blocks", "core"), [(0, 0.0), (4, 0.0), (0, 0.5), (8, 0.25)])
@pytest.mark.parametrize("period", [1, 2, 5])
def test_a_random_order_is_redrawn_when_it_is_due_and_not_before(
    blocks: int, core: float, period: int
) -> None:
    policy = ComposedMasks(blocks=blocks, core=core, redraw=period)
    source, changes = generator(3), 0
    last, state = policy.draw((64, 64), (30, 30), source), source.get_state()
    for number in range(1, 40 * period):
        mask = policy.draw((64, 64), (30, 30), source)
        due = number % period == 0
        assert torch.equal(source.get_state(), state) != due
        if not due:
            assert torch.equal(mask, last)
        elif not torch.equal(mask, last):
            changes += 1
        last, state = mask, source.get_state()
    assert changes > 30  # of 39: the same of four blocks may come first twice


@pytest.mark.parametrize("spec", [spec for spec in RANDOM if "round" in spec])
def test_an_order_drawn_per_round_lasts_for_the_round(spec: str) -> None:
    policy, source = make_policy(spec), generator()
    seen = set()
    for number in range(20):
        policy.start_round(number)
        masks = [policy.draw((32, 16), (16, 8), source) for _ in range(6)]
        assert all(torch.equal(masks[0], mask) for mask in masks)
        seen.add(tuple(kept_units(masks[0])))
    assert len(seen) >= 2


def test_a_new_round_begins_a_new_redraw_period() -> None:
    policy, source = make_policy("random:redraw=4"), generator()
    first = [policy.draw((64,), (32,), source) for _ in range(2)]
    policy.start_round(1)
    second = [policy.draw((64,), (32,), source) for _ in range(5)]
    assert torch.equal(*first)
    assert not torch.equal(first[1], second[0])
    assert all(torch.equal(second[0], mask) for mask in second[:4])
    assert not torch.equal(second[3], second[4])


def test_a_policy_may_go_from_one_network_to_another() -> None:
    policy, source = make_policy("random-round"), generator()
    policy.draw((8, 4), (4, 2), source)
    assert policy.draw((3, 9), (1, 5), source).split([3, 9])[0].sum() == 1


@pytest.mark.parametrize("spec", ["ordered", "rolling"])
def test_policies_without_chance_take_no_randomness(spec: str) -> None:
    source = generator()
    make_policy(spec).draw((8, 4), (4, 2), source)
    assert torch.equal(source.get_state(), generator().get_state())


def test_ordered_keeps_the_first_units() -> None:
    policy = make_policy("ordered")
    for number in range(3):
        policy.start_round(number)
        assert kept_units(policy.draw((6, 4), (3, 1), generator())) == [0, 1, 2, 6]


def test_the_rolling_window_moves_by_one_unit_per_round_and_wraps_around() -> None:
    policy = make_policy("rolling")
    times = torch.zeros(14, dtype=torch.long)
    for number in range(20):
        policy.start_round(number)
        first, second = policy.draw((10, 4), (3, 2), generator()).split((10, 4))
        assert set(kept_units(first)) == {(number + i) % 10 for i in range(3)}
        assert set(kept_units(second)) == {(number + i) % 4 for i in range(2)}
        times += torch.cat([first, second])
    assert times.tolist() == [6] * 10 + [10] * 4  # evenly, over whole turns


def test_a_rolling_window_of_blocks_moves_by_one_block_per_round() -> None:
    policy = make_policy("rolling:blocks=4")
    found = []
    for number in range(5):
        policy.start_round(number)
        found.append(kept_units(policy.draw((8, 4), (4, 2), generator())))
    assert found == [
        [0, 1, 2, 3, 8, 9],
        [2, 3, 4, 5, 9, 10],
        [4, 5, 6, 7, 10, 11],
        [0, 1, 6, 7, 8, 11],
        [0, 1, 2, 3, 8, 9],
    ]


def test_a_core_of_a_rolling_window_stays() -> None:
    policy = make_policy("rolling:core=0.5")
    found = []
    for number in range(7):
        policy.start_round(number)
        found.append(kept_units(policy.draw((6,), (4,), generator())))
    # The core is {0, 1}; the window of two skips it.
    assert found == [
        [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 3, 4], [0, 1, 4, 5], [0, 1, 2, 5],
        [0, 1, 2, 3],
    ]  # fmt: skip


@pytest.mark.parametrize("core", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("blocks", [0, 4])
def test_the_core_is_always_kept_and_the_rest_changes(core: float, blocks: int) -> None:
    counts = (16, 3, 1)
    masks = draws(ComposedMasks(core=core, blocks=blocks), 60, (40, 8, 1), counts)
    times = torch.stack(masks).sum(0).split((40, 8, 1))
    for kept, count in zip(times, counts, strict=True):
        size = round(core * count)
        assert (kept[:size] == 60).all()
        if count > 1:
            assert (kept[size:] < 60).all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    core=st.floats(0, 1, exclude_max=True),
    groups=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
)
def test_a_core_of_any_share_keeps_the_counts(core: float, groups: list[tuple[int, int]]) -> None:
    widths = tuple(max(pair) for pair in groups)
    counts = tuple(min(pair) for pair in groups)
    mask = ComposedMasks(core=core).draw(widths, counts, torch.Generator().manual_seed(0))
    assert tuple(int(part.sum()) for part in mask.split(widths)) == counts


def test_blocks_are_the_same_in_all_groups() -> None:
    widths = (16, 32, 8)
    seen = set()
    for mask in draws(ComposedMasks(blocks=4), 60, widths, (8, 16, 4)):
        blocks = {tuple(part.reshape(4, -1).all(1).tolist()) for part in mask.split(widths)}
        assert len(blocks) == 1
        seen |= blocks
    assert len(seen) == 6  # pairs of four blocks


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(2, 9), st.integers(0, 99))
def test_groups_of_any_width_order_their_units_by_the_same_blocks(
    widths: list[int], blocks: int, seed: int
) -> None:
    # The first group has one unit per block, so its order is that of the blocks.
    widths = [blocks, *widths]

    def order(group: int) -> list[int]:
        """Units of a group in their order: those that a mask of one more unit adds."""
        places: list[int] = []
        for count in range(1, widths[group] + 1):
            counts = [1] * len(widths)
            counts[group] = count
            mask = ComposedMasks(blocks=blocks).draw(widths, tuple(counts), generator(seed))
            places += sorted(set(kept_units(mask.split(widths)[group])) - set(places))
        return places

    of_blocks = order(0)
    for group, width in enumerate(widths):
        expected = [
            unit
            for block in of_blocks
            for unit in range(block * width // blocks, (block + 1) * width // blocks)
        ]
        assert order(group) == expected


@pytest.mark.parametrize("spec", ["random", "random-round", "random:redraw=3"])
def test_units_are_kept_equally_often(spec: str) -> None:
    policy, source = make_policy(spec), generator(11)
    width, count, rounds = 24, 7, 3000
    times = torch.zeros(width)
    for number in range(rounds):
        policy.start_round(number)
        times += policy.draw((5, width), (2, count), source)[5:]
    assert_uniform(times, rounds, count / width)


@pytest.mark.parametrize("spec", ["blocks:blocks=6", "blocks:blocks=6,redraw=round"])
def test_blocks_are_kept_equally_often(spec: str) -> None:
    policy, source = make_policy(spec), generator(11)
    times = torch.zeros(6)
    for number in range(3000):
        policy.start_round(number)
        times += policy.draw((12,), (4,), source).reshape(6, 2).all(1)
    assert_uniform(times, 3000, 2 / 6)


@pytest.mark.parametrize("spec", ["core:core=0.5", "core:core=0.5,redraw=round"])
def test_units_beside_the_core_are_kept_equally_often(spec: str) -> None:
    policy, source = make_policy(spec), generator(11)
    times = torch.zeros(12)
    for number in range(3000):
        policy.start_round(number)
        times += policy.draw((12,), (6,), source)
    assert (times[:3] == 3000).all()
    assert_uniform(times[3:], 3000, 3 / 9)


def assert_uniform(times: Tensor, rounds: int, share: float) -> None:
    """A chi-square test of how often each of some units was kept."""
    expected, freedom = rounds * share, len(times) - 1
    # Units are drawn without replacement, which makes the sum smaller by this factor.
    statistic = ((times - expected) ** 2 / expected).sum() / (1 - share) * freedom / len(times)
    assert abs(statistic - freedom) < 3 * (2 * freedom) ** 0.5


@every_policy
def test_training_with_a_policy_lowers_the_loss(spec: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DroppableNetwork(Plain(), inputs_of().float())
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05, momentum=0.9)
    policy = make_policy(spec)
    trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, policy, generator())
    pictures = inputs_of(CLASSES, seed=5).float()
    counts = [kept_counts([rate] * 2, network.groups) for rate in (0.5, 0.25)]
    losses = []
    for number in range(60):
        if number % 10 == 0:
            policy.start_round(number // 10)
        targets = targets_of(16, seed=number)
        inputs = pictures[targets] + 0.3 * inputs_of(16, seed=number).float()
        losses.append(trainer.step(inputs, targets, counts[number % 2]))
    assert sum(losses[-10:]) / 10 < 0.5 * sum(losses[:5]) / 5


@every_policy
def test_training_with_a_policy_equals_that_of_the_zeroed_network(spec: str) -> None:
    # Without batch normalisation and momentum, a zeroed filter gets no update at all.
    network = DroppableNetwork(trained(NETWORKS["biased"]), inputs_of())
    full = copy.deepcopy(network.module)
    optimizer, of_full = (
        torch.optim.SGD(module.parameters(), lr=0.1) for module in (network.module, full)
    )
    policy, same = make_policy(spec), make_policy(spec)
    trainer = DropoutTrainer(network, optimizer, functional.cross_entropy, policy, generator(7))
    masks = generator(7)
    for number, rate in enumerate((0.5, 0.3, 0.7, 0.5)):
        for one in (policy, same):
            if number % 2 == 0:
                one.start_round(number)
        inputs, targets = inputs_of(seed=number), targets_of(seed=number)
        counts = kept_counts([rate] * len(network.groups), network.groups)
        loss = trainer.step(inputs, targets, counts)
        mask = same.draw(network.channels.widths, counts, masks)
        assert loss == pytest.approx(zeroing_step(full, of_full, network, mask, inputs, targets))
        for name, value in full.state_dict().items():
            torch.testing.assert_close(network.module.state_dict()[name], value)


def zeroing_step(
    full: nn.Module,
    optimizer: torch.optim.Optimizer,
    network: DroppableNetwork,
    mask: Tensor,
    inputs: Tensor,
    targets: Tensor,
) -> float:
    handles = zero_dropped(full, network.channels, mask)
    optimizer.zero_grad()
    loss = functional.cross_entropy(full(inputs), targets)
    loss.backward()
    optimizer.step()
    for handle in handles:
        handle.remove()
    return loss.item()


class Wrong(MaskPolicy):
    """Orders units by ``rule(number of draws so far, number to keep, generator)``."""

    def __init__(self, rule: Callable[[int, int, torch.Generator], int]) -> None:
        self.rule, self.drawn = rule, 0

    def draw(self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator) -> Tensor:
        first = self.rule(self.drawn, sum(counts), generator)
        self.drawn += 1
        return torch.cat(
            [
                ((torch.arange(width) - first) % width) < count
                for width, count in zip(widths, counts, strict=True)
            ]
        )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda drawn, kept, source: drawn // 8, "when used before"),
        (lambda drawn, kept, source: int(torch.rand(kept, generator=source)[0] > 2), "counts are"),
        (lambda drawn, kept, source: int(torch.rand(()) > 2), "global generator"),
    ],
)
def test_the_check_finds_what_breaks_the_contract(
    rule: Callable[[int, int, torch.Generator], int], message: str
) -> None:
    check_mask_policy(lambda: Wrong(lambda drawn, kept, source: 0))
    with pytest.raises(InputError, match=f"mask policy 'Wrong': expected .*{message}"):
        check_mask_policy(lambda: Wrong(rule))


def test_the_check_finds_masks_of_other_counts_or_kinds() -> None:
    class KeepsAll(MaskPolicy):
        kind = torch.bool

        def draw(
            self, widths: Sequence[int], counts: KeptCounts, generator: torch.Generator
        ) -> Tensor:
            return torch.ones(sum(widths), dtype=self.kind)

    class KeepsNumbers(KeepsAll):
        kind = torch.long

    with pytest.raises(InputError, match="units kept"):
        check_mask_policy(KeepsAll)
    with pytest.raises(InputError, match="boolean"):
        check_mask_policy(KeepsNumbers)
