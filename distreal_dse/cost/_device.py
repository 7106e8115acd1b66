"""The device at hand: what decides how long a training step takes here."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def device_fingerprint(kind: str, threads: int) -> dict[str, Any]:
    """Describe this device; nothing in it names a host, a user or a path.

    Parameters
    ----------
    kind
        ``"cpu"`` or ``"cuda"``.
    threads
        Threads of PyTorch that train.
    """
    described: dict[str, Any] = {
        "kind": kind,
        "cpu": _cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "torch": torch.__version__,
        "system": platform.system(),
    }
    if kind == "cuda":
        described["gpu"] = torch.cuda.get_device_name()
        described["cuda"] = torch.version.cuda
    return described


def fingerprint_hash(device: Mapping[str, Any]) -> str:
    """Short hash of a device's fingerprint."""
    canonical = json.dumps(device, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def device_text(device: Mapping[str, Any]) -> str:
    """A fingerprint as one line for people, e.g. of a front that was measured elsewhere."""
    parts = [str(device[key]) for key in ("gpu", "cpu", "machine") if device.get(key)]
    for key in ("cores", "threads"):
        if key in device:
            parts.append(f"{device[key]} {key if device[key] != 1 else key[:-1]}")
    parts += [f"torch {device['torch']}"] if "torch" in device else []
    parts += [str(device["system"])] if "system" in device else []
    return f"{', '.join(parts) or 'a device without a description'} [{fingerprint_hash(device)}]"


def _cpu_model() -> str:
    """Model of the processor; in Linux x86 has it as "model name", MIPS and ARM boards differ."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "cpu model", "Model"):
                return value.strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
