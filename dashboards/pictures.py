"""All pictures of a front, a comparison or runs: figure, words and table of each, in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboards.comparison import (
    accuracy_table,
    band_meaning,
    comparison_figure,
    time_figure,
    work_table,
)
from dashboards.costs import (
    breakdown_figure,
    breakdown_finding,
    cost_breakdown,
    latency_figure,
    latency_finding,
    timed_vectors,
)
from dashboards.differences import comparison_finding, difference_table, differences_of
from dashboards.figures import accuracy_figure, front_figure
from dashboards.findings import (
    TrialPoint,
    accuracy_curve,
    accuracy_finding,
    cost_text,
    counted,
    front_finding,
    percent,
    run_label,
    uniform_family,
)
from dashboards.heatmaps import rates_figure
from dashboards.lines import by_network, lines_of
from dashboards.markup import table
from dashboards.progress import progress_figure, progress_finding, search_progress
from dashboards.side_by_side import (
    budget_table,
    front_table,
    side_by_side_caption,
    side_by_side_figure,
    side_by_side_finding,
    side_by_side_text,
    vector_table,
)
from dashboards.work import (
    subject_of,
    use_figure,
    use_finding,
    vector_use,
    waste_figure,
    waste_finding,
)
from distreal_dse.fronts import (
    Front,
    StoredLatency,
    channel_counts,
    curve_hypervolume,
    memory_text,
    verdict_of,
)
from fl.compare.summaries import summarise
from fl.store.runs import Run


@dataclass(frozen=True)
class Picture:
    """A figure with all that makes it readable.

    Parameters
    ----------
    name
        For files: letters, digits and ``- _ . +``.
    figure
        Titled with its finding.
    heading
        The finding, for where the title can't wrap.
    text
        What it shows, for people who can't see it.
    caption
        What has to be known to read it.
    tables
        Its numbers, as HTML.
    folded
        Whether the tables are long and say little that the figure doesn't.
    summaries
        Of the folded tables, where they need words of their own.
    """

    name: str
    figure: go.Figure
    heading: str
    text: str
    caption: str
    tables: tuple[str, ...] = ()
    folded: bool = False
    summaries: tuple[str, ...] = ()


def pictures(
    fronts: Sequence[tuple[Front, Sequence[TrialPoint]]],
    runs: Sequence[Run] = (),
    latencies: Sequence[StoredLatency] = (),
) -> list[Picture]:
    """All pictures of a report (see `write_report`), in its order."""
    found = side_by_side_pictures([front for front, _ in fronts])
    found += [one for front, trials in fronts for one in front_pictures(front, trials, latencies)]
    for name in dict.fromkeys(run.comparison for run in runs if run.comparison is not None):
        found += comparison_pictures(name, [run for run in runs if run.comparison == name])
    alone = [run for run in runs if run.comparison is None]
    return found + (run_pictures(alone) if alone else [])


def side_by_side_pictures(fronts: Sequence[Front]) -> list[Picture]:
    """A picture for each network that two or more fronts are of."""
    found: list[Picture] = []
    for own in by_network(fronts):
        lines = lines_of(own)
        name = file_name(f"side-by-side-{own[0].study}")
        if any(one.name == name for one in found):  # two networks by the options of one study
            name = f"{name}-{len(found) + 1}"
        vectors = vector_table(own)
        found.append(
            Picture(
                name,
                side_by_side_figure(lines),
                side_by_side_finding(lines),
                side_by_side_text(lines),
                side_by_side_caption(lines),
                (budget_table(lines), *filter(None, (vectors,)), front_table(lines)),
                summaries=(*(["The same vectors in different costs"] if vectors else []),
                           "The fronts"),
            )
        )  # fmt: skip
    return found


def front_pictures(
    front: Front, trials: Sequence[TrialPoint] = (), latencies: Sequence[StoredLatency] = ()
) -> list[Picture]:
    """The pictures of a front, those left out whose data are not known.

    Parameters
    ----------
    front
        The front.
    trials
        Of its search.
    latencies
        Measurements; those of other networks are left out.
    """
    label = file_name(front.label.replace("@", "-v"))
    found = [_front(label, front, trials), _rates(label, front)]
    if (breakdown := cost_breakdown(front)) is not None:
        heads = [_share(front, point.cost) for point in front.points] + ["full"]
        rows = [
            (name, *(f"{macs:,.0f}" for macs in row))
            for name, row in zip(breakdown.layers, breakdown.macs, strict=True)
        ]
        found.append(
            Picture(
                f"{label}-layers",
                breakdown_figure(front, breakdown),
                breakdown_finding(breakdown),
                f"Heat map of the share of {counted(len(rows), 'layer')} in the training MACs of "
                f"{counted(len(front.points), 'point')} of the front and of the full network.",
                "Darker: a larger share. The numbers are per cent of the MACs of the vector in the "
                "column, forward and backward; cells that are too small have none.",
                (table("Training MACs per sample, by layer", ("layer", *heads), rows, text={0}),),
                folded=True,
            )
        )
    progress = search_progress(trials, front.reference_cost, front.cost_metric, front.settings)
    if progress is not None:
        rises = [
            i
            for i, area in enumerate(progress.hypervolumes)
            if i == 0 or area > progress.hypervolumes[i - 1]
        ]
        rows = [
            (str(i + 1), f"{progress.spent[i]:.4g}", f"{progress.hypervolumes[i]:.3f}")
            for i in rises
        ]
        found.append(
            Picture(
                f"{label}-search",
                progress_figure(progress, front),
                progress_finding(progress, front),
                f"Line chart of the hypervolume of the trials so far over the training that they "
                f"cost, up to {progress.hypervolumes[-1]:.3f} after {progress.spent[-1]:.3g} "
                f"{progress.unit}.",
                "Trials are selected on noise, so their hypervolume may lie above that of the "
                "front, which was measured again. Failed trials and verification are not counted.",
                (
                    table(
                        "Vectors at which the hypervolume rose",
                        ("vectors", progress.unit, "hypervolume"),
                        rows,
                    ),
                ),
                folded=True,
            )
        )
    timed = timed_vectors(front, latencies)
    if timed:
        noun = channel_counts(front).noun
        rows = [
            (
                one.device,
                percent(one.macs),
                f"{percent(one.time)} ({percent(one.time_low)} … {percent(one.time_high)})",
                f"{1000 * one.seconds:.4g}",
                "-".join(map(str, one.kept)),
            )
            for one in timed
        ]
        found.append(
            Picture(
                f"{label}-latency",
                latency_figure(timed),
                latency_finding(timed),
                f"Scatter plot of the time of a training step against its MACs for "
                f"{counted(len(timed), 'measured vector')}. The numbers are in the table below.",
                "Bars are quartiles of the ratio to steps of the full network nearby. Above the "
                "dotted line, a vector takes longer than its MACs promise.",
                (
                    table(
                        "Measured training steps",
                        ("device", "MACs", "time (quartiles)", "ms", f"kept {noun}"),
                        rows,
                        text={0, 4},
                    ),
                ),
                folded=True,
            )
        )
    return found


def comparison_pictures(name: str, runs: Sequence[Run]) -> list[Picture]:
    """The pictures of a comparison.

    Parameters
    ----------
    name
        Of the comparison.
    runs
        Its runs; empty is what comes back where none was evaluated.
    """
    evaluated = [run for run in runs if accuracy_curve(run)]
    if not evaluated:
        return []
    label = file_name(f"comparison-{name}")
    summaries, target = summarise(evaluated)
    differences = differences_of(evaluated)
    tables = [accuracy_table(summaries, target)]
    if differences:
        tables.append(difference_table(differences))
    seeds = sorted({len(one.seeds) for one in summaries})
    ends = ", ".join(f"{one.strategy} {one.settled_accuracy.mean:.1%}" for one in summaries)
    unfinished = sum(not run.finished for run in runs)
    caption = _lines_and_bands(seeds)
    if unfinished:
        caption += f" Not finished: {unfinished} of {counted(len(runs), 'run')}" + (
            ", which are left out." if unfinished < len(runs) else "."
        )
    found = [
        Picture(
            label,
            comparison_figure(evaluated),
            comparison_finding(evaluated),
            f"Line chart of accuracy over virtual time by strategy. Settled accuracies: {ends}.",
            caption,
            tuple(tables),
        ),
        Picture(
            f"{label}-time",
            time_figure(summaries, target),
            f"Virtual time to {target:.0%} accuracy",
            "Bar chart of the virtual time that each strategy takes to the target accuracy. "
            "The numbers are in the table above.",
            "Means over the seeds, where all of them reach it.",
        ),
    ]
    found += _use(label, evaluated)
    found.append(
        Picture(
            f"{label}-work",
            waste_figure(summaries),
            waste_finding(summaries),
            "Bar chart of the training of all devices by strategy, in two parts: merged into the "
            "average, and wasted. The numbers are in the table below.",
            "Wasted is the training of devices whose update was not merged: they missed the "
            "deadline, were too many, or could not be trusted. Means over the seeds.",
            (work_table(summaries),),
        )
    )
    return found


def run_pictures(runs: Sequence[Run]) -> list[Picture]:
    """The pictures of runs that belong to no comparison."""
    curves = [(run_label(run), accuracy_curve(run)) for run in runs]
    text = "Line chart of accuracy over virtual time. " + " ".join(
        f"{label} goes from {curve[0][2]:.1%} to {curve[-1][2]:.1%} in {curve[-1][1]:.3g} s."
        for label, curve in curves
        if curve
    )
    rows = (
        (str(number), f"{seconds:.4g}", f"{accuracy:.1%}", label)
        for label, curve in curves
        for number, seconds, accuracy in curve
    )
    heads = ("round", "virtual s", "accuracy", "run")
    return [
        Picture(
            "accuracy",
            accuracy_figure(runs),
            accuracy_finding(runs),
            text,
            "One line is one run with one seed: the chart can't tell a better strategy from a "
            "luckier seed; compare several seeds of each.",
            (table("Evaluated rounds", heads, rows, text={3}),),
        ),
        *_use("runs", runs),
    ]


def _lines_and_bands(seeds: Sequence[int]) -> str:
    """What the lines and bands of `comparison_figure` are, where strategies have so many seeds."""
    if seeds[-1] == 1:
        return "Each line is a run with a single seed."
    span = f"{seeds[0]} to " if len(seeds) > 1 else ""
    return f"Lines are means over {span}{counted(seeds[-1], 'seed')}, bands {band_meaning(seeds)}."


def file_name(name: str) -> str:
    """A name from outside, as part of the name of a file."""
    return re.sub(r"[^\w.+-]+", "_", name)[:100] or "_"


def _front(label: str, front: Front, trials: Sequence[TrialPoint]) -> Picture:
    family = uniform_family(front, trials)
    first, last = front.points[0], front.points[-1]
    text = (
        f"Scatter plot of convergence against training cost. The verified front has "
        f"{counted(len(front.points), 'point')}, from a gain of {first.convergence:.2f} at "
        f"{_share(front, first.cost)} of the full network's cost to {last.convergence:.2f} at "
        f"{_share(front, last.cost)}. The numbers are in the table below."
    )
    caption = (
        f"Bars are ± one standard error over {counted(first.replicates, 'short run')} with fresh "
        f"seeds. Hypervolume of the front: {front.hypervolume:.3f}"
    )
    if family:
        area = curve_hypervolume(((p.cost, p.convergence) for p in family), front.reference_cost)
        caption += f"; of the curve through one rate for all layers: {area:.3f}"
    verdict = verdict_of(front)
    details = f" {verdict.details()}" if verdict is not None and verdict.savings else ""
    return Picture(
        f"{label}-front",
        front_figure(front, trials),
        front_finding(front),
        text,
        f"{caption}.{details}",
        (_front_table(front), _uniform_table(front, family)),
    )


def _rates(label: str, front: Front) -> Picture:
    noun = channel_counts(front).noun
    return Picture(
        f"{label}-rates",
        rates_figure(front),
        "Which layers the vectors thin out",
        f"Heat map of the dropout rate of {counted(len(front.groups), 'channel group')} at "
        f"{counted(len(front.points), 'point')} of the front. The kept {noun} are "
        "in the table above.",
        f"Darker: more dropped. The numbers are the {noun} kept; cells that are too small have "
        "none.",
    )


def _use(label: str, runs: Sequence[Run]) -> list[Picture]:
    subject = subject_of(runs)
    uses = vector_use(subject)
    if not uses:
        return []
    strategy = subject[0].strategy
    rows = [
        (
            use.name,
            percent(use.mean),
            f"{percent(min(use.low))} … {percent(max(use.high))}",
            f"{use.mini_batches:,}",
            f"{use.over_budget:,}",
        )
        for use in uses
    ]
    return [
        Picture(
            f"{label}-vectors",
            use_figure(strategy, uses),
            use_finding(strategy, uses),
            "Line chart of the mean cost of the vectors that devices trained with over virtual "
            "time, by class of device. The averages are in the table below.",
            "Means over mini-batches, devices and seeds in equal intervals of time; bands are "
            "the quartiles of the devices' rounds.",
            (
                table(
                    f"Vectors used by {strategy}, by class of device",
                    ("class", "mean cost", "quartiles", "mini-batches", "over budget"),
                    rows,
                    text={0},
                ),
            ),
        )
    ]


def _front_table(front: Front) -> str:
    channels = channel_counts(front)
    widths = channels.text([group.channels for group in front.groups])
    return table(
        f"Points of the verified front, the cheapest first; {channels.noun} kept of {widths}",
        (
            "of full",
            "gain (nats)",
            "accuracy",
            "memory",
            f"kept {channels.noun}",
            "one rate",
            front.cost_unit,
        ),
        (
            (
                _share(front, point.cost),
                f"{point.convergence:.3f} ± {point.standard_error:.3f}",
                f"{point.accuracy:.1%}",
                memory_text(point.memory),
                channels.text(point.kept_counts),
                "yes" if point.uniform else "",
                cost_text(front, point.cost),
            )
            for point in front.points
        ),
        text={4, 5},
    )


def _uniform_table(front: Front, family: Sequence[TrialPoint]) -> str:
    return table(
        "One rate for all layers, the cheapest first",
        ("of full", "gain (nats)", "rate", front.cost_unit),
        (
            (
                _share(front, point.cost),
                f"{point.convergence:.3f} ± {point.standard_error:.3f}",
                f"{point.rates[0]:.3f}" if point.rates else "",
                cost_text(front, point.cost),
            )
            for point in family
        ),
    )


def _share(front: Front, cost: float) -> str:
    return percent(cost / front.reference_cost)
