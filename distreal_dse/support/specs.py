"""Things chosen by text: a name, and settings behind it (``blocks:blocks=4,core=0.25``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import normalize

from distreal_dse.errors import InputError


def parse_spec(kind: str, spec: str) -> tuple[str, dict[str, str]]:
    """Take ``NAME`` or ``NAME:SETTING=VALUE,…`` apart.

    Parameters
    ----------
    kind
        What is chosen, such as ``"mask policy"``; begins the message of the error.
    spec
        The text.

    Returns
    -------
    tuple
        The name, and the settings in their order.

    Raises
    ------
    InputError
        If a setting is not of this form or occurs twice.
    """
    name, colon, rest = spec.partition(":")
    settings: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        setting, equals, value = part.partition("=")
        if not (setting and equals and value) or setting in settings:
            raise InputError(
                f"{kind} '{spec}': expected NAME:SETTING=VALUE,… with each setting once, "
                f"found '{part}'"
            )
        settings[setting] = value
    return name, settings


def slug(text: str) -> str:
    """Return a name that a search and its front can have, as near to the text as possible.

    A text that is such a name (see `distreal_dse.fronts.check_front_name`) stays as it is. Spaces
    and other signs become ``-``; letters of any script stay.
    """
    name = re.sub(r"^\W+|[^\w.+-]+$", "", normalize("NFC", text))
    name = re.sub(r"[^\w.+-]+", "-", name)
    name = re.sub(r"\.json$", "-json", name, flags=re.IGNORECASE)
    if not name or name.isdecimal():  # a number names a federated run
        name = f"study-{name}".removesuffix("-")
    return name


def name_of(spec: str) -> str:
    """Return the name of such a text, without its settings."""
    return spec.partition(":")[0]


def with_setting(spec: str, setting: str, value: str) -> str:
    """Return a text of the same name and settings, and one more."""
    return f"{spec}{',' if ':' in spec else ':'}{setting}={value}"


def split_specs(text: str) -> list[str]:
    """Take a list of such texts apart: ``NAME,NAME:SETTING=VALUE,SETTING=VALUE,NAME``.

    A part that is a setting and no name belongs to what is before it.
    """
    found: list[str] = []
    for part in map(str.strip, text.split(",")):
        if found and "=" in part and ":" not in part.partition("=")[0]:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def number(kind: str, spec: str, setting: str, text: str) -> float:
    """Read the value of a setting as a number.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{kind} '{spec}': {setting}: expected a number, found '{text}'"
        ) from error


def whole_number(kind: str, spec: str, setting: str, text: str) -> int:
    """Read the value of a setting as a whole number.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return int(text)
    except ValueError as error:
        raise InputError(
            f"{kind} '{spec}': {setting}: expected a whole number, found '{text}'"
        ) from error


def did_you_mean(found: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``; did you mean A or B?`` for the end of an error, or nothing if none is near.

    Parameters
    ----------
    found
        What the user wrote.
    known
        The names that there are.
    cutoff
        Similarity from which on a name is near, in [0, 1] (see `difflib.get_close_matches`).
    """
    near = get_close_matches(found, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def unknown_name(
    kind: str, spec: str, found: str, known: Iterable[str], advice: str = ""
) -> InputError:
    """Make the error for a name that stands for nothing: the choices, and the nearest of them.

    Parameters
    ----------
    kind
        What is chosen, such as ``"mask policy"``.
    spec
        The whole text that names it.
    found
        The name in it.
    known
        The names that there are.
    advice
        What to do where none is near.
    """
    names = list(known)
    rest = did_you_mean(found, names) or (f"; {advice}" if advice else "")
    return InputError(f"{kind} '{spec}': expected one of {', '.join(names)}, found '{found}'{rest}")


def check_settings(kind: str, spec: str, found: Iterable[str], known: tuple[str, ...]) -> None:
    """Refuse settings that a name does not take.

    Raises
    ------
    InputError
        If there is one.
    """
    for setting in found:
        if setting not in known:
            expected = f"the settings {', '.join(known)}" if known else "no settings"
            raise InputError(
                f"{kind} '{spec}': expected {expected} of '{name_of(spec)}', found '{setting}'"
                + did_you_mean(setting, known)
            )
