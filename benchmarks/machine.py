"""Settings that make timings of this process repeatable."""

from __future__ import annotations

import ctypes
import ctypes.util

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def settle() -> dict[str, str]:
    """Use one thread, and keep freed memory; return what was set, for the figures' settings.

    By default the C library gives freed memory back to the system and takes it again page by
    page: thousands of page faults in one training step and none in the next, whatever it trains.
    """
    torch.set_num_threads(1)
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    kept = mallopt is not None and all(
        mallopt(option, value)
        for option, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_THRESHOLD, 32 << 20))
    )
    return {"threads": "1", "freed memory": "kept" if kept else "as the system does"}
