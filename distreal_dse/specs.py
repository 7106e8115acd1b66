"""Things chosen by text: a name, and settings behind it (``blocks:blocks=4,core=0.25``)."""

from __future__ import annotations

from collections.abc import Iterable

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
            )
