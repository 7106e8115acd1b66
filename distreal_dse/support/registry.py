"""What can be chosen by text: built in, or of installed plug-ins, with settings behind a name.

One grammar for masks, splits, availabilities, server optimisers, schedules and defences:
``NAME`` or ``NAME:SETTING=VALUE,…``. A plug-in is an entry point of the group of its kind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from distreal_dse.errors import InputError, described
from distreal_dse.support.specs import (
    check_settings,
    name_of,
    number,
    parse_spec,
    unknown_name,
    whole_number,
)

T = TypeVar("T")

Reader = Callable[[str, str, str, str], Any]
"""Reads a value of kind, whole text, setting and the value's text, as
`distreal_dse.support.specs.number` does."""


def plug_ins(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group among the packages that are installed now.

    To look into all packages takes ten milliseconds or more, so it is only done again where the
    folders that they are in have changed.
    """
    return _found(group, tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache
def _found(group: str, folders: tuple[tuple[str, int | None], ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:  # it is not there, or an archive's inside
        return None


@dataclass(frozen=True)
class Entry:
    """What a built-in name stands for.

    Parameters
    ----------
    make
        Called with the settings as keyword arguments.
    settings
        What it takes, each with what reads its value.
    required
        Those of them that have no default.
    fixed
        Arguments that the name stands for; a setting takes their place.
    """

    make: Callable[..., Any]
    settings: Mapping[str, Reader] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """The things of one kind, by name.

    Parameters
    ----------
    kind
        For messages, such as ``"mask policy"``.
    of
        What they are instances of.
    built_in
        What a name stands for.
    plug_ins
        Group of entry points: a name of letters, digits and ``-``, and what makes one. It is called
        with its settings as keyword arguments, all of them text. Where what it makes has a
        ``spec``, that has to begin with the name.
    others
        What else may be written, told to those who write a name that there is not.
    """

    def __init__(
        self,
        kind: str,
        of: type[Any],
        built_in: Mapping[str, Entry],
        plug_ins: str,
        others: tuple[str, ...] = (),
    ) -> None:
        self._kind, self._of, self._others = kind, of, others
        self._built_in, self._plug_ins = built_in, plug_ins

    def names(self) -> list[str]:
        """Return the built-in names, then those of installed plug-ins."""
        found = {point.name for point in plug_ins(self._plug_ins)}
        return [*self._built_in, *sorted(found - self._built_in.keys())]

    def make(self, spec: str, parsed: str | None = None) -> T:
        """Make one of its text.

        Parameters
        ----------
        spec
            As it was written, which messages show.
        parsed
            The same with commas between its settings; None where it has them.

        Raises
        ------
        InputError
            If there is none of this name, its settings don't fit, or its plug-in is not one.
        """
        name = name_of(spec)
        own = name in self._built_in
        points = [] if own else [one for one in plug_ins(self._plug_ins) if one.name == name]
        if not own and not points:
            advice = "if it comes from a package, install that"
            raise unknown_name(self._kind, spec, name, (*self.names(), *self._others), advice)
        _, settings = parse_spec(self._kind, spec if parsed is None else parsed)
        for point in points:
            return self._plugged_in(spec, name, point.load, settings)
        return self._made(spec, self._built_in[name], settings)

    def _made(self, spec: str, entry: Entry, texts: Mapping[str, str]) -> T:
        check_settings(self._kind, spec, texts, tuple(entry.settings))
        values = {
            setting: entry.settings[setting](self._kind, spec, setting, text)
            for setting, text in texts.items()
        }
        for setting in entry.required:
            if setting not in values:
                name = name_of(spec)
                raise InputError(
                    f"{self._kind} '{spec}': expected the setting {setting} of '{name}', found "
                    f"none; write {name}:{setting}=VALUE"
                )
        try:
            made: T = entry.make(**{**entry.fixed, **values})
        except InputError as error:
            if spec in str(error):
                raise
            raise InputError(f"{self._kind} '{spec}': {error}") from error
        return made

    def _plugged_in(
        self, spec: str, name: str, load: Callable[[], Any], settings: Mapping[str, str]
    ) -> T:
        try:
            made = load()(**settings)
            own = getattr(made, "spec", name) if isinstance(made, self._of) else None
        except Exception as error:  # somebody else's code may raise anything
            raise InputError(
                f"{self._kind} '{spec}': its plug-in fails: {described(error)}"
            ) from error
        if isinstance(made, self._of) and name_of(str(own)) == name:
            one: T = made
            return one
        what = self._of.__name__
        found = type(made).__name__ if own is None else f"one of spec '{own}'"
        raise InputError(
            f"{self._kind} '{spec}': expected its plug-in to make a {what} whose spec begins with "
            f"'{name}', found {found}; mend the plug-in"
        )


_READERS: Mapping[str, Reader] = {"int": whole_number, "float": number}


def entry_of(made: type[Any]) -> Entry:
    """Return the entry of a dataclass whose fields, numbers all, are the settings."""
    own = fields(made)
    return Entry(
        made,
        {one.name: _READERS[str(one.type)] for one in own},
        tuple(one.name for one in own if one.default is MISSING),
    )
