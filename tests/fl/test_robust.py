"""Defences: against medians and distances written out element by element, and in whole runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import median_high

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as given_by
from scipy.stats import trim_mean
from torch import Tensor

from benchmarks.attacks import Attacked, World
from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.dropout import ChannelMap, DroppableNetwork
from distreal_dse.errors import InputError
from distreal_dse.study.preparation import prepare
from fl.averaging import POOLED_CAP, average_classes, is_statistic, make_averaging
from fl.clients import InProcess
from fl.engine import FederatedRun
from fl.results import State, Update
from fl.robust import Defence, Krum, Median, defended, distances, make_defence
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from networks import NETWORKS, inputs_of, trained
from pairs import all_pairs
from update_examples import is_kept, random_updates, update

KINDS = ("residual", "concatenating", "depthwise", "plain")
TEXTS = ("median", "trimmed-mean:share=0.3", "krum", "multi-krum", "clip")
BY_ELEMENT = ("median", "trimmed-mean:share=0.3")
# Samples, local steps and the share of units kept: of many elements, few devices or none train any.
SHAPES = [(10, 1, 0.2), (30, 2, 0.4), (20, 3, 0.2), (25, 1, 0.9), (5, 2, 0.3), (40, 1, 0.3)]

WHOLE = ChannelMap((), {}, (), {})  # nothing can be dropped


def network_of(kind: str) -> DroppableNetwork:
    return DroppableNetwork(trained(NETWORKS[kind]), inputs_of())


def possible_updates(
    network: DroppableNetwork, shapes: Sequence[tuple[int, int, float]]
) -> list[Update]:
    """Random updates whose variances are positive, as those of `random_updates` may not be."""
    state = network.module.state_dict()
    return [
        replace(one, state={
            name: torch.where(value == state[name], value, value.abs() + 0.1)
            if name.endswith("running_var") else value
            for name, value in one.state.items()
        })
        for one in random_updates(network, shapes)
    ]  # fmt: skip


def defence_of(text: str) -> Defence:
    made = make_defence(text)
    assert made is not None
    return made


def merged_by(
    text: str, averaging: str, state: State, updates: Sequence[Update], channels: ChannelMap
) -> State:
    """What the engine does: screen, then average behind the defence."""
    defence = defence_of(text)
    screened = [one for one in defence.screen(state, updates, channels) if one is not None]
    return defended(defence, make_averaging(averaging))(state, screened, channels)


def steps_at(channels: ChannelMap, name: str, index: tuple[int, ...], one: Update) -> int:
    return sum(is_kept(channels, name, index, mask) for mask in one.masks)


def centre_by_hand(text: str, values: list[float]) -> float:
    """NumPy's median, or SciPy's trimmed mean without ⌈0.3 n⌉ values at either end."""
    if text == "median":
        return float(np.median(values))
    n = len(values)
    cut = min(math.ceil(0.3 * n), (n - 1) // 2)
    return float(trim_mean(values, (cut + 0.5) / n))


# --- By element -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("averaging", "kind", "text"),
    all_pairs(["plain", "contributors", "pooled"], KINDS, BY_ELEMENT),
)
def test_the_centre_of_those_who_trained_an_element_takes_the_place_of_their_values(
    kind: str, text: str, averaging: str
) -> None:
    network = network_of(kind)
    state, channels = network.module.state_dict(), network.channels
    updates = possible_updates(network, SHAPES)
    found = merged_by(text, averaging, state, updates, channels)
    assert list(found) == list(state)
    samples = sum(one.samples for one in updates)
    taken = sum(one.samples * len(one.masks) for one in updates)
    counts = set()
    for name, old in state.items():
        assert found[name].dtype == old.dtype and found[name].shape == old.shape
        if not old.is_floating_point():
            continue
        for index in np.ndindex(tuple(old.shape)):
            before = old[index].item()
            steps = [steps_at(channels, name, index, one) for one in updates]
            values = [u.state[name][index].item() for u, n in zip(updates, steps, strict=True) if n]
            counts.add(len(values))
            expected = before
            if values:
                change = centre_by_hand(text, values) - before
                mine = sum(one.samples for one, n in zip(updates, steps, strict=True) if n)
                active = sum(one.samples * n for one, n in zip(updates, steps, strict=True))
                share = 1.0
                if averaging == "plain" or (averaging == "pooled" and not is_statistic(name)):
                    share = mine / samples
                if averaging == "pooled" and not is_statistic(name):
                    share *= min(POOLED_CAP, taken / active)
                expected += share * change
            assert found[name][index].item() == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert {0, 1, 2, 3} <= counts  # so that it is tested


@settings(max_examples=60, deadline=None)
@given(
    honest=given_by.lists(given_by.floats(-1e3, 1e3, width=32), min_size=5, max_size=12),
    hostile=given_by.lists(given_by.floats(-(2.0**127), 2.0**127, width=32), max_size=12),
)
def test_few_hostile_values_never_lead_out_of_the_honest_ones(
    honest: list[float], hostile: list[float]
) -> None:
    n = len(honest)
    for text, most in (("median", n - 1), ("trimmed-mean:share=0.3", 3 * n // 7)):
        values = [*honest, *hostile[:most]]
        updates = [update(i, 1 + i, {"w": torch.tensor([v])}) for i, v in enumerate(values)]
        found = merged_by(text, "plain", {"w": torch.zeros(1)}, updates, WHOLE)
        low, high = min(honest), max(honest)
        span = 1e-6 * max(abs(low), abs(high)) + 1e-30
        assert low - span <= found["w"].item() <= high + span


@pytest.mark.parametrize("text", TEXTS)
def test_a_device_does_not_speak_for_what_it_has_not_trained(text: str) -> None:
    network = network_of("residual")
    state, channels = network.module.state_dict(), network.channels
    updates = possible_updates(network, SHAPES)
    lies = {}
    for name, value in updates[2].state.items():
        lies[name] = value.clone()
        if value.is_floating_point():
            for index in np.ndindex(tuple(value.shape)):
                if not steps_at(channels, name, index, updates[2]):
                    lies[name][index] = 1e6
    assert any(not torch.equal(lies[name], updates[2].state[name]) for name in lies)
    lying = [*updates[:2], replace(updates[2], state=lies), *updates[3:]]
    expected = merged_by(text, "plain", state, updates, channels)
    found = merged_by(text, "plain", state, lying, channels)
    assert all(torch.equal(found[name], expected[name]) for name in state)


@pytest.mark.parametrize("text", TEXTS)
def test_statistics_and_counters_out_of_all_proportion_are_not_merged(text: str) -> None:
    state = {
        "w": torch.zeros(3),
        "n.running_mean": torch.zeros(2),
        "n.running_var": torch.ones(2),
        "n.num_batches_tracked": torch.tensor(4),
    }
    honest = [
        update(i, 10, {
            "w": torch.full((3,), 0.1 + i / 100),
            "n.running_mean": torch.full((2,), 0.5 + i / 10),
            "n.running_var": torch.full((2,), 2.0 + i / 10),
            "n.num_batches_tracked": torch.tensor(5 + i % 3),
        })
        for i in range(7)
    ]  # fmt: skip
    absurd: Mapping[str, Tensor] = {
        **honest[3].state,
        "n.running_mean": torch.full((2,), 1e30),
        "n.running_var": honest[3].state["n.running_var"] * 1e12,
        "n.num_batches_tracked": torch.tensor(2**62),
    }
    updates = [*honest[:3], replace(honest[3], state=absurd), *honest[4:]]
    for averaging in ("plain", "contributors", "pooled"):
        assert make_averaging(averaging)(state, updates, WHOLE)["n.running_mean"].max() > 1e29
        found = merged_by(text, averaging, state, updates, WHOLE)
        assert found["n.running_mean"].min() >= 0.5 and found["n.running_mean"].max() <= 1.1
        assert found["n.running_var"].min() >= 2.0 and found["n.running_var"].max() <= 2.6
        assert found["n.num_batches_tracked"].item() == 6  # of 5, 6, 7, huge, 6, 7, 5
        assert found["n.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("factor", [1e12, 1e-12])
@pytest.mark.parametrize("text", TEXTS)
def test_absurd_statistics_are_known_by_what_many_measured(text: str, factor: float) -> None:
    """Two of the three devices that measured the second half are hostile: no median helps there."""
    channels = ChannelMap((), {"n.running_var": (np.arange(20),)}, (), {})
    state = {"w": torch.zeros(3), "n.running_var": torch.ones(20)}
    updates = []
    for device in range(9):
        kept = torch.ones(1, 20, dtype=torch.bool)
        kept[:, 10:] = device < 3
        measured = torch.where(kept[0], 2.0 + device / 10, 1.0)
        if device in (1, 2):
            measured = torch.where(kept[0], measured * factor, 1.0)
        values = {"w": torch.full((3,), 0.1 + device / 100), "n.running_var": measured}
        updates.append(update(device, 10, values, kept))
    found = merged_by(text, "contributors", state, updates, channels)["n.running_var"]
    # Of 2.0, 2.3 … 2.8, and of 2.0; `krum` may merge a device that measured the first half alone.
    assert found[:10].min() >= 2.0 and found[:10].max() <= 2.8
    assert set(found[10:].tolist()) <= ({2.0, 1.0} if text == "krum" else {2.0})


@pytest.mark.parametrize("text", TEXTS)
def test_where_nobody_trained_anything_all_stays(text: str) -> None:
    network = network_of("plain")
    state = network.module.state_dict()
    masks = torch.zeros(0, sum(network.channels.widths), dtype=torch.bool)
    idle = [update(i, 10, {n: t + 1 for n, t in state.items()}, masks) for i in range(4)]
    found = merged_by(text, "plain", state, idle, network.channels)
    assert all(torch.equal(found[name], old) for name, old in state.items())
    # One that trained something is neither left out nor lost among those that did not.
    (busy,) = possible_updates(network, [(10, 2, 0.5)])
    found = merged_by(text, "contributors", state, [*idle, replace(busy, device=4)],
                      network.channels)  # fmt: skip
    alone = make_averaging("contributors")(state, [busy], network.channels)
    for name, old in state.items():
        torch.testing.assert_close(found[name], alone[name] if old.is_floating_point() else
                                   busy.state[name])  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_where_all_agree_a_defence_changes_nothing(text: str) -> None:
    network = network_of("residual")
    state = network.module.state_dict()
    (one,) = possible_updates(network, [(10, 2, 0.5)])
    alike = [replace(one, device=i, samples=10 + i) for i in range(6)]
    for averaging in ("plain", "contributors", "pooled"):
        expected = make_averaging(averaging)(state, alike, network.channels)
        found = merged_by(text, averaging, state, alike, network.channels)
        for name in state:
            torch.testing.assert_close(found[name], expected[name])


def test_rows_of_classes_have_the_median_of_those_that_hold_them() -> None:
    state = {"w": torch.zeros(2, 1), "other": torch.zeros(1)}
    values = [(1.0, 9.0), (2.0, 9.0), (6.0, 1.0), (8.0, 2.0), (7.0, 4.0), (3.0, 8.0)]
    updates = [
        update(i, 1, {"w": torch.tensor(pair)[:, None], "other": torch.tensor([pair[0]])})
        for i, pair in enumerate(values)
    ]
    holds = torch.tensor([[True, False]] * 2 + [[False, True]] * 3 + [[True, True]])
    average = defended(Median(), make_averaging("contributors"))
    found = average_classes(average, state, updates, WHOLE, ["w"], holds)
    # Of 1, 2, 3; of 1, 2, 4, 8; of 1, 2, 6, 8, 7, 3.
    assert found["w"].flatten().tolist() == [2.0, 3.0]
    assert found["other"].item() == 4.5


# --- Krum -----------------------------------------------------------------------------------------


def distance_by_hand(channels: ChannelMap, state: State, one: Update, other: Update) -> float:
    """Mean squared difference over what both trained, in lengths of a step; by element."""
    places = [
        (name, index)
        for name, old in state.items()
        if old.is_floating_point() and not is_statistic(name)
        for index in np.ndindex(tuple(old.shape))
    ]

    def change(of: Update) -> dict[tuple[str, tuple[int, ...]], float]:
        own = [(name, index) for name, index in places if steps_at(channels, name, index, of)]
        scale = math.sqrt(len(own)) / len(of.masks)
        return {(n, i): scale * (of.state[n][i] - state[n][i]).item() for n, i in own}

    mine, others = change(one), change(other)
    squares = [(mine[place] - others[place]) ** 2 for place in mine.keys() & others.keys()]
    return float(np.mean(squares)) if squares else math.inf


@pytest.mark.parametrize("kind", KINDS)
def test_krum_chooses_as_by_brute_force(kind: str) -> None:
    network = network_of(kind)
    state, channels = network.module.state_dict(), network.channels
    updates = possible_updates(network, [*SHAPES, (15, 2, 0.5)])
    n, hostile = len(updates), 2  # ⌈0.2 · 7⌉, and 7 ≥ 2 · 2 + 3
    apart = [[0.0] * n for _ in range(n)]
    for i, j in combinations(range(n), 2):
        apart[i][j] = distance_by_hand(channels, state, updates[i], updates[j])
        apart[j][i] = apart[i][j]
    found = distances(state, updates, channels)
    for i in range(n):
        for j in range(n):
            if i != j:
                assert found[i, j].item() == pytest.approx(apart[i][j], rel=1e-9)
    scores = [
        sum(sorted(apart[i][j] for j in range(n) if j != i)[: n - hostile - 2]) for i in range(n)
    ]
    order = sorted(range(n), key=lambda i: scores[i])
    for text, many in (("krum:share=0.2", 1), ("multi-krum:share=0.2", n - hostile)):
        screened = defence_of(text).screen(state, updates, channels)
        assert [i for i, one in enumerate(screened) if one] == sorted(order[:many])


def test_whoever_trained_a_small_part_is_not_near_for_that() -> None:
    """A sum over few weights is small, whatever they are: the hostile one would be chosen by it."""
    axes = {"w": (np.arange(100),)}
    channels = ChannelMap((), axes, (), {})
    state = {"w": torch.zeros(100)}
    draws = torch.Generator().manual_seed(0)
    updates = []
    for device in range(7):
        kept = torch.ones(1, 100, dtype=torch.bool)
        change = 1 + 0.5 * torch.randn(100, generator=draws)
        if device == 6:
            kept[:, 5:] = False
            change = torch.where(kept[0], -0.5, 0.0)
        updates.append(update(device, 10, {"w": change}, kept))
    screened = defence_of("multi-krum:share=0.1").screen(state, updates, channels)
    assert [one is None for one in screened] == [False] * 6 + [True]


def test_devices_without_anything_in_common_are_far_apart() -> None:
    channels = ChannelMap((), {"w": (np.arange(2),)}, (), {})
    masks = torch.tensor([[[True, False]], [[False, True]]])
    updates = [update(i, 1, {"w": torch.ones(2)}, mask) for i, mask in enumerate(masks)]
    assert distances({"w": torch.zeros(2)}, updates, channels)[0, 1].item() == math.inf


# --- Clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0.5, 1.0, 1.5])
def test_changes_are_shortened_to_the_median_per_mini_batch(times: float) -> None:
    network = network_of("residual")
    state, channels = network.module.state_dict(), network.channels
    updates = possible_updates(network, SHAPES)
    names = [n for n, old in state.items() if old.is_floating_point() and not is_statistic(n)]

    def norm(one: Update) -> float:
        return math.sqrt(
            sum(
                (one.state[name][index] - state[name][index]).item() ** 2
                for name in names
                for index in np.ndindex(tuple(state[name].shape))
            )
        )

    bound = times * median_high(norm(one) / len(one.masks) for one in updates)
    screened = defence_of(f"clip:times={times}").screen(state, updates, channels)
    shortened = 0
    for before, after in zip(updates, screened, strict=True):
        assert after is not None
        ratio = min(1.0, bound * len(before.masks) / norm(before))
        shortened += ratio < 1
        for name in names:
            expected = state[name] + ratio * (before.state[name] - state[name])
            torch.testing.assert_close(after.state[name], expected, rtol=1e-9, atol=1e-12)
    assert shortened > (times < 1)


# --- In whole runs --------------------------------------------------------------------------------

SETTINGS = RunSettings(rounds=3, devices=7, cohort=7)


def begin(study: Study, data: Data, strategy: str, text: str, **others: object) -> FederatedRun:
    network = prepare(study, 0)[0]
    macs = MacCost(network.channels)
    made = make_strategy(strategy, StrategyContext(network, None, macs, macs.full / 4, study))
    settings = replace(SETTINGS, robust=make_defence(text), **others)  # type: ignore[arg-type]
    return FederatedRun(study, data, network, made, None, settings)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("strategy", ["fedavg", "heterofl", "nested", "distreal-uniform"])
def test_a_run_with_a_defence_resumes_bit_identically(
    study: Study, data: Data, strategy: str, text: str
) -> None:
    through = begin(study, data, strategy, text)
    rounds = through.rounds()
    next(rounds), next(rounds)
    checkpoint = copy.deepcopy(through.checkpoint())
    expected = list(rounds)
    resumed = begin(study, data, strategy, text)
    resumed.resume(checkpoint)
    assert list(resumed.rounds()) == expected
    one, other = through.network.copy_state(), resumed.network.copy_state()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.isfinite(tensor).all() for tensor in one.values())


@pytest.mark.parametrize(
    "strategy", ["fedavg", "heterofl", "fedrolex", "distreal-uniform:averaging=pooled", "nested"]
)
@pytest.mark.parametrize("masked_loss", [False, True])
def test_with_multi_krum_a_reversed_change_is_rejected(
    study: Study, data: Data, strategy: str, masked_loss: bool
) -> None:
    run = begin(study, data, strategy, "multi-krum:share=0.1", masked_loss=masked_loss, rounds=1)
    _, result = run.rounds(Attacked(run.training, frozenset({3}), "reversed"))
    assert [one.device for one in result.devices if one.outcome == "rejected"] == [3]


def test_left_out_updates_count_as_rejected_and_their_work_as_wasted(
    study: Study, data: Data
) -> None:
    run = begin(study, data, "fedavg", "krum", rounds=1)
    _, result = run.rounds(InProcess(run.training))
    assert result.rejected == 6
    wasted = sum(one.training_macs for one in result.devices if one.outcome == "rejected")
    assert result.wasted_macs == pytest.approx(wasted)


@pytest.mark.parametrize(("attack", "averaged"), [("reversed", False), ("variances", True)])
def test_an_attack_ruins_a_run_and_a_defence_saves_it(attack: str, averaged: bool) -> None:
    world = World(devices=10, hostile=2, rounds=6, rate=0.1)

    def accuracy(attack: str, defence: str) -> float:
        return world.accuracy(None, "fedavg", attack, defence, averaged, 0)

    honest = accuracy("nobody", "none")
    assert accuracy(attack, "none") < honest - 0.4
    assert accuracy(attack, "multi-krum") > honest - 0.1


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("medain", "defence 'medain': expected one of none, .*; did you mean median"),
        ("krumm", "did you mean krum"),
        ("median:share=0.1", "expected no settings of 'median', found 'share'"),
        ("none:share=0.1", "expected no settings of 'none', found 'share'"),
        ("krum:sare=0.1", "expected the settings share of 'krum', .* did you mean share"),
        ("trimmed-mean:share=0.5", "share of a defence: expected above 0, below 0.5, found 0.5"),
        ("trimmed-mean:share=0", "share of a defence: .* found 0"),
        ("multi-krum:share=-1", "share of a defence: .* found -1"),
        ("krum:share=nan", "share of a defence: .* found nan"),
        ("krum:share=few", "defence 'krum:share=few': share: expected a number, found 'few'"),
        ("clip:times=0", "times of a defence: expected above 0, finite, found 0"),
        ("clip:times=inf", "times of a defence: .* found inf"),
        ("clip:times", "defence 'clip:times': expected NAME:SETTING=VALUE"),
    ],
)
def test_defences_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make_defence(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "cohort", "message"),
    [
        ("median", 2, "a cohort of 3 devices or more, .* found 2; take a larger --cohort"),
        ("clip", 1, "a cohort of 3 devices or more"),
        ("krum", 4, "a cohort of 5 devices or more for a share of 0.2, found 4"),
        ("multi-krum:share=0.3", 8, "a cohort of 9 devices or more for a share of 0.3, found 8"),
    ],
)
def test_cohorts_that_are_too_small_are_refused(text: str, cohort: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, devices=20, cohort=cohort, robust=make_defence(text))
    needed = {"median": 3, "clip": 3, "krum": 5}.get(text, 9)
    replace(SETTINGS, devices=20, cohort=needed, robust=make_defence(text))


def test_none_is_no_defence() -> None:
    assert make_defence("none") is None
    plain = make_averaging("plain")
    assert defended(None, plain) is plain
    assert RunSettings().robust is None and RunSettings().as_json()["robust"] is None
    known = replace(SETTINGS, robust=Krum(0.1)).as_json()["robust"]
    assert known == {"kind": "Krum", "share": 0.1}
