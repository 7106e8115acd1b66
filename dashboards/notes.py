"""Notes on studies and trials in optuna-dashboard, as Markdown that shows foreign text literally.

optuna-dashboard shows no HTML of notes; foreign text goes into code spans, in which Markdown has no
meaning either.
"""

from __future__ import annotations

import re

from dashboards.findings import cost_text, counted, front_finding, percent, plain
from distreal_dse.fronts import Front, FrontPoint, channel_counts, memory_text
from distreal_dse.search import StoredSearch

# Ends our part of a note; what people write below it stays when ours is written anew.
END = "*Written by distreal-dse. What you write below this line stays.*"


def code(text: str) -> str:
    """A text from outside as a code span."""
    shown = plain(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if shown.strip() else "(empty)"


def cell(text: str) -> str:
    """The same in a table, whose cells a bar would end even in a code span."""
    return code(text).replace("|", "\\|")


def merged(old: str, new: str) -> str | None:
    """Our new note with what people wrote below the old one.

    None where the old note isn't ours any more: then it is left alone.
    """
    if old and END not in old:
        return None
    _, _, theirs = old.partition(END)
    return f"{new.rstrip()}\n\n{END}{theirs}"


def study_note(search: StoredSearch, front: Front | None) -> str:
    """What a study is, what came of it, and what to do with that."""
    lines = [f"## Search {code(search.name)}", ""]
    # Of a study without a description, "name: " is stored.
    about = search.about.strip().removesuffix(":")
    lines += [f"Dropout vectors of {code(about)}, searched by distreal-dse.", ""]
    tried = counted(search.curves or len(search.tried), "trial")
    failed = f", {search.failed} failed" if search.failed else ""
    if front is None:
        lines += [f"**Under way**: {tried}{failed}. The front is verified when the search ends."]
    else:
        uniform = front.uniform_hypervolume
        beside = "" if uniform is None else f"; the curve of one rate for all layers {uniform:.3f}"
        lines += [
            f"**{front_finding(front)}.**",
            "",
            f"From {tried}{failed} came front {code(front.label)}: "
            f"{counted(len(front.points), 'point')}, measured again with fresh seeds, "
            f"hypervolume {front.hypervolume:.3f}{beside}.",
            "",
            "```console",
            f"$ distreal-dse front show {front.label}",
            f"$ distreal-dse lookup {front.label} --budget 20%",
            f"$ distreal-dse front export {front.label} front.json",
            f"$ distreal-dse report {front.label} --out report.html",
            "```",
            "",
            "(With `--storage URL` where the database is not `distreal.db`.)",
        ]
    channels = search.channels
    if front is not None and channels.per_unit is None:  # of a search by an earlier version
        channels = channel_counts(front)
    widths = channels.of([group.channels for group in search.groups])
    lines += [
        "",
        _values(search),
        "",
        f"| channel group | {channels.noun} |",
        "| --- | ---: |",
        *(
            f"| {cell(group.name)} | {width} |"
            for group, width in zip(search.groups, widths, strict=True)
        ),
    ]
    return "\n".join(lines)


def _values(search: StoredSearch) -> str:
    """What the values of trials are."""
    if search.fleet:
        return (
            f"Trials are tables for the fleet {code(search.fleet)}: at a scale s, a channel group "
            "keeps the share s to the power of its elasticity. The value is what the logarithm of "
            "the full network's validation loss is below that with one rate for all layers, after "
            "short runs in which the fleet trains with the table (higher is better)."
        )
    first = "training MACs per sample" if search.cost_metric == "macs" else "seconds per mini-batch"
    return (
        f"Value 0 is the cost ({first}, lower is better). Value 1 is what the validation loss of "
        "the full network falls by in a short run (nats, higher is better), a mean over "
        "replicates, the luck that all vectors share in a replicate taken away. What is clearly "
        "worse than others has one replicate. Parameters are kept shares of channel groups "
        "(`level` and `offset`, in trials of earlier versions, add up to the rate)."
    )


def trial_note(search: StoredSearch, front: Front, point: FrontPoint) -> str:
    """Which point of which front came of a trial."""
    position, channels = front.points.index(point) + 1, channel_counts(front)
    share = point.cost / front.reference_cost
    own = next((one for one in search.tried if one.number == point.trial), None)
    found = "" if own is None else f" The trial itself found {own.convergence:.3f}."
    known = point.memory is not None
    memory = f" A training step takes {memory_text(point.memory)} of memory." if known else ""
    return "\n".join(
        (
            f"**Point {position} of {len(front.points)} of front {code(front.label)}**, by rising "
            "cost.",
            "",
            f"Cost {cost_text(front, point.cost)} {front.cost_unit}, {percent(share)} of the full "
            f"network. Verified with fresh seeds: gain {point.convergence:.3f} ± "
            f"{point.standard_error:.3f} nats over "
            f"{counted(point.replicates, 'short run')}, accuracy {point.accuracy:.1%}."
            f"{found}{memory}",
            "",
            f"{channels.noun.capitalize()} kept: {code(channels.text(point.kept_counts))}",
        )
    )
