"""Who takes part, and whose updates are merged."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import inf, nan, sqrt

import pytest
import torch
from torch import Tensor

from fl.results import State, Update
from fl.server import LARGEST_CHANGE, fault_of, faults_of, select_cohort
from fl.world.devices import make_devices
from update_examples import update


def test_cohorts_are_drawn_anew_each_round_without_replacement() -> None:
    devices = make_devices(30)
    cohorts = [[d.index for d in select_cohort(devices, 10, r, seed=0)] for r in range(600)]
    assert all(len(set(c)) == 10 and c == sorted(c) for c in cohorts)
    assert cohorts[0] == [d.index for d in select_cohort(devices, 10, 0, seed=0)]
    assert cohorts[0] != [d.index for d in select_cohort(devices, 10, 0, seed=1)]
    times = Counter(index for cohort in cohorts for index in cohort)
    assert all(abs(times[i] - 200) < 5 * sqrt(600 / 3 * 2 / 3) for i in range(30))


# --- Which updates may be merged ------------------------------------------------------------------

STATE = {
    "w": torch.zeros(2, 3),
    "norm.running_mean": torch.zeros(2),
    "norm.running_var": torch.ones(2),
    "norm.num_batches_tracked": torch.tensor(4),
}
UNITS = 5


def honest(device: int = 0, change: float = 0.1) -> Update:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["w"][0, 0] += change
    return update(device, 10, state, torch.ones(3, UNITS, dtype=torch.bool))


def with_tensor(name: str, tensor: object) -> Update:
    one = honest()
    return replace(one, state={**one.state, name: tensor})  # type: ignore[dict-item]


def test_an_honest_update_has_no_fault() -> None:
    # Running statistics move far in the first rounds.
    moved = with_tensor("norm.running_var", torch.full((2,), 1e3))
    assert faults_of([honest(0), honest(1), moved], STATE, UNITS, held=[10] * 3, due=[3] * 3) == [
        None,
        None,
        None,
    ]


HOSTILE: dict[str, tuple[Update, str]] = {
    "nan loss": (replace(honest(), loss=nan), "loss: expected a finite number, found nan"),
    "infinite loss": (replace(honest(), loss=inf), "loss"),
    "text as loss": (replace(honest(), loss="1"), "loss"),  # type: ignore[arg-type]
    "nan seconds": (replace(honest(), seconds=nan), "seconds: expected 0 to 1e.24, found nan"),
    "infinite seconds": (replace(honest(), seconds=inf), "seconds"),
    "negative seconds": (replace(honest(), seconds=-1e9), "seconds"),
    "endless seconds": (replace(honest(), seconds=1e300), "seconds"),
    "text as seconds": (replace(honest(), seconds="1"), "can't be read"),  # type: ignore[arg-type]
    "nan MACs": (replace(honest(), training_macs=nan), "training MACs: .* found nan"),
    "negative MACs": (replace(honest(), training_macs=-1.0), "training MACs"),
    "MACs beyond sums": (replace(honest(), training_macs=1.7e308), "training MACs"),
    "a nan cost": (replace(honest(), cost_shares=(1.0, nan, 1.0)), "cost shares: .* found nan"),
    "a negative cost": (replace(honest(), cost_shares=(1.0, -1.0, 1.0)), "cost shares"),
    "more over the budget": (replace(honest(), over_budget=4), "budget: expected 0 to 3, found 4"),
    "fewer over the budget": (replace(honest(), over_budget=-1), "budget: .* found -1"),
    "no samples": (replace(honest(), samples=0), "samples: expected .* found 0"),
    "negative samples": (replace(honest(), samples=-5), "samples: .* found -5"),
    "half a sample": (replace(honest(), samples=0.5), "samples"),  # type: ignore[arg-type]
    "nan value": (with_tensor("w", torch.full((2, 3), nan)), "tensor w: expected finite"),
    "infinite value": (with_tensor("w", torch.full((2, 3), -inf)), "tensor w: expected finite"),
    "other shape": (with_tensor("w", torch.zeros(3, 2)), r"tensor w: .*\(2, 3\).*\(3, 2\)"),
    "would broadcast": (with_tensor("w", torch.zeros(1, 3)), "tensor w"),
    "other type": (with_tensor("w", torch.zeros(2, 3).double()), "float32 .* found torch.float64"),
    "complex": (with_tensor("w", torch.zeros(2, 3, dtype=torch.complex64)), "tensor w"),
    "integer as float": (with_tensor("norm.num_batches_tracked", torch.tensor(4.0)), "tracked"),
    "sparse": (with_tensor("w", torch.zeros(2, 3).to_sparse()), "tensor w: expected a dense"),
    "no tensor": (with_tensor("w", [[0.0] * 3] * 2), "tensor w: expected a dense .* found list"),
    "on no device": (with_tensor("w", torch.zeros(2, 3, device="meta")), "can't be read"),
    "negative variance": (with_tensor("norm.running_var", -torch.ones(2)), "expected variances"),
    "one more tensor": (with_tensor("x", torch.zeros(1)), "tensors: .* found x"),
    "names that are none": (with_tensor(7, torch.zeros(1)), "found 7"),  # type: ignore[arg-type]
    "no state": (replace(honest(), state=None), "can't be read"),  # type: ignore[arg-type]
    "a tensor less": (
        replace(honest(), state={name: STATE[name] for name in list(STATE)[1:]}), "found w in one",
    ),
    "no masks": (replace(honest(), masks=None), "masks"),  # type: ignore[arg-type]
    "masks of numbers": (replace(honest(), masks=torch.ones(3, UNITS)), "masks"),
    "masks of another network": (
        replace(honest(), masks=torch.ones(3, 9, dtype=torch.bool)), r"masks: .*\(3, 5\).*\(3, 9\)",
    ),
    "more masks than mini-batches": (
        replace(honest(), masks=torch.ones(8, UNITS, dtype=torch.bool)), "masks",
    ),
    "huge change": (honest(change=1e3), "change .* up to 2 in 3 mini-batches, found 1e"),
    "change beyond numbers": (with_tensor("w", torch.full((2, 3), 3e38)), "change"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_update_is_named_for_what_is_wrong(name: str) -> None:
    hostile, message = HOSTILE[name]
    before, fault, behind = faults_of([honest(0), hostile, honest(2)], STATE, UNITS)
    assert fault is not None and re.search(message, fault), fault
    assert "\n" not in fault
    assert before is None and behind is None
    # What is wrong with its content is seen without the others.
    assert fault_of(hostile, STATE, UNITS) == (None if message.startswith("change") else fault)


@pytest.mark.parametrize("samples", [11, 10**9, pytest.param(10**5000, id="huge")])
def test_no_device_counts_for_more_samples_than_it_holds(samples: int) -> None:
    greedy = replace(honest(1), samples=samples)
    fault = fault_of(greedy, STATE, held=10)
    assert fault == "samples: expected at most the 10 that the device holds, found more"
    assert faults_of([honest(0), greedy], STATE, UNITS, held=[10, 10]) == [None, fault]
    assert faults_of([honest(0), replace(greedy, samples=9)], STATE, UNITS, held=[10, 10]) == [
        None,
        None,
    ]


def test_changes_are_compared_with_the_median_of_the_round() -> None:
    def refused(*changes: float) -> list[bool]:
        cohort = [honest(i, change) for i, change in enumerate(changes)]
        return [fault is not None for fault in faults_of(cohort, STATE, UNITS)]

    limit = LARGEST_CHANGE
    assert refused(1, 1, 0.9 * limit) == [False, False, False]
    assert refused(1, 1, 1.1 * limit) == [False, False, True]
    # Whatever the scale, and although a mean would be moved by the large ones.
    assert refused(1e-6, 1e-6, 1e-6, 1, 1e6) == [False, False, False, True, True]
    # One device can't have another refused by changing next to nothing itself.
    assert refused(1e-9, 1) == [False, False]
    # There is nothing to compare with where most changed nothing.
    assert refused(0, 0, 1) == [False, False, False]
    assert faults_of([], STATE, UNITS) == []
    # Devices that came to nothing before the deadline don't count.
    idle = [replace(honest(i, 0), masks=honest().masks[:0], cost_shares=()) for i in range(5)]
    cohort = [*idle, honest(5), honest(6), honest(7, 100)]
    assert [fault is not None for fault in faults_of(cohort, STATE, UNITS)] == [False] * 7 + [True]


def after(batches: int, change: float) -> Update:
    masks = torch.ones(batches, UNITS, dtype=torch.bool)
    return replace(honest(change=change), masks=masks, cost_shares=(1.0,) * batches)


def test_changes_count_for_each_mini_batch() -> None:
    # Two that came to little, as they have few samples or handed in what they had.
    assert faults_of([after(1, 0.1), after(1, 0.1), after(100, 5.0)], STATE, UNITS) == [None] * 3
    assert faults_of([after(100, 5.0), after(100, 5.0), after(1, 0.1)], STATE, UNITS) == [None] * 3
    refused = faults_of([after(100, 5.0), after(100, 5.0), after(1, 1.1)], STATE, UNITS)
    assert refused[:2] == [None, None] and refused[2] is not None
    assert refused[2].endswith("expected a norm up to 1 in 1 mini-batches, found 1.1")


def test_no_device_counts_for_more_mini_batches_than_it_has() -> None:
    greedy = after(1000, 50.0)
    fault = "mini-batches: expected at most the 3 that the device has, found 1000"
    assert fault_of(greedy, STATE, UNITS, due=3) == fault
    assert faults_of([after(3, 0.1), after(3, 0.1), greedy], STATE, UNITS, due=[3, 3, 3]) == [
        None,
        None,
        fault,
    ]


def test_one_update_alone_is_judged_by_its_content() -> None:
    def state(w: Tensor) -> State:
        return {**STATE, "w": w}

    alone = replace(honest(), state=state(torch.full((2, 3), 1e6)))
    assert faults_of([alone], STATE, UNITS) == [None]
    assert faults_of([replace(alone, state=state(torch.full((2, 3), nan)))], STATE, UNITS) != [None]
