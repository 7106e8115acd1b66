"""Budgets as people write them: a share of the full network's cost, MACs or seconds."""

from __future__ import annotations

from distreal_dse.errors import InputError
from distreal_dse.fronts._front import Front

# The longer ones first: text that ends in ms ends in s too.
_SECONDS = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "s": 1.0}
_MACS = {"k": 1e3, "M": 1e6, "G": 1e9}
_EXAMPLES = {"latency": "12ms", "macs": "1.2M"}


def read_budget(text: str, front: Front) -> float:
    """Read a budget: ``40%`` of the full network's cost, or a number in the front's cost unit.

    MACs may end in k, M or G, seconds in s, ms or us.

    Raises
    ------
    InputError
        If it is neither, or less than one MAC, by which a share must be meant.
    """
    units = _SECONDS if front.cost_metric == "latency" else _MACS
    suffixes = {"%": front.reference_cost / 100, **units}
    suffix = next((one for one in suffixes if text.endswith(one)), "")
    try:
        value = float(text.removesuffix(suffix)) * suffixes.get(suffix, 1.0)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise InputError(
            f"budget '{text}': expected a share of the full network's cost such as 40%, or "
            f"a number > 0 of {front.cost_unit} such as {_EXAMPLES[front.cost_metric]}"
        )
    if value < 1 and not suffix and front.cost_metric == "macs":
        raise InputError(
            f"budget '{text}', which is less than one MAC: expected MACs such as "
            f"{_EXAMPLES['macs']} or a share with a %; did you mean {100 * value:g}%?"
        )
    return value
