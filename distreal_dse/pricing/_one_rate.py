"""Networks of one rate, timed beside a front, so that vectors that nobody timed have a price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distreal_dse.cost import LatencySamples, StepTimer
from distreal_dse.dropout import ChannelGroup, KeptCounts, kept_counts
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import Front

ONE_RATE = "one rate"
"""The name, among the latencies of a front, under which `one_rate_setting` is stored."""

# Shares of each layer's filters: those of HeteroFL's and FedRolex's levels, with as many between
# them that a device finds one for its budget; then FjORD's.
SHARES = (*(part / 16 for part in range(1, 16)), *(part / 5 for part in range(1, 5)))
# What a group keeps at least.
NEXT_TO_NOTHING = 2.0**-40


def one_rate_knots(groups: Sequence[ChannelGroup], granularity: int) -> tuple[KeptCounts, ...]:
    """Kept counts of one rate to measure: `SHARES`, and the narrowest; not the full network.

    Parameters
    ----------
    groups, granularity
        As for `kept_counts`.
    """
    shares = (NEXT_TO_NOTHING, *SHARES)
    found = [kept_counts([1 - share] * len(groups), groups, granularity) for share in shares]
    full = tuple(group.channels for group in groups)
    return tuple(counts for counts in dict.fromkeys(found) if counts != full)


def timeable(
    timer: StepTimer, full_counts: KeptCounts, vectors: Iterable[KeptCounts]
) -> tuple[KeptCounts, ...]:
    """Leave out those whose training step fails, cut out of the full network or alone."""
    found = []
    for counts in vectors:
        try:
            timer.measure([counts], 1, LatencySamples(full_counts), alone=[counts])
        except DistrealError:  # the study's model may be too picky for some widths
            continue
        found.append(counts)
    return tuple(found)


def one_rate_setting(samples: LatencySamples, knots: Sequence[KeptCounts]) -> Mapping[str, Any]:
    """Return what the settings of a front keep of its knots, for `seconds_of`.

    Parameters
    ----------
    samples
        Of the knots, cut out of the full network and alone.
    knots
        From `one_rate_knots`.
    """
    alone = samples.latencies(knots, alone=True).vectors
    return {"cut": [[*counts] for counts in knots], "alone": [one.as_json() for one in alone]}


def granularity_of(front: Front) -> int:
    """Return the granularity that a front was searched with; 1 where that is not known."""
    found = front.settings.get("granularity", 1)
    return found if isinstance(found, int) and found >= 1 else 1
