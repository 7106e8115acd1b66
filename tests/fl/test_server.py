from collections import Counter
from math import inf, nan, sqrt

import pytest
import torch
from torch import Tensor

from distreal_dse.errors import InputError
from fl.devices import make_devices
from fl.results import Update
from fl.server import fedavg, is_finite, select_cohort


def update(device: int, samples: int, loss: float = 1.0, **state: Tensor) -> Update:
    return Update(
        device=device,
        samples=samples,
        state=state,
        masks=torch.ones(1, 0, dtype=torch.bool),
        loss=loss,
        seconds=1.0,
        complete=True,
        training_macs=1.0,
        cost_shares=(1.0,),
        over_budget=0,
        bytes_down=8,
        bytes_up=8,
    )


def test_fedavg_weights_values_by_samples() -> None:
    mean = fedavg(
        [
            update(0, 10, weight=torch.tensor([[1.0, 2.0]]), bias=torch.tensor([0.0])),
            update(1, 30, weight=torch.tensor([[5.0, 6.0]]), bias=torch.tensor([-4.0])),
        ]
    )
    # (1·10 + 5·30) / 40 = 4, (2·10 + 6·30) / 40 = 5, (0·10 − 4·30) / 40 = −3
    assert mean["weight"].tolist() == [[4.0, 5.0]]
    assert mean["bias"].tolist() == [-3.0]
    assert mean["weight"].dtype == torch.float32


def test_fedavg_sums_in_double_precision() -> None:
    values = [1e8, 1.0, -1e8, 1.0]  # in single precision the ones would be lost
    mean = fedavg([update(i, 1, w=torch.tensor([value])) for i, value in enumerate(values)])
    assert mean["w"].item() == 0.5


def test_fedavg_of_one_update_is_that_update() -> None:
    state = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(3)}
    mean = fedavg([update(0, 7, 1.0, **state)])
    assert torch.equal(mean["w"], state["w"]) and torch.equal(mean["n"], state["n"])
    assert mean["w"].data_ptr() != state["w"].data_ptr()


def test_fedavg_takes_the_largest_of_counters() -> None:
    updates = [update(i, 1, num_batches_tracked=torch.tensor(n)) for i, n in enumerate((3, 9, 4))]
    assert fedavg(updates)["num_batches_tracked"].item() == 9


def test_fedavg_refuses_states_that_differ() -> None:
    first = update(4, 1, a=torch.zeros(2), b=torch.zeros(1))
    with pytest.raises(InputError, match=r"device 7: tensor a: .*\(2,\).*\(3,\)"):
        fedavg([first, update(7, 1, a=torch.zeros(3), b=torch.zeros(1))])
    with pytest.raises(InputError, match="device 7: .* found b, c in one"):
        fedavg([first, update(7, 1, a=torch.zeros(2), c=torch.zeros(1))])
    with pytest.raises(InputError, match="averaging 0 updates"):
        fedavg([])


def test_updates_that_are_not_finite_are_recognised() -> None:
    assert is_finite(update(0, 1, w=torch.ones(3), n=torch.tensor(5)))
    assert not is_finite(update(0, 1, loss=nan, w=torch.ones(3)))
    for bad in (nan, inf, -inf):
        assert not is_finite(update(0, 1, w=torch.tensor([1.0, bad])))


def test_cohorts_are_drawn_anew_each_round_without_replacement() -> None:
    devices = make_devices(30)
    cohorts = [[d.index for d in select_cohort(devices, 10, r, seed=0)] for r in range(600)]
    assert all(len(set(c)) == 10 and c == sorted(c) for c in cohorts)
    assert cohorts[0] == [d.index for d in select_cohort(devices, 10, 0, seed=0)]
    assert cohorts[0] != [d.index for d in select_cohort(devices, 10, 0, seed=1)]
    times = Counter(index for cohort in cohorts for index in cohort)
    assert all(abs(times[i] - 200) < 5 * sqrt(600 / 3 * 2 / 3) for i in range(30))
