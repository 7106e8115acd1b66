"""How updates are averaged: against sums written out by hand, element by element."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as given_by

from distreal_dse.dropout import ChannelMap, DroppableNetwork
from distreal_dse.errors import InputError
from fl.averaging import (
    Averaging,
    average_classes,
    average_over_contributors,
    average_pooled_steps,
    fedavg,
    is_statistic,
    make_averaging,
)
from networks import NETWORKS, inputs_of, trained
from update_examples import is_kept, random_updates, update

KINDS = ("residual", "concatenating", "depthwise", "grouped", "plain")


# --- Plain ----------------------------------------------------------------------------------------


def test_fedavg_weights_values_by_samples() -> None:
    mean = fedavg(
        [
            update(0, 10, {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([0.0])}),
            update(1, 30, {"weight": torch.tensor([[5.0, 6.0]]), "bias": torch.tensor([-4.0])}),
        ]
    )
    # (1·10 + 5·30) / 40 = 4, (2·10 + 6·30) / 40 = 5, (0·10 − 4·30) / 40 = −3
    assert mean["weight"].tolist() == [[4.0, 5.0]]
    assert mean["bias"].tolist() == [-3.0]
    assert mean["weight"].dtype == torch.float32


def test_fedavg_sums_in_double_precision() -> None:
    values = [1e8, 1.0, -1e8, 1.0]  # in single precision the ones would be lost
    mean = fedavg([update(i, 1, {"w": torch.tensor([value])}) for i, value in enumerate(values)])
    assert mean["w"].item() == 0.5


def test_fedavg_of_one_update_is_that_update() -> None:
    state = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(3)}
    mean = fedavg([update(0, 7, state)])
    assert torch.equal(mean["w"], state["w"]) and torch.equal(mean["n"], state["n"])
    assert mean["w"].data_ptr() != state["w"].data_ptr()


def test_fedavg_takes_the_largest_of_counters() -> None:
    updates = [
        update(i, 1, {"num_batches_tracked": torch.tensor(n)}) for i, n in enumerate((3, 9, 4))
    ]
    assert fedavg(updates)["num_batches_tracked"].item() == 9


def test_fedavg_refuses_states_that_differ() -> None:
    first = update(4, 1, {"a": torch.zeros(2), "b": torch.zeros(1)})
    with pytest.raises(InputError, match=r"device 7: tensor a: .*\(2,\).*\(3,\)"):
        fedavg([first, update(7, 1, {"a": torch.zeros(3), "b": torch.zeros(1)})])
    with pytest.raises(InputError, match="device 7: .* found b, c in one"):
        fedavg([first, update(7, 1, {"a": torch.zeros(2), "c": torch.zeros(1)})])
    with pytest.raises(InputError, match="averaging 0 updates"):
        fedavg([])


# --- By what was trained --------------------------------------------------------------------------


def network_of(kind: str) -> DroppableNetwork:
    return DroppableNetwork(trained(NETWORKS[kind]), inputs_of())


@pytest.mark.parametrize("kind", KINDS)
def test_elements_are_averaged_over_those_who_trained_them(kind: str) -> None:
    network = network_of(kind)
    state = network.module.state_dict()
    updates = random_updates(network, [(10, 1, 0.3), (30, 2, 0.4), (20, 3, 0.2)])
    merged = average_over_contributors(state, updates, network.channels)
    assert list(merged) == list(state)
    untouched = 0
    for name, old in state.items():
        if not old.is_floating_point():
            continue
        for index in np.ndindex(tuple(old.shape)):
            weights = values = 0.0
            for one in updates:
                if any(is_kept(network.channels, name, index, mask) for mask in one.masks):
                    weights += one.samples
                    values += one.samples * one.state[name][index].item()
            untouched += not weights
            expected = values / weights if weights else old[index].item()
            assert merged[name][index].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert untouched > 0  # so that it is tested


@pytest.mark.parametrize("cap", [1.5, 1e9])
@pytest.mark.parametrize("kind", KINDS)
def test_pooled_steps_move_elements_by_the_mean_step(kind: str, cap: float) -> None:
    network = network_of(kind)
    state = network.module.state_dict()
    updates = random_updates(network, [(10, 1, 0.3), (30, 2, 0.4), (20, 4, 0.8)])
    merged = average_pooled_steps(state, updates, network.channels, cap)
    samples = 10 + 30 + 20
    taken = (10 * 1 + 30 * 2 + 20 * 4) / samples  # mean number of steps
    capped = 0
    for name, old in state.items():
        if not old.is_floating_point() or is_statistic(name):
            continue
        for index in np.ndindex(tuple(old.shape)):
            trained_by = changes = 0.0
            for one in updates:
                active = sum(is_kept(network.channels, name, index, mask) for mask in one.masks)
                trained_by += one.samples * active
                changes += one.samples * (one.state[name][index] - old[index]).item()
            expected = old[index].item()
            if trained_by:
                step, limit = taken * changes / trained_by, cap * changes / samples
                capped += abs(step) > abs(limit)
                expected += min(step, limit, key=abs)
            assert merged[name][index].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert (capped > 0) == (cap == 1.5)


def test_running_statistics_are_never_moved_beyond_what_was_measured() -> None:
    network = network_of("plain")
    state = network.module.state_dict()
    updates = random_updates(network, [(10, 2, 0.3), (30, 3, 0.5)])
    pooled = average_pooled_steps(state, updates, network.channels, cap=4)
    contributors = average_over_contributors(state, updates, network.channels)
    names = [name for name in state if is_statistic(name)]
    assert {name.rpartition(".")[2] for name in names} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert all(torch.equal(pooled[name], contributors[name]) for name in names)
    assert pooled["1.num_batches_tracked"].item() == 3


def test_tied_filters_are_averaged_alike_on_both_sides_of_a_shortcut() -> None:
    network = network_of("residual")
    channels, state = network.channels, network.module.state_dict()
    masks = [torch.zeros(1, channels.fixed, dtype=torch.bool) for _ in range(2)]
    stem = channels.axes["stem.weight"][0]
    assert stem is not None and np.array_equal(stem, channels.axes["outer.weight"][0])
    masks[0][0, stem[:3]] = True
    masks[1][0, stem[2:6]] = True
    updates = [
        update(i, 1, {name: torch.full_like(t, i + 1.0) for name, t in state.items()}, masks[i])
        for i in range(2)
    ]
    merged = average_over_contributors(state, updates, channels)
    # Filters 0 and 1 are the first device's, 2 is both's, 3 to 5 are the second's.
    means = torch.tensor([1, 1, 1.5, 2, 2, 2], dtype=torch.double)
    for name in ("stem_norm.weight", "outer_norm.bias", "outer_norm.running_var"):
        assert torch.equal(merged[name][:6], means)
        assert torch.equal(merged[name][6:], state[name][6:])
    assert torch.equal(merged["stem.weight"][:6, 1, 2, 2], means)
    assert torch.equal(merged["outer.weight"], state["outer.weight"])  # no inner filter was kept


AVERAGINGS: dict[str, Averaging] = {
    "plain": make_averaging("plain"),
    "contributors": average_over_contributors,
    "pooled": partial(average_pooled_steps, cap=1e9),
    "capped": make_averaging("pooled"),
}
UNTIED = network_of("plain")
DEVICES = given_by.lists(
    given_by.tuples(
        given_by.integers(1, 50), given_by.integers(1, 4), given_by.sampled_from([0.2, 0.5, 1.0])
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", AVERAGINGS)
@given(shapes=DEVICES, seed=given_by.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_where_nobody_drops_anything_all_are_fedavg_bit_by_bit(
    name: str, shapes: list[tuple[int, int, float]], seed: int
) -> None:
    updates = random_updates(UNTIED, [(n, steps, 1.0) for n, steps, _ in shapes], seed)
    merged = AVERAGINGS[name](UNTIED.module.state_dict(), updates, UNTIED.channels)
    expected = fedavg(updates)
    assert all(torch.equal(merged[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", AVERAGINGS)
@given(shapes=DEVICES, seed=given_by.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_averages_keep_to_what_is_expected_of_all(
    name: str, shapes: list[tuple[int, int, float]], seed: int
) -> None:
    state = UNTIED.module.state_dict()
    before = {key: tensor.clone() for key, tensor in state.items()}
    updates = random_updates(UNTIED, shapes, seed)
    given_values = [{key: t.clone() for key, t in one.state.items()} for one in updates]
    merged = AVERAGINGS[name](state, updates, UNTIED.channels)
    other = AVERAGINGS[name](state, updates[::-1], UNTIED.channels)
    steps = torch.cat([one.masks for one in updates])
    for key, old in before.items():
        assert merged[key].shape == old.shape and merged[key].dtype == old.dtype
        torch.testing.assert_close(merged[key], other[key], rtol=1e-10, atol=1e-12)
        assert torch.equal(state[key], old)
        if old.is_floating_point():
            for index in [(0,) * old.dim(), tuple(size - 1 for size in old.shape)]:
                if not any(is_kept(UNTIED.channels, key, index, mask) for mask in steps):
                    assert merged[key][index] == pytest.approx(old[index].item(), rel=1e-14)
    for one, values in zip(updates, given_values, strict=True):
        assert all(torch.equal(one.state[key], values[key]) for key in values)


def test_single_precision_stays_single_precision() -> None:
    network = DroppableNetwork(trained(NETWORKS["plain"]).float(), inputs_of().float())
    state = network.module.state_dict()
    updates = random_updates(network, [(3, 2, 0.5), (4, 1, 0.5)])
    for averaging in AVERAGINGS.values():
        merged = averaging(state, updates, network.channels)
        assert {key: tensor.dtype for key, tensor in merged.items()} == {
            key: tensor.dtype for key, tensor in state.items()
        }


def test_a_device_without_a_mini_batch_counts_for_nothing_where_masks_are_heeded() -> None:
    network = network_of("plain")
    state = network.module.state_dict()
    one = random_updates(network, [(10, 2, 1.0)])[0]
    idle = update(1, 90, state, one.masks[:0])
    merged = average_over_contributors(state, [one, idle], network.channels)
    assert all(torch.equal(merged[name], one.state[name]) for name in state)


def test_averagings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="one of plain, contributors, pooled, found 'mean'"):
        make_averaging("mean")
    with pytest.raises(InputError, match=r"cap .* 1 or more, found 0.5"):
        average_pooled_steps({}, [update(0, 1, {})], UNTIED.channels, cap=0.5)
    with pytest.raises(InputError, match="averaging 0 updates"):
        average_over_contributors({}, [], UNTIED.channels)


# --- By class -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "contributors", "pooled"])
def test_outputs_are_averaged_over_the_devices_that_hold_their_class(name: str) -> None:
    """Two devices with a class each, and a third class that nobody has."""
    channels = ChannelMap((), {}, (), {})
    state = {"other": torch.zeros(1), "w": torch.zeros(3, 2), "b": torch.zeros(3)}
    first = {"other": torch.ones(1), "w": torch.eye(3)[:, :1].repeat(1, 2), "b": torch.eye(3)[0]}
    second = {"other": torch.ones(1), "w": torch.eye(3)[:, 1:2].repeat(1, 2), "b": torch.eye(3)[1]}
    second["w"][2] = 9.0  # such as by weight decay
    updates = [update(0, 10, first), update(1, 10, second)]
    holds = torch.tensor([[True, False, False], [False, True, False]])
    plain = make_averaging(name)(state, updates, channels)
    assert plain["b"].tolist() == [0.5, 0.5, 0.0]
    merged = average_classes(make_averaging(name), state, updates, channels, ["w", "b"], holds)
    assert list(merged) == list(state)
    assert merged["b"].tolist() == [1.0, 1.0, 0.0]
    assert merged["w"].tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    assert merged["other"].item() == 1.0
    assert not state["w"].any() and second["w"][2, 0] == 9.0  # arguments stay as they are


@pytest.mark.parametrize("name", ["plain", "contributors", "pooled"])
def test_where_all_hold_all_classes_nothing_is_different(name: str) -> None:
    network = network_of("plain")
    state = network.module.state_dict()
    updates = random_updates(network, [(10, 1, 0.3), (30, 2, 0.4), (20, 3, 0.2)])
    average, rows = make_averaging(name), ["8.weight", "8.bias"]
    holds = torch.ones(3, len(state["8.bias"]), dtype=torch.bool)
    merged = average_classes(average, state, updates, network.channels, rows, holds)
    expected = average(state, updates, network.channels)
    assert all(torch.equal(merged[key], expected[key]) for key in state)
    # A device whose class it is alone has its row, as far as it trained it.
    holds[1:, 2] = False
    alone = average_classes(average, state, updates, network.channels, rows, holds)
    own = average(state, updates[:1], network.channels)
    assert torch.equal(alone["8.weight"][2], own["8.weight"][2])
    assert torch.equal(alone["8.weight"][:2], expected["8.weight"][:2])


# --- Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "contributors", "pooled"])
def test_averages_are_the_same_whatever_the_default_type(name: str) -> None:
    network = network_of("residual")
    state = network.module.state_dict()
    updates = random_updates(network, [(10, 1, 0.3), (30, 2, 0.4), (20, 3, 0.2)])
    average = make_averaging(name)
    expected = average(state, updates, network.channels)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = average(state, updates, network.channels)
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
