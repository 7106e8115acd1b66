"""Budgets on a real device, from what it has free and how long its steps really take."""

from fl.live.budget import LiveBudget
from fl.live.load import CpuLoad, LoadMonitor

__all__ = ["CpuLoad", "LiveBudget", "LoadMonitor"]
