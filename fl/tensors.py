"""Tensors by name as bytes and files, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from distreal_dse.errors import DistrealError


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Pack tensors by name."""
    return save(_own(tensors))


def from_bytes(content: bytes, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Unpack what `to_bytes` packed, onto a device."""
    return {name: tensor.to(device) for name, tensor in load(content).items()}


def to_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name to a file that another process reads.

    Raises
    ------
    DistrealError
        If the file can't be written.
    """
    try:
        save_file(_own(tensors), path)
    except (OSError, SafetensorError) as error:
        raise DistrealError(
            f"{path}: tensors for another process can't be written: expected a folder with room "
            f"for them, found: {error}; name another one in the environment's TMPDIR"
        ) from error


def from_file(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read what `to_file` wrote, onto a device. The file may be deleted afterwards."""
    return {name: tensor.to(device) for name, tensor in load_file(path).items()}


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Views of packed parameters share a storage, and channels_last ones have strides of their own:
    # safetensors refuses both.
    layout = torch.contiguous_format
    return {n: t.detach().cpu().clone(memory_format=layout) for n, t in tensors.items()}
