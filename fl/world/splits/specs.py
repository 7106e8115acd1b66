"""Splits from text, such as ``iid`` or ``dirichlet:alpha=0.3``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from importlib.metadata import entry_points
from typing import Any

from distreal_dse.errors import InputError, described
from distreal_dse.specs import check_settings, name_of, parse_spec, unknown_name
from fl.world.splits.base import Split
from fl.world.splits.by_class import ByClassSplit
from fl.world.splits.dirichlet import DirichletSplit
from fl.world.splits.iid import IidSplit
from fl.world.splits.owners import OwnersSplit
from fl.world.splits.shards import ShardsSplit

PLUG_INS = "distreal_dse.splits"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `Split`."""

_KIND = "split"
# Their fields are the settings.
_NAMED: Mapping[str, type[Any]] = {
    "iid": IidSplit,
    "dirichlet": DirichletSplit,
    "shards": ShardsSplit,
    "owners": OwnersSplit,
    "by-class": ByClassSplit,
}
_KINDS: Mapping[str, tuple[Callable[[str], float], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}


def split_names() -> list[str]:
    """Names that `make_split` knows: the built-in ones, then those of installed plug-ins."""
    return [*_NAMED, *sorted(point.name for point in entry_points(group=PLUG_INS))]


def make_split(spec: str | Split) -> Split:
    """Make a split from text; a split is returned as it is.

    Parameters
    ----------
    spec
        A name, or ``NAME:SETTING=VALUE,…``. Built in are ``iid``, ``dirichlet``, ``shards``,
        ``owners`` and ``by-class`` with the parameters of their classes as settings. Other names
        are looked up among the entry points of the group ``distreal_dse.splits``: each is called
        with its settings as keyword arguments, all of them text, and returns a `Split`.

    Raises
    ------
    InputError
        If there is no split of this name, or its settings don't fit.
    """
    if isinstance(spec, Split):
        return spec
    name, settings = parse_spec(_KIND, spec)
    if name in _NAMED:
        return _built_in(spec, name, settings)
    for point in entry_points(group=PLUG_INS, name=name):
        return _plug_in(spec, name, point.load, settings)
    advice = "if it comes from a package, install that"
    raise unknown_name(_KIND, spec, name, split_names(), advice)


def _built_in(spec: str, name: str, settings: Mapping[str, str]) -> Split:
    known = {field.name: field for field in fields(_NAMED[name])}
    check_settings(_KIND, spec, settings, tuple(known))
    values = {}
    for setting, text in settings.items():
        kind, expected = _KINDS[str(known[setting].type)]
        try:
            values[setting] = kind(text)
        except ValueError as error:
            raise InputError(
                f"split '{spec}': {setting}: expected {expected}, found '{text}'"
            ) from error
    for setting, field in known.items():
        if field.default is MISSING and setting not in values:
            raise InputError(
                f"split '{spec}': expected the setting {setting} of '{name}', found none; write "
                f"{name}:{setting}=VALUE"
            )
    try:
        split: Split = _NAMED[name](**values)
    except InputError as error:
        raise InputError(f"split '{spec}': {error}") from error
    return split


def _plug_in(spec: str, name: str, load: Callable[[], Any], settings: Mapping[str, str]) -> Split:
    try:
        split = load()(**settings)
        found = f"one of spec '{split.spec}'" if isinstance(split, Split) else None
    except Exception as error:  # somebody else's code may raise anything
        raise InputError(f"split '{spec}': its plug-in fails: {described(error)}") from error
    if isinstance(split, Split) and name_of(split.spec) == name:
        return split
    raise InputError(
        f"split '{spec}': expected its plug-in to make a Split whose spec begins with '{name}', "
        f"found {found or type(split).__name__}; mend the plug-in"
    )
