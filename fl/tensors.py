"""Tensors by name as bytes, without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Pack tensors by name."""
    # Views of packed parameters share a storage, and channels_last ones have strides of their own:
    # safetensors refuses both.
    layout = torch.contiguous_format
    return save({n: t.detach().cpu().clone(memory_format=layout) for n, t in tensors.items()})


def from_bytes(content: bytes, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Unpack what `to_bytes` packed, onto a device."""
    return {name: tensor.to(device) for name, tensor in load(content).items()}
