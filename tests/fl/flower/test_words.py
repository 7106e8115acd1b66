from __future__ import annotations

import math
import pickle
import tracemalloc
from dataclasses import fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from flwr.app import Array, ArrayRecord, RecordDict  # noqa: E402

from distreal_dse.errors import InputError  # noqa: E402
from fl.flower.records import WEIGHTS, arrays_in, arrays_of  # noqa: E402
from fl.flower.words import (  # noqa: E402
    Greeting,
    Hello,
    Order,
    Plan,
    read_update,
    update_record,
)
from fl.results import Update  # noqa: E402

UNITS = 11


def update(masks: torch.Tensor) -> Update:
    return Update(
        device=3, samples=17, state={}, masks=masks, loss=0.25, seconds=1.5, complete=True,
        training_macs=2e9, cost_shares=tuple(i / 7 for i in range(len(masks))), over_budget=1,
        bytes_down=0, bytes_up=0,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_an_update_is_read_as_it_was_written(steps: int) -> None:
    written = update(torch.rand(steps, UNITS) > 0.5)
    found = read_update(*update_record(written), UNITS)
    for field in fields(Update):
        one, other = getattr(found, field.name), getattr(written, field.name)
        assert torch.equal(one, other) if field.name == "masks" else one == other


def test_equal_masks_travel_once() -> None:
    _, arrays = update_record(update(torch.ones(500, UNITS, dtype=torch.bool)))
    assert arrays["masks"].shape == (1, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 1.0}, {"samples": None}, {"complete": 1}, {"loss": 3}, {"device": "3"},
    ],
)  # fmt: skip
def test_numbers_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    record, arrays = update_record(update(torch.ones(2, UNITS, dtype=torch.bool)))
    with pytest.raises(InputError, match=f"{next(iter(change))}: expected .*, found"):
        read_update(record | change, arrays, UNITS)


@pytest.mark.parametrize(
    "change",
    [
        {"order": np.array([0, 9], dtype=np.uint32)},
        {"order": np.array([0.0, 0.0])},
        {"masks": np.zeros((1, 1), dtype=np.uint8)},
        {"masks": np.zeros(4, dtype=np.uint8)},
        {"costs": np.zeros(3)},
    ],
)
def test_masks_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    record, arrays = update_record(update(torch.ones(2, UNITS, dtype=torch.bool)))
    with pytest.raises(InputError, match="masks and costs of an update: expected"):
        read_update(record, {**arrays, **change}, UNITS)


def test_more_mini_batches_than_are_due_are_refused_before_they_take_memory() -> None:
    record, arrays = update_record(update(torch.ones(2, UNITS, dtype=torch.bool)))
    many = {"order": np.zeros(10**6, dtype=np.uint32), "costs": np.zeros(10**6)}
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="expected at most the 2 that .*, found 1000000"):
            read_update(record, {**arrays, **many}, UNITS, due=2)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    read_update(record, arrays, UNITS, due=2)


@pytest.mark.parametrize("deadline", [math.inf, Fraction(10**30 + 1, 7)])
@pytest.mark.parametrize("plan", [None, Plan(0.5, None), Plan(0.5, torch.arange(UNITS) > 3)])
def test_orders_are_read_exactly(deadline: Any, plan: Plan | None) -> None:
    written = Order(4, Fraction(1, 3), deadline, "abc", plan)
    found = Order.read(written.record(), UNITS)
    assert (found.round, found.start, found.deadline) == (4, Fraction(1, 3), deadline)
    assert (found.plan is None) == (plan is None)
    if plan is not None and found.plan is not None and plan.units is not None:
        assert found.plan.units is not None
        assert torch.equal(found.plan.units, plan.units)


@pytest.mark.parametrize("start", ["1e999999999", "-1", "1/0", "9" * 5000, "nan"])
def test_times_that_are_none_are_refused(start: str) -> None:
    record = Order(1, Fraction(0), math.inf, "").record() | {"start": start}
    with pytest.raises(InputError, match="expected a fraction"):
        Order.read(record, UNITS)


def test_another_protocol_is_refused_with_both_versions() -> None:
    record = Hello("a", "b", "c", "fedavg").record() | {"protocol": 2}
    with pytest.raises(InputError, match="version 1, as this device, found 2"):
        Hello.read(record)


def test_a_device_without_samples_is_refused() -> None:
    with pytest.raises(InputError, match="samples of a device: expected 1 or more, found 0"):
        Greeting.read(Greeting(0, "any", 0, True).record())


def test_a_class_that_is_no_name_is_refused() -> None:
    with pytest.raises(InputError, match="class of a device: expected up to 100 characters"):
        Greeting.read(Greeting(0, "x" * 101, 1, True).record())


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("something was unpickled",)


@pytest.mark.parametrize("stype", ["numpy.ndarray", "distreal.raw"])
def test_nothing_is_unpickled(stype: str) -> None:
    array = Array("object", (1,), stype, pickle.dumps(Harm()))
    content = RecordDict({WEIGHTS: ArrayRecord({"float32": array})})
    with pytest.raises(InputError, match="array float32: expected"):
        arrays_in(content, WEIGHTS)


def test_arrays_are_read_as_they_were_written() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array(7, dtype=">i4")}
    found = arrays_in(RecordDict({WEIGHTS: arrays_of(arrays)}), WEIGHTS)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape
