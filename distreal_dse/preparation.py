"""From a study to what is trained: the network with its channel groups, and the data."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from distreal_dse.batches import check_data, fetch
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DistrealError, InputError, StudyError, described
from distreal_dse.seeding import seeded
from distreal_dse.study import Data, Study

Made = TypeVar("Made")


def prepare(study: Study, seed: int, device: str = "cpu") -> tuple[DroppableNetwork, Data]:
    """Build the study's network, freshly initialised under ``seed``, and load its checked data.

    Raises
    ------
    DataError, InputError, StudyError, UnsupportedModelError
        If the data set, the device or the model can't be used.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda: expected a CUDA device, found none; use cpu")
    if not 0 <= seed < 2**63:  # what a database column holds
        raise InputError(f"--seed is {seed}: expected 0 to 2^63 - 1")
    data = _called("data", study, Data)
    check_data(data, study.name)
    inputs, _ = fetch(data.train, torch.arange(2) % 2)
    with seeded(seed, "model"):
        module = _called("model", study, nn.Module).to(device)
    return DroppableNetwork(module, inputs.to(device)), data


def _called(name: str, study: Study, kind: type[Made]) -> Made:
    """What the study's function ``name`` returns; it is the user's and may raise anything."""
    try:
        made = getattr(study, name)()
    except DistrealError:
        raise
    except Exception as error:
        raise StudyError(f"{name}() of study {study.name} fails: {described(error)}") from error
    if not isinstance(made, kind):
        raise StudyError(
            f"{name}() of study {study.name} returned a {type(made).__name__}: expected a "
            f"{kind.__name__}"
        )
    return made
