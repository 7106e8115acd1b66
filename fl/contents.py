"""Hashes of what a run is built from: its study, and the files that its settings name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from distreal_dse.errors import InputError
from distreal_dse.study import Study
from fl.settings import RunSettings


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
