"""What the data show, in words and with its uncertainty: titles and text alternatives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from distreal_dse.fronts import Front, verdict_of
from fl.store.runs import Run

# A difference counts from two standard errors on (about 95 % where errors are normal).
NOISE = 2.0


@dataclass(frozen=True)
class TrialPoint:
    """A dropout vector that was tried.

    Parameters
    ----------
    cost
        Training cost in the unit of the front, ≥ 0.
    convergence
        Mean improvement of the validation loss by a short run.
    uniform
        Whether all groups have one rate.
    standard_error
        Of the convergence.
    number
        Of the trial; None where there was none.
    rates, kept_counts
        Of each channel group; empty where they are not known.
    accuracy
        Mean validation accuracy after the short run, in [0, 1].
    """

    cost: float
    convergence: float
    uniform: bool
    standard_error: float = 0.0
    number: int | None = None
    rates: tuple[float, ...] = ()
    kept_counts: tuple[int, ...] = ()
    accuracy: float | None = None


def plain(text: str) -> str:
    """A text from outside without characters that steer how others are shown, e.g. backwards."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def percent(share: float) -> str:
    """A share for people: two digits below 10 %, whole numbers above, e.g. ``4.2%`` or ``16%``."""
    value = 100 * share
    return f"{value:.2g}%" if value < 9.95 else f"{value:.0f}%"


def counted(number: int, what: str) -> str:
    """A number of things, e.g. ``1 run`` or ``2 runs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def moment(text: str) -> str:
    """A stored time for people, e.g. ``31 Jan 2026, 12:00 UTC``; one that isn't stays as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    # One without a zone is UTC, as all that we write.
    time = time.astimezone(UTC) if time.tzinfo else time
    return f"{time.day} {time:%b %Y, %H:%M} UTC"


def si_prefix(largest: float) -> tuple[float, str]:
    """Factor and sign of the SI prefix that the largest of some numbers is read best with.

    Plotly would put a prefix of its own before a unit that has one, as in ``700µ TMACs``.
    """
    for factor, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= factor:
            return factor, sign
    return 1.0, ""


def cost_text(front: Front, cost: float) -> str:
    """A cost without its unit: whole MACs, or seconds to four digits."""
    return f"{cost:,.0f}" if front.cost_metric == "macs" else f"{cost:.4g}"


def uniform_family(front: Front, trials: Iterable[TrialPoint] = ()) -> tuple[TrialPoint, ...]:
    """The vectors with one rate for all layers, by cost.

    A front of a search holds the verified values of the family in its settings; without them, those
    trials speak that are uniform.
    """
    try:
        verified = [
            TrialPoint(
                cost=float(entry["cost"]),
                convergence=float(entry["convergence"]),
                uniform=True,
                standard_error=float(entry["standard_error"]),
                rates=(float(entry["rate"]),) * len(front.groups),
            )
            for entry in front.settings["uniform family"]
        ]
    except (KeyError, TypeError, ValueError):  # settings are free, e.g. of an imported front
        verified = []
    family = [point for point in verified or trials if point.uniform]
    finite = (p for p in family if math.isfinite(p.cost + p.convergence + p.standard_error))
    return tuple(sorted(finite, key=lambda point: point.cost))


def front_finding(front: Front) -> str:
    """The greatest certain saving over one rate for all layers, as a sentence."""
    verdict = verdict_of(front)
    if verdict is not None and verdict.savings:
        return verdict.sentence()
    cheap, dear = front.points[0].cost, front.points[-1].cost
    what = "training cost" if front.cost_metric == "macs" else "training time"
    return (
        f"{counted(len(front.points), 'dropout vector')} from "
        f"{percent(cheap / front.reference_cost)} to {percent(dear / front.reference_cost)} of "
        f"the {what}"
    )


def run_label(run: Run) -> str:
    """Strategy, front and number of a run, e.g. ``distreal · digits@1 · run 3``."""
    return " · ".join(part for part in (run.strategy, run.front_label, f"run {run.id}") if part)


def evaluated_on(runs: Iterable[Run]) -> str:
    """What the accuracies of runs are on: ``test``, ``validation``, or both."""
    return " and ".join(sorted({run.evaluated_on for run in runs}))


def accuracy_curve(run: Run) -> list[tuple[int, float, float]]:
    """Round, virtual seconds and accuracy of the rounds that were evaluated."""
    return [
        (result.round, result.virtual_seconds, result.accuracy)
        for result in run.rounds
        if result.accuracy is not None
    ]


def accuracy_finding(runs: Sequence[Run]) -> str:
    """Where the runs stand at the last virtual time that all of them have reached."""
    curves = {run_label(run): curve for run in runs if (curve := accuracy_curve(run))}
    if not curves:
        return "No round was evaluated"
    until = min(curve[-1][1] for curve in curves.values())
    reached = {
        label: [accuracy for _, seconds, accuracy in curve if seconds <= until][-1:]
        for label, curve in curves.items()
    }
    scores = {label: score[0] for label, score in reached.items() if score}
    best = max(scores, key=lambda label: scores[label])
    others = sorted(score for label, score in scores.items() if label != best)
    text = f"After {until:.3g} virtual seconds {best} has an accuracy of {scores[best]:.1%}"
    if others:
        ends = dict.fromkeys(f"{score:.1%}" for score in (others[0], others[-1]))
        text += f", the other{'s' if len(others) > 1 else ''} {' to '.join(ends)}"
    return text
