"""Whether a strategy keeps its contract, as far as that shows before training.

`fl.testing.StrategyContract` tests the rest, for those who write one.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from distreal_dse.dropout import DroppableNetwork, MaskPolicy, check_counts, make_policy
from distreal_dse.errors import InputError, described
from fl.averaging import make_averaging
from fl.results import State, Update
from fl.strategies.base import LocalPlan, Strategy
from fl.strategies.setting import CHOSEN, COMMON, Setting
from fl.world.devices import Device

# No step costs so many times what the full network does; MACs are 1e8 or more times the seconds.
UNIT_MISSED = 1000


def check_declaration(spec: str, found: Any, name: str) -> type[Strategy]:
    """Refuse what a plug-in offers if it is no strategy; return it.

    Parameters
    ----------
    spec
        The text that asks for it.
    found
        What its entry point stands for.
    name
        Of the entry point.

    Raises
    ------
    InputError
        Naming what is wrong.
    """
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        named = found.__name__ if isinstance(found, type) else type(found).__name__
        raise _broken(spec, "a subclass of fl.strategies.Strategy", named)
    if (own := getattr(found, "name", None)) != name:
        raise _broken(spec, f"the name '{name}', as its entry point", repr(own))
    if found.chosen not in CHOSEN:
        raise _broken(spec, f"chosen to be {' or '.join(CHOSEN)}", repr(found.chosen))
    if not isinstance(found.settings, Mapping):
        raise _broken(spec, "settings by name", type(found.settings).__name__)
    for setting, one in found.settings.items():
        if not (isinstance(setting, str) and re.fullmatch(r"[a-z][a-z0-9-]*", setting)):
            raise _broken(spec, "settings of lower-case letters, digits and -", repr(setting))
        if setting in COMMON:
            raise _broken(spec, f"no setting '{setting}' of its own", "one, and all take that")
        if not isinstance(one, Setting):
            raise _broken(spec, f"setting '{setting}' to be a Setting", type(one).__name__)
    with _blamed(spec, "its masks or averaging"):
        make_policy(found.masks)
        make_averaging(found.averaging)
    return found


def check_arguments(spec: str, kind: type[Strategy], given: Sequence[str]) -> None:
    """Refuse a strategy whose constructor does not take the settings that are given, or needs more.

    Raises
    ------
    InputError
        If it does not.
    """
    own_make = any("make" in vars(one) for one in kind.__mro__ if one is not Strategy)
    arguments = {setting.replace("-", "_"): None for setting in given}
    try:
        inspect.signature(kind.make if own_make else kind).bind(None, **arguments)
    except TypeError as error:
        raise InputError(
            f"strategy '{spec}': expected settings that its constructor takes, found {error}; give "
            "what is missing, or mend the strategy"
        ) from error


def trained_network(strategy: Strategy, full: DroppableNetwork) -> DroppableNetwork:
    """Return the network that a strategy trains.

    Raises
    ------
    InputError
        If it has another type.
    """
    network = strategy.network(full)
    if not isinstance(network, DroppableNetwork):
        found = type(network).__name__
        raise _broken(strategy.name, "network() to return a DroppableNetwork", found)
    return network


def check_begun(strategy: Strategy, network: DroppableNetwork, full_cost: float) -> None:
    """Refuse a strategy whose plans or averages no run could use; asks for one of each.

    Parameters
    ----------
    strategy
        After its ``network()``.
    network
        What that returned.
    full_cost
        Of the full network, in the unit of budgets.

    Raises
    ------
    InputError
        Naming the strategy and what is wrong.
    """
    where, device = strategy.name, Device(0, "any", 1.0)
    with _blamed(where, "plan()"):
        plan = strategy.plan(device, 1, full_cost, 0)
    if not isinstance(plan, LocalPlan):
        raise _broken(where, "plan() to return a LocalPlan", type(plan).__name__)
    masks = getattr(plan, "masks", None)
    if not isinstance(masks, MaskPolicy):
        raise _broken(where, "masks of a plan to be a MaskPolicy", type(masks).__name__)
    for budget in (0.0, full_cost):
        with _blamed(where, "pick()"):
            vector = plan.pick(budget)
            check_counts(vector.kept_counts, network.groups)
            cost = float(vector.cost)
        if not 0 < cost < math.inf:
            raise _broken(where, "a finite cost above 0 of a vector", f"{cost:g}")
        if cost > UNIT_MISSED * full_cost:
            of_full = f"{cost:g}, where the full network costs {full_cost:g}"
            raise _broken(where, "a cost in the unit of the run, as price() gives", of_full)
    state = network.copy_state()
    with _blamed(where, "aggregate()"):
        merged = strategy.aggregate(state, [_unchanged(state, network)], network.channels)
    if fault := fault_of_state(merged, state):
        raise _broken(where, "aggregate() to keep names, shapes and types", fault)


def fault_of_state(found: Any, like: State) -> str | None:
    """Say how a state differs from another in names, shapes or types; None if it does not."""
    if not isinstance(found, Mapping):
        return type(found).__name__
    if odd := found.keys() ^ like.keys():
        return f"{', '.join(sorted(map(str, odd))[:3])} in one state only"
    for name, old in like.items():
        new = found[name]
        if not isinstance(new, torch.Tensor):
            return f"{name} as {type(new).__name__}"
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            return f"{name} of shape {tuple(new.shape)} as {new.dtype}"
    return None


def _unchanged(state: State, network: DroppableNetwork) -> Update:
    """The update of a device that trained everything in one mini-batch and changed nothing."""
    return Update(
        device=0,
        samples=1,
        state={name: tensor.clone() for name, tensor in state.items()},
        masks=torch.ones(1, sum(network.full_counts), dtype=torch.bool),
        loss=1.0,
        seconds=1.0,
        complete=True,
        training_macs=1.0,
        cost_shares=(1.0,),
        over_budget=0,
        bytes_down=0,
        bytes_up=0,
    )


@contextmanager
def _blamed(spec: str, what: str) -> Iterator[None]:
    """Name the strategy in whatever its code raises."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"strategy '{spec}': {what} fails: {described(error)}; mend the strategy"
        ) from error


def _broken(spec: str, expected: str, found: str) -> InputError:
    return InputError(f"strategy '{spec}': expected {expected}, found {found}; mend the strategy")
