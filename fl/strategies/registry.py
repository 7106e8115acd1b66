"""Strategies from text, such as ``small`` or ``fjord-kd:alpha=0.5,lr=0.1``."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

from distreal_dse.dropout import make_policy
from distreal_dse.errors import DistrealError, FrontError, InputError, described
from distreal_dse.fronts import Front
from distreal_dse.pricing import check_priced
from distreal_dse.support.registry import plug_ins
from distreal_dse.support.specs import check_settings, name_of, parse_spec, unknown_name
from fl.strategies.base import Strategy
from fl.strategies.context import StrategyContext
from fl.strategies.contract import check_arguments, check_declaration
from fl.strategies.distreal import Distreal
from fl.strategies.distreal_uniform import DistrealUniform
from fl.strategies.fedavg import FedAvg, FedAvgDrop
from fl.strategies.federated_dropout import FederatedDropout
from fl.strategies.fedrolex import FedRolex
from fl.strategies.fjord import Fjord, FjordDistilled
from fl.strategies.heterofl import HeteroFl
from fl.strategies.nested import Nested
from fl.strategies.setting import COMMON
from fl.strategies.small import Small

PLUG_INS = "distreal_dse.strategies"
"""Group of entry points: a name of letters, digits and ``-``, and a subclass of `Strategy`."""

_KIND = "strategy"
# What bounds the others, baselines, DISTREAL.
_NAMED: dict[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        FedAvg, FedAvgDrop, Small, FederatedDropout, HeteroFl, Fjord, FjordDistilled, FedRolex,
        DistrealUniform, Distreal, Nested,
    )
}  # fmt: skip


def built_in_strategies() -> list[str]:
    """Names of the strategies of this package: what bounds the others, baselines, DISTREAL."""
    return list(_NAMED)


def strategy_names() -> list[str]:
    """Names that `make_strategy` knows: the built-in ones, then those of installed plug-ins."""
    found = {point.name for point in plug_ins(PLUG_INS)}
    return [*_NAMED, *sorted(found - _NAMED.keys())]


def describe_strategies() -> dict[str, str]:
    """Return what each strategy does, in a line, by its name; why, if a plug-in can't be used."""
    found = {}
    for name in strategy_names():
        try:
            found[name] = (strategy_class(name).__doc__ or "").strip().partition("\n")[0]
        except InputError as error:
            found[name] = f"can't be used: {error}"
    return found


def strategy_class(spec: str) -> type[Strategy]:
    """Return the class of the strategy that a text names, whatever its settings.

    Raises
    ------
    InputError
        If there is no strategy of this name, or a plug-in of this name breaks its contract.
    """
    name = name_of(spec)
    points = [point for point in plug_ins(PLUG_INS) if point.name == name]
    if name in _NAMED and not points:
        return _NAMED[name]
    if not points:
        advice = "if it comes from a package, install that"
        raise unknown_name(_KIND, spec, name, strategy_names(), advice)
    if name in _NAMED or len({point.value for point in points}) > 1:
        others = "the built-in one" if name in _NAMED else "another"
        raise InputError(
            f"{_KIND} '{spec}': expected one of this name, found {others} and plug-in "
            f"{_source(points[0])}; rename the plug-in, or uninstall its package"
        )
    return _loaded(spec, points[0])


def make_strategy(spec: str, context: StrategyContext) -> Strategy:
    """Make a strategy from text.

    Parameters
    ----------
    spec
        One of `strategy_names`, or ``NAME:SETTING=VALUE,…``. Settings are those of its class
        (`Strategy.settings`), and those that all take (`fl.strategies.setting.COMMON`). Names that
        are not built in are looked up among the entry points of the group
        ``distreal_dse.strategies``: each is a subclass of `Strategy` of the same name.
    context
        What is known of the run.

    Raises
    ------
    InputError
        If there is no strategy of this name, its settings don't fit, or it can't do with the front
        that there is; if it is a plug-in that breaks its contract.
    """
    kind, values = _read(spec, context.front, context.front is not None)
    stays = make_policy(values.get("masks", kind.masks)).stays_for_a_round
    # Where a vector and its masks stay for a round, devices cut it out once.
    if values.get("choose", kind.chosen) != "per mini-batch" and stays:
        context = replace(context, steps="alone")
    known = {**kind.settings, **COMMON}
    own = {s.replace("-", "_"): v for s, v in values.items() if known[s].field is None}
    try:
        strategy = kind.make(context, **own)
    except DistrealError:
        raise
    except Exception as error:
        if kind in _NAMED.values():
            raise
        raise InputError(f"{_KIND} '{spec}': its plug-in fails: {described(error)}") from error
    if not isinstance(strategy, Strategy):
        found = type(strategy).__name__
        raise InputError(
            f"{_KIND} '{spec}': expected its make() to return a Strategy, found {found}"
        )
    for setting, value in values.items():
        if (field := known[setting].field) is not None:
            setattr(strategy, field, value)
    return strategy


def check_strategy(
    spec: str, front: Front | None, rounds: int | None = None, *, with_front: bool = False
) -> None:
    """Refuse what `make_strategy` would, as far as that can be seen without a network.

    Parameters
    ----------
    spec
        As for `make_strategy`.
    front
        Of the run; None where it is not known or there is none.
    rounds
        Of the run; None where it is not known.
    with_front
        Whether the run has a front that is not known yet.

    Raises
    ------
    InputError
        If there is no strategy of this name, its settings don't fit, or it can't do with the front;
        if it is a plug-in that breaks its contract.
    """
    _, values = _read(spec, front, with_front or front is not None)
    if "schedule" in values and rounds is not None:
        values["schedule"].check(rounds)


def _read(
    spec: str, front: Front | None, with_front: bool
) -> tuple[type[Strategy], dict[str, Any]]:
    """Return the class and the values of all settings in the text, checked."""
    _, given = parse_spec(_KIND, spec)
    named = strategy_class(spec)
    kind, texts = named.form(given, with_front)
    known = {**kind.settings, **COMMON}
    check_settings(_KIND, spec, texts, (*(["form"] if named.forms else []), *known))
    if front and not kind.takes_front:
        try:
            check_priced(front)
        except FrontError as error:
            raise InputError(f"{_KIND} '{spec}' prices its own vectors: {error}") from error
    try:
        values = {name: known[name].read(_KIND, spec, name, text) for name, text in texts.items()}
        kind.check(values)
        for name, value in values.items():
            known[name].check(value)
    except DistrealError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise InputError(f"{_KIND} '{spec}': its settings fail: {described(error)}") from error
    check_arguments(spec, kind, [name for name in values if known[name].field is None])
    return kind, values


def _loaded(spec: str, point: EntryPoint) -> type[Strategy]:
    try:
        found = point.load()
    except Exception as error:  # somebody else's code may raise anything
        raise InputError(
            f"{_KIND} '{spec}': its plug-in {_source(point)} fails: {described(error)}"
        ) from error
    return check_declaration(spec, found, point.name)


def _source(point: EntryPoint) -> str:
    """Where it comes from, for messages: what is imported, and the package that says so."""
    return f"{point.value} of {point.dist.name}" if point.dist else point.value
