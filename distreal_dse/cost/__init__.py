"""What a vector costs: training MACs, counted, and latency, measured on the device at hand."""

from distreal_dse.cost._device import device_fingerprint, device_text, fingerprint_hash
from distreal_dse.cost._latency import Latencies, LatencySamples, Quartiles, VectorLatency
from distreal_dse.cost._macs import MacCost
from distreal_dse.cost._noise import NoiseVerdict, noise_verdict
from distreal_dse.cost._steps import StepTimer

__all__ = [
    "Latencies",
    "LatencySamples",
    "MacCost",
    "NoiseVerdict",
    "Quartiles",
    "StepTimer",
    "VectorLatency",
    "device_fingerprint",
    "device_text",
    "fingerprint_hash",
    "noise_verdict",
]
