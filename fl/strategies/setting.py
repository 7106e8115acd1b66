"""Settings of strategies: how text is read, what a value may be, and which all strategies take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from distreal_dse.dropout import check_proximal, make_policy
from distreal_dse.errors import InputError
from distreal_dse.support.specs import number
from fl.averaging import make_averaging
from fl.learning_rates import check_learning_rate
from fl.optimizer_settings import check_momentum, check_weight_decay
from fl.schedules import Schedule, make_schedule

Chosen: TypeAlias = Literal["per run", "per round", "per mini-batch"]
CHOSEN: tuple[Chosen, ...] = get_args(Chosen)


def as_text(kind: str, spec: str, setting: str, text: str) -> str:
    """Read the value of a setting as the text that it is."""
    return text


def _schedule(kind: str, spec: str, setting: str, text: str) -> Schedule:
    return make_schedule(text)


def _masks(kind: str, spec: str, setting: str, text: str) -> str:
    name, colon, settings = text.partition(":")
    return name + colon + settings.replace(":", ",")


def _chosen(kind: str, spec: str, setting: str, text: str) -> str:
    return f"per {text}"


def _check_chosen(value: str) -> None:
    if value not in CHOSEN:
        expected = ", ".join(one.removeprefix("per ") for one in CHOSEN)
        raise InputError(
            f"choose, when a device chooses its vector: expected one of {expected}, found "
            f"'{value.removeprefix('per ')}'"
        )


def _anything(value: object) -> None:
    """Refuse nothing."""


@dataclass(frozen=True)
class Setting:
    """A setting of a strategy, as it is written behind its name.

    Parameters
    ----------
    read
        Makes a value from the kind of thing, the whole text, the name of the setting and its own
        text, as `distreal_dse.support.specs.number` and `whole_number` do.
    check
        Refuses a value that is none with an `InputError`.
    field
        Attribute of the strategy that takes the value; None for the argument of its constructor
        that has the name of the setting, with ``_`` for ``-``.
    """

    read: Callable[[str, str, str, str], Any]
    check: Callable[[Any], object] = _anything
    field: str | None = None


AVERAGING = Setting(as_text, make_averaging, "averaging")
"""For strategies that drop something: where nobody does, all averages are the same."""

CHOOSE = Setting(_chosen, _check_chosen, "chosen")
"""For strategies that follow the budget within a round: ``choose=round`` or ``run`` ends that."""

MASKS = Setting(_masks, make_policy, "masks")
"""For strategies that any masks fit; colons part settings: ``masks=core:core=0.75:redraw=5``."""

COMMON: Mapping[str, Setting] = {
    "lr": Setting(number, check_learning_rate, "learning_rate"),
    "schedule": Setting(_schedule, field="schedule"),
    "prox": Setting(number, check_proximal, "proximal"),
    "momentum": Setting(number, check_momentum, "momentum"),
    "weight-decay": Setting(number, check_weight_decay, "weight_decay"),
}
"""What all strategies take."""
