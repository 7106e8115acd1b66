"""What the server makes of the merged updates of a round.

References
----------
Hsu, Qi, Brown: Measuring the effects of non-identical data distribution for federated visual
classification, 2019, arXiv 1909.06335 (FedAvgM: server momentum).

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: Adaptive federated optimization,
ICLR 2021, algorithms 1 and 2 (the pseudo-gradient; FedAdam).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from distreal_dse.errors import InputError
from distreal_dse.support.registry import Entry, Registry
from distreal_dse.support.specs import number
from fl.averaging import is_statistic
from fl.results import State
from fl.schedules import Constant, Schedule, make_schedule

_CONSTANT = Constant()


class ServerOptimizer(ABC):
    """Moves the global state towards what the updates of a round were merged to."""

    schedule: Schedule = _CONSTANT
    """How its learning rate changes over the rounds of a run."""

    @abstractmethod
    def step(self, state: State, merged: State, factor: float = 1.0) -> State:
        """Return the new global state; neither argument is changed.

        Parameters
        ----------
        state, merged
            Parameters and buffers by name: before the round, and what its updates were merged to.
        factor
            Of the learning rate, in [0, 1]: what ``schedule`` gives for the round.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return what has to be kept to go on later, by name."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""


class Replace(ServerOptimizer):
    """Takes the merged state as it is: FedAvg."""

    def step(self, state: State, merged: State, factor: float = 1.0) -> State:
        """Return the merged state; there is no learning rate."""
        return merged

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Do nothing: there is no state."""


class _ByGradient(ServerOptimizer):
    """Takes a step of an optimiser, the pseudo-gradient being old − merged.

    Only what is learned has one. Running statistics and integers are taken as merged: they are
    measured and counted, and a step beyond a variance may be negative. A buffer of another name
    that training leaves alone has the pseudo-gradient zero, and stays.

    Its own state is kept in the types of the tensors that it belongs to, under ``KIND.NAME``.
    """

    def __init__(self, learning_rate: float, schedule: Schedule) -> None:
        _expect(learning_rate > 0, "lr", "more than 0", learning_rate)
        self._learning_rate, self.schedule = learning_rate, schedule
        self._kept: dict[str, Tensor] = {}

    def step(self, state: State, merged: State, factor: float = 1.0) -> State:
        """Return the state after a step for what is learned, and the merged state for the rest."""
        rate = self._learning_rate * factor
        return {
            name: old - rate * self._direction(name, old - merged[name])
            if old.is_floating_point() and not is_statistic(name)
            else merged[name]
            for name, old in state.items()
        }

    @abstractmethod
    def _direction(self, name: str, gradient: Tensor) -> Tensor:
        """Return the step for a learning rate of 1, and go on to the next state."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of each tensor, by its kind and name."""
        return dict(self._kept)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._kept = dict(state)


class Momentum(_ByGradient):
    """Gradient descent with momentum: FedAvgM (Hsu et al. 2019).

    v ← β·v + gradient, x ← x − lr·v, with v = 0 to begin with: PyTorch's SGD with momentum and
    without dampening.

    Parameters
    ----------
    lr
        Learning rate, > 0. With 1 and a ``beta`` of 0 the result is the merged state up to
        rounding.
    beta
        Momentum, in [0, 1).
    schedule
        Of the learning rate over rounds. The momentum gathers gradients without it, as PyTorch's.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    def __init__(self, lr: float = 1.0, beta: float = 0.9, schedule: Schedule = _CONSTANT) -> None:
        super().__init__(lr, schedule)
        _expect(0 <= beta < 1, "beta", "0 ≤ beta < 1", beta)
        self._beta = beta

    def _direction(self, name: str, gradient: Tensor) -> Tensor:
        key = f"momentum.{name}"
        old = self._kept.get(key)
        self._kept[key] = gradient if old is None else self._beta * old + gradient
        return self._kept[key]


class Adam(_ByGradient):
    """FedAdam (Reddi et al. 2021, algorithm 2), in the paper's variant without bias correction.

    m ← β₁·m + (1 − β₁)·gradient, v ← β₂·v + (1 − β₂)·gradient², x ← x − lr·m / (√v + τ), with m = 0
    and v = τ² to begin with, the smallest that the paper allows.

    Parameters
    ----------
    lr
        Learning rate, > 0. A parameter moves by about this much per round whatever the size of its
        gradient, so there is no default that suits most networks; 0.1 is our own choice.
    beta1, beta2
        In [0, 1); by default those of the paper's experiments.
    tau
        How far it adapts, > 0: gradients well below it are treated alike. By default that of the
        paper's experiments.
    schedule
        Of the learning rate over rounds.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    def __init__(
        self,
        lr: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
        schedule: Schedule = _CONSTANT,
    ) -> None:
        super().__init__(lr, schedule)
        _expect(0 <= beta1 < 1, "beta1", "0 ≤ beta1 < 1", beta1)
        _expect(0 <= beta2 < 1, "beta2", "0 ≤ beta2 < 1", beta2)
        _expect(tau > 0, "tau", "more than 0", tau)
        self._beta1, self._beta2, self._tau = beta1, beta2, tau

    def _direction(self, name: str, gradient: Tensor) -> Tensor:
        first, second = f"mean.{name}", f"square.{name}"
        mean = self._kept.get(first, torch.zeros_like(gradient))
        square = self._kept.get(second, torch.full_like(gradient, self._tau**2))
        mean = self._beta1 * mean + (1 - self._beta1) * gradient
        square = self._beta2 * square + (1 - self._beta2) * gradient**2
        self._kept |= {first: mean, second: square}
        return mean / (square.sqrt() + self._tau)


def make_server_optimizer(spec: str) -> ServerOptimizer:
    """Make a server optimiser from text.

    Parameters
    ----------
    spec
        ``replace``, ``momentum`` or ``adam``, the latter two with their parameters as settings:
        ``momentum:lr=1,beta=0.9,schedule=cosine:end=0.1`` (see `fl.schedules.make_schedule`).

    Raises
    ------
    InputError
        If there is none of this name, or its settings don't fit.
    """
    return _OPTIMIZERS.make(spec)


def _expect(holds: bool, name: str, expected: str, found: float) -> None:
    if not holds:
        raise InputError(f"{name} of a {_KIND}: expected {expected}, found {found}")


_KIND = "server optimiser"
PLUG_INS = "distreal_dse.server_optimizers"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a
`ServerOptimizer`."""


def _schedule(kind: str, spec: str, setting: str, text: str) -> Schedule:
    return make_schedule(text)


_OPTIMIZERS = Registry[ServerOptimizer](
    _KIND,
    ServerOptimizer,
    {
        "replace": Entry(Replace),
        "momentum": Entry(Momentum, {"lr": number, "beta": number, "schedule": _schedule}),
        "adam": Entry(
            Adam, {**dict.fromkeys(("lr", "beta1", "beta2", "tau"), number), "schedule": _schedule}
        ),
    },
    PLUG_INS,
)
