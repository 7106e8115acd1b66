"""What has to be the same for all runs of a comparison, and for a run that goes on.

Settings name files, a front and a study; what these hold is told by hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distreal_dse.errors import InputError

# Settings that may differ between the runs of a comparison.
FREE = ("strategy", "seed", "checkpoint_every")
ANEW = "start a comparison of its own with --name"


@dataclass(frozen=True)
class Conditions:
    """What a run was begun with: settings by name, and hashes of what they name by what it is."""

    settings: Mapping[str, Any]
    contents: Mapping[str, str]


def check_contents(
    subject: str, given: Mapping[str, str], stored: Mapping[str, str], otherwise: str
) -> None:
    """Refuse other contents than those that something was begun with, such as ``"run 7"``.

    ``otherwise`` is what to do where they are meant to differ.

    What only one of the two knows of is no difference: older versions stored less.

    Raises
    ------
    InputError
        Naming all that differ.
    """
    if changed := [name for name in stored if name in given and given[name] != stored[name]]:
        raise InputError(
            f"{subject} was begun with another {' and another '.join(changed)}, by content: "
            f"expected the same; bring it back, or {otherwise}"
        )


def check_same(comparison: str, given: Conditions, stored: Conditions) -> None:
    """Refuse a run under other conditions than those of a run that a comparison has.

    Raises
    ------
    InputError
        Naming what differs.
    """
    try:
        before, now = resolved(stored.settings), resolved(given.settings)
    except InputError as error:
        raise InputError(f"comparison '{comparison}': {error}, or {ANEW}") from error
    for key, value in now.items():
        if key not in FREE and before[key] != value:
            raise InputError(
                f"comparison '{comparison}' was begun with {key} = {before[key]}, now it is "
                f"{value}: use the same, or {ANEW}"
            )
    check_contents(f"comparison '{comparison}'", given.contents, stored.contents, ANEW)


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as JSON gives them back, with defaults for those that it lacks.

    A setting that a later version adds has the value that was meant before.

    Raises
    ------
    InputError
        If they are no settings of a `fl.store.specs.RunSpec`.
    """
    from fl.store.specs import run_spec  # PyTorch, which reading stored figures must not need

    found: dict[str, Any] = json.loads(json.dumps(run_spec(settings).as_json()))
    return found
