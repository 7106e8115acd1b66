"""Mask policies from text, such as ``random`` or ``blocks:blocks=4,core=0.25,redraw=round``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from distreal_dse.dropout._policies import ROUND, ComposedMasks, MaskPolicy
from distreal_dse.errors import InputError, described
from distreal_dse.specs import check_settings, name_of, parse_spec, unknown_name

PLUG_INS = "distreal_dse.mask_policies"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `MaskPolicy`."""

# What a name stands for, and which settings it takes. How many blocks and how large a core are our
# own choices.
_NAMED: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "random": ({}, ("blocks", "core", "redraw")),
    "random-round": ({"redraw": ROUND}, ("blocks", "core")),
    "ordered": ({"order": "fixed"}, ()),
    "rolling": ({"order": "rolling"}, ("blocks", "core")),
    "blocks": ({"blocks": 4}, ("blocks", "core", "redraw")),
    "core": ({"core": 0.5}, ("blocks", "core", "redraw")),
}


def policy_names() -> list[str]:
    """Names that `make_policy` knows: the built-in ones, then those of installed plug-ins."""
    return [*_NAMED, *sorted(point.name for point in entry_points(group=PLUG_INS))]


def make_policy(spec: str | MaskPolicy) -> MaskPolicy:
    """Make a new mask policy from text; a policy is returned as it is.

    Parameters
    ----------
    spec
        A name, or ``NAME:SETTING=VALUE,…``. Built in are ``random``, ``random-round``,
        ``ordered``, ``rolling``, ``blocks`` and ``core`` with the settings ``blocks``, ``core`` and
        ``redraw`` of `ComposedMasks`, as far as they mean anything there. Other names are looked up
        among the entry points of the group ``distreal_dse.mask_policies``: each is called with its
        settings as keyword arguments, all of them text, and returns a `MaskPolicy`.

    Raises
    ------
    InputError
        If there is no policy of this name, or its settings don't fit.
    """
    if isinstance(spec, MaskPolicy):
        return spec
    name, settings = parse_spec("mask policy", spec)
    if name in _NAMED:
        return _built_in(spec, name, settings)
    for point in entry_points(group=PLUG_INS, name=name):
        return _plug_in(spec, name, point.load, settings)
    advice = "if it comes from a package, install that"
    raise unknown_name("mask policy", spec, name, policy_names(), advice)


def _built_in(spec: str, name: str, settings: Mapping[str, str]) -> MaskPolicy:
    meaning, known = _NAMED[name]
    check_settings("mask policy", spec, settings, known)
    values = meaning | {setting: _value(spec, setting, text) for setting, text in settings.items()}
    try:
        return ComposedMasks(**values)
    except InputError as error:
        raise InputError(f"mask policy '{spec}': {error}") from error


def _value(spec: str, setting: str, text: str) -> float | str:
    if setting == "redraw" and text == ROUND:
        return ROUND
    kind: Callable[[str], float] = float if setting == "core" else int
    try:
        return kind(text)
    except ValueError as error:
        expected = "a number" if setting == "core" else "a whole number"
        also = f" or {ROUND}" if setting == "redraw" else ""
        raise InputError(
            f"mask policy '{spec}': {setting}: expected {expected}{also}, found '{text}'"
        ) from error


def _plug_in(
    spec: str, name: str, load: Callable[[], Any], settings: Mapping[str, str]
) -> MaskPolicy:
    try:
        policy = load()(**settings)
        found = f"one of spec '{policy.spec}'" if isinstance(policy, MaskPolicy) else None
    except Exception as error:  # somebody else's code may raise anything
        raise InputError(f"mask policy '{spec}': its plug-in fails: {described(error)}") from error
    if isinstance(policy, MaskPolicy) and name_of(policy.spec) == name:
        return copy.deepcopy(policy)  # a plug-in may give everyone the same one
    raise InputError(
        f"mask policy '{spec}': expected its plug-in to make a MaskPolicy whose spec begins with "
        f"'{name}', found {found or type(policy).__name__}; mend the plug-in"
    )
