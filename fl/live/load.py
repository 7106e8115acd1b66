"""How busy the processor is with other programs."""

from __future__ import annotations

import time
from typing import Protocol

import psutil


class LoadMonitor(Protocol):
    """Says how much slower than on an idle device a step is to be expected."""

    def slowdown(self, interval: float = 0.0) -> float:
        """Return the factor, ≥ 1; see `CpuLoad.slowdown`."""


class CpuLoad:
    """What other programs leave of the cores that this process may use.

    Parameters
    ----------
    threads
        With which this process trains, ≥ 1.
    """

    def __init__(self, threads: int = 1) -> None:
        self._process = psutil.Process()
        self._threads = threads
        self._last = self._read()

    def cores(self) -> list[int]:
        """Return the cores that this process may run on; all, where the system does not say."""
        if hasattr(self._process, "cpu_affinity"):  # not on macOS
            return list(self._process.cpu_affinity())
        return list(range(psutil.cpu_count() or 1))

    def others(self, interval: float = 0.0) -> float:
        """Return how many cores other programs kept busy on average, among those of `cores`.

        Parameters
        ----------
        interval
            Seconds to wait and measure for. 0 measures since the last call; systems count in
            hundredths of a second, so that shorter intervals than some tenths say little.
        """
        if interval:
            self._last = self._read()
            time.sleep(interval)
        (before, idle_before, own_before), self._last = self._last, self._read()
        now, idle, own = self._last
        passed = max(now - before, 1e-9)
        return max(0.0, len(self.cores()) - (idle - idle_before + own - own_before) / passed)

    def slowdown(self, interval: float = 0.0) -> float:
        """Return by what factor a step takes longer than on an idle device, ≥ 1.

        Of a fair scheduler: where b cores' worth of other work and t threads want n cores, each
        gets n / (b + t) of one, and no more than one. Other work that waits for a core is not
        seen, and neither are limits of a container, caches or clock frequencies: that is what
        measured steps are for.
        """
        wanted = self.others(interval) + self._threads
        return max(1.0, wanted / max(len(self.cores()), self._threads))

    def _read(self) -> tuple[float, float, float]:
        """Time, idle time of the cores, and processor time of this process, in seconds."""
        every = psutil.cpu_times(percpu=True)
        idle = sum(
            every[core].idle + getattr(every[core], "iowait", 0.0)  # waiting leaves a core free
            for core in self.cores()
        )
        own = self._process.cpu_times()
        return time.monotonic(), idle, own.user + own.system
