"""What a vector costs: training MACs and memory, counted; latency, measured on this device."""

from distreal_dse.cost._device import device_fingerprint, device_text, fingerprint_hash
from distreal_dse.cost._latency import Latencies, LatencySamples, Quartiles, VectorLatency
from distreal_dse.cost._macs import MacCost
from distreal_dse.cost._measured_memory import measured_memory
from distreal_dse.cost._memory import MemoryCost, MemoryParts
from distreal_dse.cost._noise import NoiseVerdict, noise_verdict
from distreal_dse.cost._steps import StepTimer

__all__ = [
    "Latencies",
    "LatencySamples",
    "MacCost",
    "MemoryCost",
    "MemoryParts",
    "NoiseVerdict",
    "Quartiles",
    "StepTimer",
    "VectorLatency",
    "device_fingerprint",
    "device_text",
    "fingerprint_hash",
    "measured_memory",
    "noise_verdict",
]
