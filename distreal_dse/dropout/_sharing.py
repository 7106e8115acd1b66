"""Tensors that lie in the same memory, which names and objects don't tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def sharing(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of tensors whose stretches of memory overlap, in pairs.

    Every tensor that overlaps another one is in one of the pairs. Interleaved ones, such as two
    columns of one matrix, count too.
    """
    furthest = ("", 0, 0, "")
    for stretch in sorted(
        (str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + _bytes(tensor), name)
        for name, tensor in tensors.items()
        if tensor.numel() and tensor.layout == torch.strided and tensor.data_ptr()
    ):
        device, start, end, name = stretch
        if device != furthest[0]:
            furthest = stretch
            continue
        if start < furthest[2]:
            yield furthest[3], name
        if end > furthest[2]:
            furthest = stretch


def _bytes(tensor: Tensor) -> int:
    """From the first element to the end of the last one."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()
