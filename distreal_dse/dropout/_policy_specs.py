"""Mask policies from text, such as ``random`` or ``blocks:blocks=4,core=0.25,redraw=round``."""

from __future__ import annotations

import copy

from distreal_dse.dropout._policies import ROUND, ComposedMasks, MaskPolicy
from distreal_dse.errors import InputError
from distreal_dse.support.registry import Entry, Registry
from distreal_dse.support.specs import number, whole_number

PLUG_INS = "distreal_dse.mask_policies"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `MaskPolicy`."""


def _redraw(kind: str, spec: str, setting: str, text: str) -> int | str:
    if text == ROUND:
        return ROUND
    try:
        return int(text)
    except ValueError as error:
        raise InputError(
            f"{kind} '{spec}': {setting}: expected a whole number or {ROUND}, found '{text}'"
        ) from error


_BLOCKS = {"blocks": whole_number, "core": number}
_ALL = {**_BLOCKS, "redraw": _redraw}
# How many blocks and how large a core are our own choices.
_POLICIES = Registry[MaskPolicy](
    "mask policy",
    MaskPolicy,
    {
        "random": Entry(ComposedMasks, _ALL),
        "random-round": Entry(ComposedMasks, _BLOCKS, fixed={"redraw": ROUND}),
        "ordered": Entry(ComposedMasks, fixed={"order": "fixed"}),
        "rolling": Entry(ComposedMasks, _BLOCKS, fixed={"order": "rolling"}),
        "blocks": Entry(ComposedMasks, _ALL, fixed={"blocks": 4}),
        "core": Entry(ComposedMasks, _ALL, fixed={"core": 0.5}),
    },
    PLUG_INS,
)


def policy_names() -> list[str]:
    """Names that `make_policy` knows: the built-in ones, then those of installed plug-ins."""
    return _POLICIES.names()


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
    return copy.deepcopy(_POLICIES.make(spec))  # a plug-in may give everyone the same one
