"""From a study to what is trained: the network with its channel groups, and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from distreal_dse.data.batches import check_data, fetch, size_of
from distreal_dse.dropout import NORMS_WITH_STATISTICS, DroppableNetwork
from distreal_dse.errors import (
    DistrealError,
    InputError,
    StudyError,
    UnsupportedModelError,
    described,
)
from distreal_dse.study import Data, Study
from distreal_dse.support.seeding import generator, seeded

Made = TypeVar("Made")


def prepare(study: Study, seed: int, device: str = "cpu") -> tuple[DroppableNetwork, Data]:
    """Build the study's network, freshly initialised under ``seed``, and load its checked data.

    Raises
    ------
    DataError, InputError, StudyError, UnsupportedModelError
        If the data set, the device or the model can't be used.
    """
    _check_place(seed, device)
    data = _called("data", study, Data)
    check_data(data, study.name)
    _check_batch_size(study, size_of(data.train))
    inputs, _ = fetch(data.train, torch.arange(2))
    found = tuple(inputs.shape[1:])
    if study.input_shape is not None and tuple(study.input_shape) != found:
        raise StudyError(
            f"input_shape of study {study.name} is {tuple(study.input_shape)}: expected that of "
            f"its training data, {found}"
        )
    return _network(study, seed, device, inputs), data


def prepare_network(
    study: Study, seed: int, device: str = "cpu", input_shape: Sequence[int] | None = None
) -> tuple[DroppableNetwork, tuple[int, ...]]:
    """Build the study's network as `prepare` does, without its data where that is avoidable.

    Parameters
    ----------
    study, seed, device
        As for `prepare`.
    input_shape
        Of one sample; else the study's own; else the data is loaded for one.

    Returns
    -------
    network
        Freshly initialised.
    input_shape
        Of one sample.

    Raises
    ------
    DataError, InputError, StudyError, UnsupportedModelError
        If the data set, the device or the model can't be used.
    """
    _check_place(seed, device)
    shape = input_shape or study.input_shape
    if shape is None:
        network, data = prepare(study, seed, device)
        inputs, _ = fetch(data.train, torch.tensor([0]))
        return network, tuple(inputs.shape[1:])
    example = torch.randn((2, *shape), generator=generator(seed, "example"))
    return _network(study, seed, device, example), tuple(shape)


def _check_place(seed: int, device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device is '{device}': expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda: expected a CUDA device, found none; use cpu")
    if not 0 <= seed < 2**63:  # what a database column holds
        raise InputError(f"--seed is {seed}: expected 0 to 2^63 - 1")


def _network(study: Study, seed: int, device: str, example: Tensor) -> DroppableNetwork:
    with seeded(seed, "model"):
        module = _called("model", study, nn.Module).to(device)
    scaling = _scaling_for(module) if study.scaling == "auto" else study.scaling
    network = DroppableNetwork(module, example.to(device), scaling)
    with seeded(seed, "outputs"):  # its forward() may draw
        _check_outputs(study, module, network.example)
    return network


def _check_batch_size(study: Study, samples: int) -> None:
    """Refuse mini-batches that there are not enough samples for.

    Training would silently take smaller ones, and latency be measured with those asked for.
    """
    if study.batch_size > samples:
        raise StudyError(
            f"batch_size of study {study.name} is {study.batch_size}: expected at most the "
            f"{samples} samples of its training data; lower it"
        )


@torch.no_grad()
def _check_outputs(study: Study, module: nn.Module, example: Tensor) -> None:
    """Refuse a network whose outputs in evaluation mode are no scores of classes."""
    modes = [(part, part.training) for part in module.modules()]
    outputs = module.eval()(example)
    for part, training in modes:
        part.training = training
    if isinstance(outputs, Tensor) and outputs.dim() >= 2 and len(outputs) == len(example):
        return
    if isinstance(outputs, Tensor):
        found = f"a tensor of shape {tuple(outputs.shape)} for {len(example)} samples"
    elif isinstance(outputs, Mapping):
        found = f"a {type(outputs).__name__} with {', '.join(map(repr, outputs))}"
    else:
        found = f"a {type(outputs).__name__}"
    raise UnsupportedModelError(
        f"model {type(module).__name__} of study {study.name} returns {found}: expected a tensor "
        "of scores, shape [samples, classes]; return that alone from forward()"
    )


def _scaling_for(module: nn.Module) -> str:
    """Inverted scaling keeps running statistics usable; without any, it only harms training."""
    has_statistics = any(
        isinstance(part, NORMS_WITH_STATISTICS) and part.running_mean is not None
        for part in module.modules()
    )
    return "inverted" if has_statistics else "none"


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
