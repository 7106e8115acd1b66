"""Tensors by name as bytes, without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Pack tensors by name."""
    # Views of packed parameters share a storage, which safetensors refuses.
    return save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})


def from_bytes(content: bytes, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Unpack what `to_bytes` packed, onto a device."""
    return {name: tensor.to(device) for name, tensor in load(content).items()}
