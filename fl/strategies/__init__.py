"""What a device trains, and how updates are merged: one file per strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distreal_dse.dropout import check_proximal
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, LookupTable
from distreal_dse.specs import check_settings, number, parse_spec, unknown_name, whole_number
from fl.averaging import make_averaging
from fl.learning_rates import check_learning_rate
from fl.schedules import make_schedule
from fl.strategies.base import FixedPlan, LocalPlan, PricedVector, Strategy, Vector
from fl.strategies.context import StrategyContext, VectorTable
from fl.strategies.distreal import Distreal, LookupPlan, masks_of
from fl.strategies.distreal_uniform import DistrealUniform
from fl.strategies.fedavg import FedAvg, FedAvgDrop
from fl.strategies.federated_dropout import FederatedDropout
from fl.strategies.fedrolex import FedRolex
from fl.strategies.fjord import Fjord, FjordDistilled, check_alpha
from fl.strategies.heterofl import HeteroFl
from fl.strategies.levels import SETTINGS, check_one_of, check_shares, read_shares
from fl.strategies.nested import Nested, check_levels
from fl.strategies.small import Small, check_share

__all__ = [
    "Distreal",
    "DistrealUniform",
    "FedAvg",
    "FedAvgDrop",
    "FedRolex",
    "FederatedDropout",
    "FixedPlan",
    "Fjord",
    "FjordDistilled",
    "HeteroFl",
    "LocalPlan",
    "LookupPlan",
    "Nested",
    "PricedVector",
    "Small",
    "Strategy",
    "StrategyContext",
    "Vector",
    "VectorTable",
    "check_strategy",
    "describe_strategies",
    "make_strategy",
    "masks_of",
    "strategy_names",
]


def strategy_names() -> list[str]:
    """Names that `make_strategy` knows: what bounds the others, baselines, DISTREAL."""
    return list(_NAMED)


def describe_strategies() -> dict[str, str]:
    """Return what each strategy does, in a line, by its name."""
    kinds: tuple[type[Strategy], ...] = (
        FedAvg, FedAvgDrop, Small, FederatedDropout, HeteroFl, Fjord, FjordDistilled, FedRolex,
        DistrealUniform, Distreal, Nested,
    )  # fmt: skip
    return {kind.name: (kind.__doc__ or "").partition("\n")[0] for kind in kinds}


def make_strategy(name: str, context: StrategyContext) -> Strategy:
    """Make a strategy from text.

    Parameters
    ----------
    name
        One of `strategy_names`, or ``NAME:SETTING=VALUE,…``. All take ``lr``, the learning rate
        of devices, ``schedule``, how it changes over rounds (see `fl.schedules.make_schedule`),
        and ``prox``, the weight μ of FedProx's proximal term (see `distreal_dse.dropout.Proximal`).
        ``distreal``, ``distreal-uniform`` and ``nested`` take ``averaging`` (see
        `fl.averaging.make_averaging`), ``nested`` takes ``levels``, ``fjord-kd`` takes ``alpha``,
        ``small`` takes ``share``; ``heterofl``, ``fjord``, ``fjord-kd`` and ``fedrolex`` take
        ``widths`` or ``costs`` of their levels (see `fl.strategies.levels`).
    context
        What is known of the run.

    Raises
    ------
    InputError
        If there is no strategy of this name, its settings don't fit, or it can't do with the front
        that there is.
    """
    short, settings = _read(name, context.front)
    rate, schedule = settings.pop("lr", None), settings.pop("schedule", None)
    proximal = settings.pop("prox", 0.0)
    check_proximal(proximal)
    strategy = _NAMED[short][0](context, **settings)
    if rate is not None:
        check_learning_rate(rate)
        strategy.learning_rate = rate
    strategy.schedule, strategy.proximal = schedule, proximal
    return strategy


def check_strategy(name: str, front: Front | None, rounds: int | None = None) -> None:
    """Refuse what `make_strategy` would, as far as that can be seen without a network.

    Parameters
    ----------
    name
        As for `make_strategy`.
    front
        Of the run; None where it is not known or there is none.
    rounds
        Of the run; None where it is not known.

    Raises
    ------
    InputError
        If there is no strategy of this name, its settings don't fit, or it can't do with the front.
    """
    _, settings = _read(name, front)
    schedule = settings.pop("schedule", None)
    if schedule is not None and rounds is not None:
        schedule.check(rounds)
    for setting, value in settings.items():
        _CHECKED[setting](value)


def _read(name: str, front: Front | None) -> tuple[str, dict[str, Any]]:
    short, texts = parse_spec(_KIND, name)
    if short not in _NAMED:
        raise unknown_name(_KIND, name, short, _NAMED)
    check_settings(_KIND, name, texts, (*_NAMED[short][1], "lr", "schedule", "prox"))
    if short != Distreal.name and front and front.cost_metric != "macs":
        raise InputError(
            f"{_KIND} '{name}' prices its own vectors: expected a front whose costs are MACs, "
            f"found {front.cost_metric} in front {front.label}; take a front that was searched "
            "with --cost macs"
        )
    check_one_of(*map(texts.get, SETTINGS))
    return short, {
        setting: _READ[setting](_KIND, name, setting, text) if setting in _READ else text
        for setting, text in texts.items()
    }


def _distreal(context: StrategyContext, averaging: str = "plain") -> Strategy:
    front = context.front
    if front is None:
        raise InputError(
            f"{_KIND} 'distreal': expected a front to look vectors up in, found none; search one "
            "with `distreal-dse optimize`, or take 'distreal-uniform'"
        )
    return Distreal(LookupTable(front), masks_of(front, context.study), averaging)


_KIND = "strategy"
_CHECKED: Mapping[str, Callable[[Any], object]] = {
    "alpha": check_alpha,
    "averaging": make_averaging,
    "costs": check_shares,
    "levels": check_levels,
    "lr": check_learning_rate,
    "prox": check_proximal,
    "share": check_share,
    "widths": check_shares,
}
_READ: Mapping[str, Callable[[str, str, str, str], Any]] = {
    "alpha": number,
    "costs": read_shares,
    "levels": whole_number,
    "lr": number,
    "prox": number,
    "schedule": lambda kind, name, setting, text: make_schedule(text),
    "share": number,
    "widths": read_shares,
}
_NAMED: Mapping[str, tuple[Callable[..., Strategy], tuple[str, ...]]] = {
    FedAvg.name: (FedAvg, ()),
    FedAvgDrop.name: (FedAvgDrop, ()),
    Small.name: (Small, ("share",)),
    FederatedDropout.name: (FederatedDropout, ()),
    HeteroFl.name: (HeteroFl, SETTINGS),
    Fjord.name: (Fjord, SETTINGS),
    FjordDistilled.name: (FjordDistilled, ("alpha", *SETTINGS)),
    FedRolex.name: (FedRolex, SETTINGS),
    DistrealUniform.name: (DistrealUniform, ("averaging",)),
    Distreal.name: (_distreal, ("averaging",)),
    Nested.name: (Nested, ("levels", "averaging")),
}
