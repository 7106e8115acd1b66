"""From a study to what is trained: the network with its channel groups, and the data."""

from __future__ import annotations

from typing import Any

import torch

from distreal_dse.batches import check_data, fetch
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DistrealError, InputError, StudyError
from distreal_dse.seeding import seeded
from distreal_dse.study import Data, Study


def prepare(study: Study, seed: int, device: str = "cpu") -> tuple[DroppableNetwork, Data]:
    """Build the study's network, freshly initialised under ``seed``, and load its checked data.

    Raises
    ------
    DataError, InputError, StudyError, UnsupportedModelError
        If the data set, the device or the model can't be used.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda: expected a CUDA device, found none; use cpu")
    data = _called("data", study)
    check_data(data, study.name)
    inputs, _ = fetch(data.train, torch.arange(2) % 2)
    with seeded(seed, "model"):
        module = _called("model", study).to(device)
    return DroppableNetwork(module, inputs.to(device)), data


def _called(name: str, study: Study) -> Any:
    """What the study's function ``name`` returns; it is the user's and may raise anything."""
    try:
        return getattr(study, name)()
    except DistrealError:
        raise
    except Exception as error:
        raise StudyError(
            f"{name}() of study {study.name} fails: {type(error).__name__}: {error}"
        ) from error
