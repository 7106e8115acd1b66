"""What has to be the same for all runs of a comparison, and for a run that goes on.

Settings name files, a front and a study; what these hold is told by hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distreal_dse.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from distreal_dse.study import Study
    from fl.engine import FederatedRun, RunSettings

# Settings that may differ between the runs of a comparison.
FREE = ("strategy", "seed", "checkpoint_every")
ANEW = "start a comparison of its own with --name"


@dataclass(frozen=True)
class Conditions:
    """What a run was begun with: settings by name, and hashes of what they name by what it is."""

    settings: Mapping[str, Any]
    contents: Mapping[str, str]


def contents_of(run: FederatedRun) -> dict[str, str]:
    """Return the hashes of what a run was built from, beside its front and its model."""
    return {"study": run.study_hash, **file_hashes(run.settings)}


def file_hashes(settings: RunSettings) -> dict[str, str]:
    """Return the hashes of the files that settings name.

    Raises
    ------
    InputError
        If one of them can't be read.
    """
    trace = getattr(settings.availability, "content_hash", None)
    found = {"availability trace": str(trace)} if trace else {}
    for name in ("speeds", "links"):
        path: Path | None = getattr(settings, name)
        if path is not None:
            try:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise InputError(
                    f"{name} {path}: expected a JSON file, found: {error.strerror}; give the path "
                    "of one"
                ) from error
    return found


def study_hash(
    study: Study, parameters: Iterable[nn.Parameter], labels: Tensor, test_size: int
) -> str:
    """Return a hash of how a study trains, and on what; its network has a fingerprint of its own.

    Of the data, the labels count, as reading all inputs would take long. The text of the study's
    file does not: a comment changes no result.

    Parameters
    ----------
    study
        Whose loss, optimiser and settings of training count.
    parameters
        Of its network, for the settings of the optimiser.
    labels
        Of all training samples, shape [N].
    test_size
        Samples for testing.
    """
    optimizer = study.optimizer(parameters)
    described = {
        "batch size": study.batch_size,
        "granularity": study.granularity,
        "scaling": study.scaling,
        "clip norm": study.clip_norm,
        "masks": study.masks if isinstance(study.masks, str) else study.masks.spec,
        "loss": getattr(study.loss, "__qualname__", type(study.loss).__qualname__),
        "optimiser": type(optimizer).__qualname__,
        # Without what is off: a newer PyTorch has more of it, and computes the same.
        "optimiser settings": [
            {key: repr(value) for key, value in group.items() if key != "params" and value}
            for group in optimizer.param_groups
        ],
        "labels": hashlib.sha256(labels.numpy(force=True).tobytes()).hexdigest(),
        "test samples": test_size,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


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
        If they are no settings of a `fl.specs.RunSpec`.
    """
    from fl.specs import run_spec  # PyTorch, which reading stored figures must not need

    found: dict[str, Any] = json.loads(json.dumps(run_spec(settings).as_json()))
    return found
