"""What the server makes of merged updates: against PyTorch's optimisers and by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from distreal_dse.errors import InputError
from fl.results import State
from fl.server_optimizers import Adam, Momentum, Replace, ServerOptimizer, make_server_optimizer

ROUNDS = 6


def states(dtype: torch.dtype = torch.double) -> list[dict[str, Tensor]]:
    """A state to start from, and what updates might be merged to in each round."""
    draws = torch.Generator().manual_seed(0)
    return [
        {
            "conv.weight": torch.randn(3, 2, generator=draws, dtype=dtype),
            "norm.bias": torch.randn(3, generator=draws, dtype=dtype),
            "norm.running_mean": torch.randn(3, generator=draws, dtype=dtype),
            "norm.running_var": torch.rand(3, generator=draws, dtype=dtype),
            "norm.num_batches_tracked": torch.tensor(number),
        }
        for number in range(ROUNDS + 1)
    ]


def run(optimizer: ServerOptimizer, count: int = ROUNDS) -> list[State]:
    start, *merged = states()
    found: list[State] = [start]
    for one in merged[:count]:
        found.append(optimizer.step(found[-1], one))
    return found


def by_pytorch(make: Callable[[list[Tensor]], Optimizer]) -> list[list[Tensor]]:
    """The same rounds with an optimiser of PyTorch on the pseudo-gradients."""
    start, *merged = states()
    names = ["conv.weight", "norm.bias"]
    values = [start[name].clone().requires_grad_() for name in names]
    optimizer = make(values)
    found = []
    for one in merged:
        for name, value in zip(names, values, strict=True):
            value.grad = value.detach() - one[name]
        optimizer.step()
        found.append([value.detach().clone() for value in values])
    return found


def uncorrected_adam(values: list[Tensor]) -> Optimizer:
    """PyTorch's Adam at a step where the bias correction is 1, with the paper's initial state."""
    optimizer = torch.optim.Adam(values, lr=0.3, betas=(0.8, 0.95), eps=0.01)
    for value in values:
        optimizer.state[value] = {
            "step": torch.tensor(1e6),
            "exp_avg": torch.zeros_like(value),
            "exp_avg_sq": torch.full_like(value, 0.01**2),
        }
    return optimizer


@pytest.mark.parametrize(
    ("optimizer", "oracle"),
    [
        (Momentum(lr=0.7, beta=0.8), lambda values: SGD(values, lr=0.7, momentum=0.8)),
        (Momentum(lr=0.7, beta=0.0), lambda values: SGD(values, lr=0.7)),
        (Adam(lr=0.3, beta1=0.8, beta2=0.95, tau=0.01), uncorrected_adam),
    ],
    ids=["momentum", "no momentum", "adam"],
)
def test_steps_are_those_of_pytorch_on_the_pseudo_gradient(
    optimizer: ServerOptimizer, oracle: Callable[[list[Tensor]], Optimizer]
) -> None:
    for found, expected in zip(run(optimizer)[1:], by_pytorch(oracle), strict=True):
        torch.testing.assert_close(found["conv.weight"], expected[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found["norm.bias"], expected[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("momentum:lr=0.7,beta=0.8", lambda values: SGD(values, lr=0.7, momentum=0.8)),
        ("adam:lr=0.3,beta1=0.8,beta2=0.95,tau=0.01", uncorrected_adam),
    ],
)
def test_scheduled_steps_are_those_of_pytorch_with_a_scheduler(
    text: str, make: Callable[[list[Tensor]], Optimizer]
) -> None:
    optimizer = make_server_optimizer(f"{text},schedule=exponential:factor=0.6")
    found, *merged = states()
    values = [found[name].clone().requires_grad_() for name in ("conv.weight", "norm.bias")]
    oracle = make(values)
    scheduler = ExponentialLR(oracle, 0.6)
    factor = optimizer.schedule.over(ROUNDS, None)
    for number, one in enumerate(merged, start=1):
        found = dict(optimizer.step(found, one, factor(number, 0.0)))
        for name, value in zip(("conv.weight", "norm.bias"), values, strict=True):
            value.grad = value.detach() - one[name]
        oracle.step()
        scheduler.step()
        for name, value in zip(("conv.weight", "norm.bias"), values, strict=True):
            torch.testing.assert_close(found[name], value.detach(), rtol=1e-12, atol=1e-14)
        assert torch.equal(found["norm.running_var"], one["norm.running_var"])


def test_the_first_step_of_adam_by_hand() -> None:
    state, merged = {"w": torch.tensor([2.0]).double()}, {"w": torch.tensor([1.0]).double()}
    # Gradient 1: m = 0.1, v = 0.99·0.001² + 0.01·1, step = 0.5 · 0.1 / (√v + 0.001)
    expected = 2 - 0.5 * 0.1 / ((0.99e-6 + 0.01) ** 0.5 + 0.001)
    assert Adam(lr=0.5).step(state, merged)["w"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spec", ["replace", "momentum:lr=1,beta=0", "momentum", "adam"])
class TestEveryOptimizer:
    def test_statistics_and_counters_are_taken_as_merged(self, spec: str) -> None:
        for found, merged in zip(run(make_server_optimizer(spec)), states(), strict=True):
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                assert torch.equal(found[f"norm.{name}"], merged[f"norm.{name}"])

    def test_going_on_from_its_state_is_bit_identical(self, spec: str) -> None:
        optimizer, other = make_server_optimizer(spec), make_server_optimizer(spec)
        expected = run(optimizer)
        stopped = make_server_optimizer(spec)
        state = run(stopped, 3)[-1]
        other.load_state_dict({key: t.clone() for key, t in stopped.state_dict().items()})
        for merged in states()[4:]:
            state = other.step(state, merged)
        assert all(torch.equal(state[name], expected[-1][name]) for name in state)
        found, kept = optimizer.state_dict(), other.state_dict()
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[name], kept[name]) for name in found)

    def test_names_shapes_and_types_are_kept_and_arguments_unchanged(self, spec: str) -> None:
        optimizer = make_server_optimizer(spec)
        for dtype in (torch.float32, torch.bfloat16):
            state, merged, *_ = states(dtype)
            optimizer.load_state_dict({})
            found = optimizer.step(state, merged)
            assert list(found) == list(state)
            for name, tensor in found.items():
                assert (tensor.dtype, tensor.shape) == (state[name].dtype, state[name].shape)
            for one, same in zip((state, merged), states(dtype), strict=False):
                assert all(torch.equal(one[name], same[name]) for name in one)

    def test_what_it_returned_as_its_state_does_not_change_later(self, spec: str) -> None:
        optimizer = make_server_optimizer(spec)
        state, first, second, *_ = states()
        state = dict(optimizer.step(state, first))
        kept = optimizer.state_dict()
        copies = {name: tensor.clone() for name, tensor in kept.items()}
        optimizer.step(state, second)
        assert all(torch.equal(kept[name], copies[name]) for name in copies)
        assert kept.keys() == copies.keys()


def test_a_learning_rate_of_one_without_momentum_is_the_merged_state() -> None:
    for found, merged in zip(run(Momentum(1, 0))[1:], states()[1:], strict=True):
        torch.testing.assert_close(found["conv.weight"], merged["conv.weight"])
    assert run(Replace())[-1] is not None


def test_text_is_understood() -> None:
    assert isinstance(make_server_optimizer("replace"), Replace)
    one, same = make_server_optimizer("momentum:lr=0.5,beta=0.3"), Momentum(0.5, 0.3)
    assert torch.equal(run(one)[-1]["norm.bias"], run(same)[-1]["norm.bias"])
    other, same_adam = (
        make_server_optimizer("adam:lr=0.2,tau=0.1,beta2=0.9"),
        Adam(0.2, beta2=0.9, tau=0.1),
    )
    assert torch.equal(run(other)[-1]["norm.bias"], run(same_adam)[-1]["norm.bias"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sgd", "server optimiser 'sgd': expected one of replace, momentum, adam, found 'sgd'"),
        ("adam:rate=1", "'adam:rate=1': expected the settings lr, .*, schedule of 'adam'"),
        ("replace:lr=1", "expected no settings of 'replace', found 'lr'"),
        ("adam:lr=fast", "lr: expected a number, found 'fast'"),
        ("momentum:lr", "expected NAME:SETTING=VALUE,… with each setting once, found 'lr'"),
        ("momentum:beta=1", "beta of a server optimiser: expected 0 ≤ beta < 1, found 1"),
        ("adam:lr=0", "lr of a server optimiser: expected more than 0, found 0"),
        ("adam:tau=nan", "tau of a server optimiser: expected more than 0, found nan"),
    ],
)
def test_text_that_means_nothing_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_server_optimizer(spec)
