"""What a comparison shows: differences by seed, and words that their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dashboards.markup import table
from distreal_dse.support.specs import name_of
from fl.compare.paired import Difference, paired_differences, reference_strategy
from fl.compare.summaries import comparable, summarise
from fl.store.runs import Run


def differences_of(runs: Sequence[Run]) -> list[Difference]:
    """Return how far strategies are from ``small``, else from the first; see `fl.compare.paired`.

    Parameters
    ----------
    runs
        Of one comparison, with at least one evaluation each.
    """
    return paired_differences(runs, reference_strategy(list(comparable(runs)), None))


def comparison_finding(runs: Sequence[Run]) -> str:
    """What the comparison shows, in a sentence that says no more than its intervals.

    It is about ``distreal``, or else about the strategy that `differences_of` takes differences
    to: intervals would not hold for one that is chosen because it came out best.

    Parameters
    ----------
    runs
        As for `differences_of`.
    """
    summaries, _ = summarise(runs)
    means = {one.strategy: one.settled_accuracy.mean for one in summaries}
    best = max(means, key=means.__getitem__)
    if len(means) == 1:
        return f"{best} settles at {means[best]:.1%}"
    named = [one for one in means if name_of(one) == "distreal"]
    own = max(named, key=means.__getitem__) if named else reference_strategy(list(means), None)
    text = f"{best} has the highest mean settled accuracy, {means[best]:.1%}"
    pairs = paired_differences(runs, own)
    if best == own:
        if not any(_is_bounded(one) for one in pairs):
            return f"{text}, {_UNBOUNDED}"
        behind = sum(one.verdict == "behind" for one in pairs)
        return f"{text}, and is ahead of {behind} of {len(pairs)} others"
    text += f", {own} {means[own]:.1%}"
    difference = next((one for one in pairs if one.strategy == best), None)
    if difference is None or not _is_bounded(difference):
        return f"{text}, {_UNBOUNDED}"
    found = difference.settled_accuracy
    points = f"{100 * found.low:+.1f} … {100 * found.high:+.1f} points"
    return f"{text}: {_WORDS[difference.verdict].format(best)} ({points}, paired by seed)"


def difference_table(differences: Sequence[Difference]) -> str:
    """Points of settled accuracy over one strategy, the largest first, as HTML."""
    rows = []
    for one in sorted(differences, key=lambda one: -one.settled_accuracy.mean):
        found = one.settled_accuracy
        interval = "one seed"
        if _is_bounded(one):
            interval = f"{100 * found.low:+.1f} … {100 * found.high:+.1f}"
        rows.append(
            (
                one.strategy,
                f"{100 * found.mean:+.1f}",
                interval,
                str(len(one.seeds)),
                one.verdict,
            )
        )
    return table(
        f"Points of settled accuracy over {differences[0].against}, paired by seed, 95 % "
        "confidence for all of them together: ahead or behind where the interval excludes zero, "
        "level where it lies within a point of it, else open",
        ("strategy", "difference", "interval", "seeds", "verdict"),
        rows,
        text={0, 4},
    )


def _is_bounded(one: Difference) -> bool:
    return not math.isnan(one.settled_accuracy.low)


# Of fewer seeds there is no interval.
_UNBOUNDED = "without two seeds that both have finished"
_WORDS = {
    "ahead": "{} is ahead",
    "behind": "{} is behind",
    "level": "they are level",
    "open": "who is ahead is open",
}
