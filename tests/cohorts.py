"""Small cohorts that are trained one by one and at once, and how far the updates lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, Study
from distreal_dse.errors import DistrealWarning
from fl.clients import Clients, InProcess, Task
from fl.cohort import Batched
from fl.engine import FederatedRun
from fl.results import State, Update
from fl.settings import RunSettings
from fl.strategies import Strategy, StrategyContext, make_strategy
from fl.testing import SETTINGS, STUDY, StrategyContract

# Relative, after a round.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}


def in_type(study: Study, dtype: torch.dtype) -> Study:
    """The study with parameters and inputs of a type."""

    def part(dataset: TensorDataset) -> TensorDataset:
        return TensorDataset(dataset.tensors[0].to(dtype), dataset.tensors[1])

    def data() -> Data:
        own = study.data()
        return Data(*(part(one) for one in (own.train, own.validation, own.test)))  # type: ignore[arg-type]

    return replace(study, model=lambda: study.model().to(dtype), data=data)


DOUBLE = in_type(STUDY, torch.float64)


def begin(
    strategy: str | Callable[[StrategyContext], Strategy],
    study: Study = DOUBLE,
    settings: RunSettings = SETTINGS,
) -> FederatedRun:
    """A run that has not begun."""

    class Begun(StrategyContract):
        def make(self, context: StrategyContext) -> Strategy:
            made = make_strategy(strategy, context) if isinstance(strategy, str) else None
            return made or strategy(context)  # type: ignore[operator]

    return Begun().begin(study, settings).run


def tasks_of(run: FederatedRun, sizes: Sequence[int] = (20, 20, 20, 20)) -> list[Task]:
    """The first devices of a run, with so many samples each."""
    devices = run.settings.population()[: len(sizes)]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    samples = [torch.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return [Task(one, own) for one, own in zip(devices, samples, strict=True)]


def trained(
    run: FederatedRun, clients: Clients, tasks: Sequence[Task], state: State | None = None
) -> list[Update]:
    """The updates of the second round from a state, or from the run's own."""
    state = state or run.checkpoint().state
    return clients.train(tasks, state, 2, 3.0, 3.0 + float(run._deadline))


@contextmanager
def at_once(clients: Batched, sizes: Sequence[int]) -> Iterator[None]:
    """Check that nobody is trained one by one, and how many are at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DistrealWarning)
        yield
    assert clients.sizes == tuple(sizes)


def check_equal(found: Sequence[Update], expected: Sequence[Update]) -> float:
    """Check that updates are the same to rounding errors; return how far they lie apart."""
    furthest = 0.0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.masks, other.masks)
        for field in fields(one):
            if field.name not in ("state", "masks", "loss"):
                assert getattr(one, field.name) == getattr(other, field.name), field.name
        assert list(one.state) == list(other.state)
        pairs = [(one.state[name], like) for name, like in other.state.items()]
        assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        close = CLOSE[next(b.dtype for _, b in pairs)]
        loss = torch.tensor([(one.loss, other.loss)], dtype=torch.float64)
        for a, b in [*pairs, (loss[:, 0], loss[:, 1])]:
            distance = apart(a, b)
            assert distance <= close, f"{distance:.2g} apart"
            furthest = max(furthest, distance)
    return furthest


def apart(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what was expected; of those that are finite."""
    finite = expected.isfinite()
    assert torch.equal(finite, found.isfinite())
    a, b = (one[finite].double() for one in (found, expected))
    return float((a - b).norm() / b.norm().clamp(min=1e-3))


def check_same_round(
    run: FederatedRun, tasks: Sequence[Task], state: State | None = None
) -> list[Update]:
    """Train a cohort both ways, check that updates are the same, and return them."""
    expected = trained(run, InProcess(run.training), tasks, state)
    clients = Batched(run.training)
    with at_once(clients, [len(tasks)]):
        found = trained(run, clients, tasks, state)
    check_equal(found, expected)
    assert sum(one.mini_batches for one in found) > 0
    return found


def noisy(layer: nn.Module) -> Study:
    """The study with one more layer before the last one."""

    def model() -> nn.Module:
        *others, last = STUDY.model().double()
        return nn.Sequential(*others, layer, last)

    return replace(DOUBLE, model=model)
