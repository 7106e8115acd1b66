"""Peak memory of a training step, measured: what PyTorch's allocator gives out."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from distreal_dse.cost._rehearsal import Rehearsal
from distreal_dse.dropout import DroppableNetwork, KeptCounts
from distreal_dse.study import Study

STEP = "distreal-dse: the step whose memory is measured"


def measured_memory(
    study: Study,
    network: DroppableNetwork,
    input_shape: Sequence[int],
    counts: KeptCounts,
    batch_size: int | None = None,
) -> int:
    """Measure the bytes that PyTorch has given out at the peak of a training step.

    Unlike `MemoryCost` it sees what lies within operations, such as the workspace of a convolution.
    On a CPU these are the allocations that `torch.profiler` reports, on a GPU
    `torch.cuda.max_memory_allocated`. Memory of Python, of libraries and of NumPy is not among
    them.

    Parameters
    ----------
    study, network, input_shape, batch_size
        As for `MemoryCost`.
    counts
        The vector. It is trained on a copy of the network, by itself.

    Raises
    ------
    InputError, StudyError
        As for `MemoryCost`.
    """
    size = study.batch_size if batch_size is None else batch_size
    if next(network.module.parameters()).device.type == "cuda":
        return _on_gpu(study, network, input_shape, counts, size)
    with (
        _quiet(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        rehearsal = Rehearsal(study, network, input_shape, size)
        rehearsal.warm_up(counts)
        with record_function(STEP):
            rehearsal.step(counts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return _peak(events)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send nowhere that the profiler starts and stops, which its library says on standard error.

    That is written by C++, so that the file itself has to be another one meanwhile.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _peak(events: Sequence[dict[str, Any]]) -> int:
    """The most bytes in the step, of those that were given out since the profiler began."""
    (step,) = (one for one in events if one.get("name") == STEP and one.get("ph") == "X")
    memory = [one for one in events if one.get("name") == "[memory]"]
    memory.sort(key=lambda one: (one["ts"], one["args"]["Ev Idx"]))
    first = memory[0]["args"]
    before = first["Total Allocated"] - first["Bytes"]
    start, end = step["ts"], step["ts"] + step["dur"]
    found = [one["args"]["Total Allocated"] for one in memory if start <= one["ts"] <= end]
    return int(max(found)) - int(before)


def _on_gpu(
    study: Study,
    network: DroppableNetwork,
    input_shape: Sequence[int],
    counts: KeptCounts,
    batch_size: int,
) -> int:
    where = next(network.module.parameters()).device
    torch.cuda.synchronize(where)
    before = torch.cuda.memory_allocated(where)
    rehearsal = Rehearsal(study, network, input_shape, batch_size)
    rehearsal.warm_up(counts)
    torch.cuda.synchronize(where)
    torch.cuda.reset_peak_memory_stats(where)
    rehearsal.step(counts)
    torch.cuda.synchronize(where)
    return torch.cuda.max_memory_allocated(where) - before
