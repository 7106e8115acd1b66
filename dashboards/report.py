"""One HTML file with all figures and numbers: works offline, loads nothing, runs no foreign text.

Text is escaped wherever it enters the page. A Content-Security-Policy in the page has the browser
refuse whatever would be loaded from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from string import Template

from plotly.offline import get_plotlyjs

from dashboards.comparison import comparison_section
from dashboards.figures import accuracy_figure, front_figure, rates_figure
from dashboards.findings import (
    NOISE,
    TrialPoint,
    accuracy_curve,
    accuracy_finding,
    cost_text,
    front_finding,
    percent,
    run_label,
    savings,
    uniform_family,
)
from dashboards.markup import details, escaped, fact_list, figure_card, table
from distreal_dse.errors import InputError
from distreal_dse.files import write_whole
from distreal_dse.fronts import Front, curve_hypervolume, utc_now
from fl.runs import Run

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';\
 style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="faint">Made $created. Point at the figures or zoom in; the tables
hold the numbers of fronts and runs.</p>
</header>
<noscript><p>The figures need JavaScript; the tables do not.</p></noscript>
<main>
$sections
</main>
<script>$plotly</script>
<script>
// A finger that drags is to scroll the page, and a phone has no room for buttons.
const touch = matchMedia("(hover: none), (max-width: 480px)").matches;
for (const chart of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(chart.nextElementSibling.textContent);
  const layout = touch ? {...figure.layout, dragmode: false} : figure.layout;
  Plotly.newPlot(chart, figure.data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });
}
</script>
</body>
</html>
""")

_STYLE = """
:root { --ink: #1f2933; --faint: #5b6770; --line: #d9dee3; --page: #f5f7f9; --card: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --faint: #9fabb5; --line: #36414b; --page: #12181d; --card: #1b232a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 0; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; }
dl + h3 { margin-top: 1rem; }
figcaption { margin-top: .6rem; }
h1, h2, h3, p, td, dd, li { overflow-wrap: anywhere; }
.faint, figcaption { color: var(--faint); font-size: .9rem; }
.card { margin: 1rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
/* Figures keep their light paper in the dark: their colours are chosen for it. */
.chart { margin: 0 -.5rem; padding: .25rem 0; background: #fff; border-radius: .4rem;
  overflow: hidden; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid #0072b2; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .35rem; }
th, td { padding: .25rem .6rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
td.text, th.text { text-align: left; }
summary { cursor: pointer; font-weight: 600; }
details > * + * { margin-top: .5rem; }
dl { display: grid; grid-template-columns: minmax(6rem, auto) 1fr; gap: .2rem 1rem; margin: 0;
  font-size: .85rem; }
dt { color: var(--faint); overflow-wrap: anywhere; }
dd { margin: 0; min-width: 0; }
@media (max-width: 480px) { body { padding: .6rem; } .card { padding: .7rem; } }
"""


def write_report(
    path: str | os.PathLike[str],
    fronts: Sequence[tuple[Front, Sequence[TrialPoint]]],
    runs: Sequence[Run] = (),
) -> None:
    """Write fronts and runs as one self-contained HTML file, whole or not at all.

    Parameters
    ----------
    path
        The file; replaced where it is there.
    fronts
        Each front with the trials of its search, as far as they are known.
    runs
        Federated runs. Those of a comparison are drawn together by strategy, all others in one
        figure.

    Raises
    ------
    InputError
        Where there is nothing to show, or the file can't be written.
    """
    if not fronts and not runs:
        raise InputError("report: expected at least one front or run, found none; name one")
    sections = [_front_section(front, trials) for front, trials in fronts]
    alone = [run for run in runs if run.comparison is None]
    compared = list(dict.fromkeys(run.comparison for run in runs if run.comparison is not None))
    for name in compared:
        sections.append(comparison_section(name, [run for run in runs if run.comparison == name]))
    if alone:
        sections.append(_runs_section(alone))
    names = [front.label for front, _ in fronts] + compared
    names += [f"{len(alone)} runs"] if alone else []
    page = _PAGE.substitute(
        title=escaped(f"distreal-dse: {', '.join(names)}"),
        created=escaped(utc_now()),
        style=_STYLE,
        sections="\n".join(sections),
        plotly=get_plotlyjs(),
    )
    write_whole(path, page, "the report")


def _front_section(front: Front, trials: Sequence[TrialPoint]) -> str:
    finding = front_finding(front, trials)
    family = uniform_family(front, trials)
    first, last = front.points[0], front.points[-1]
    drawn = front_figure(front, trials)
    text = (
        f"Scatter plot of convergence against training cost. The verified front has "
        f"{len(front.points)} points, from a gain of {first.convergence:.2f} at "
        f"{_share(front, first.cost)} of the full network's cost to {last.convergence:.2f} at "
        f"{_share(front, last.cost)}. The numbers are in the table below."
    )
    caption = (
        f"Bars are ± one standard error over {first.replicates} short runs with fresh seeds. "
        f"Hypervolume of the front: {front.hypervolume:.3f}"
    )
    if family:
        area = curve_hypervolume(((p.cost, p.convergence) for p in family), front.reference_cost)
        searched = sum(not point.uniform for point in front.points)
        caption += (
            f"; of the curve through one rate for all layers: {area:.3f}. "
            f"{savings(front, trials)} of the {searched} searched vectors cost less than one rate "
            f"for all layers needs for a gain {NOISE:g} standard errors below theirs; the title "
            "names the one that saves most"
        )
    rates = (
        f"Heat map of the dropout rate of {len(front.groups)} channel groups at the "
        f"{len(front.points)} points of the front. The kept channels are in the table above."
    )
    return "\n".join(
        (
            "<section>",
            f"<h2>Front {escaped(front.label)}</h2>",
            f'<p class="faint">Study {escaped(front.study)}, found {escaped(front.created_at)}</p>',
            figure_card(drawn, finding, text, f"{caption}."),
            f'<div class="card">{_front_table(front)}</div>',
            details("One rate for all layers, in numbers", _uniform_table(front, family)),
            figure_card(
                rates_figure(front),
                "Which layers the vectors thin out",
                rates,
                "Darker: more dropped. The numbers are the channels kept.",
            ),
            details("How it was found", _front_facts(front)),
            "</section>",
        )
    )


def _front_table(front: Front) -> str:
    widths = "-".join(str(group.channels) for group in front.groups)
    return table(
        f"Points of the verified front, the cheapest first; channels kept of {widths}",
        ("of full", "gain (nats)", "accuracy", "kept channels", "one rate", front.cost_unit),
        (
            (
                _share(front, point.cost),
                f"{point.convergence:.3f} ± {point.standard_error:.3f}",
                f"{point.accuracy:.1%}",
                point.key,
                "yes" if point.uniform else "",
                cost_text(front, point.cost),
            )
            for point in front.points
        ),
        text={3, 4},
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


def _front_facts(front: Front) -> str:
    # The uniform family has a table of its own; of latencies, the costs are in the tables.
    hidden = ("uniform family", "latency")
    settings = {name: v for name, v in front.settings.items() if name not in hidden}
    groups = ", ".join(f"{group.name} ({group.channels})" for group in front.groups)
    facts = {
        "content hash": front.content_hash,
        "model fingerprint": front.model_fingerprint,
        "channel groups": groups,
        "full network": f"{cost_text(front, front.reference_cost)} {front.cost_unit}",
        "measured on": front.device or "nothing: MACs are counted",
    }
    return f"{fact_list(facts)}<h3>Settings of the search</h3>{fact_list(settings)}"


def _runs_section(runs: Sequence[Run]) -> str:
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
    facts = "\n".join(
        f"<h3>{escaped(run_label(run))}</h3>"
        + fact_list(
            {
                "study": run.study,
                "seed": run.seed,
                "finished": run.finished,
                "begun": run.created_at,
                "settings": run.settings,
                "model fingerprint": run.model_fingerprint,
                "front hash": run.front_hash or "no front",
            }
        )
        for run in runs
    )
    return "\n".join(
        (
            "<section>",
            "<h2>Federated training</h2>",
            figure_card(
                accuracy_figure(runs),
                accuracy_finding(runs),
                text,
                "One line is one run with one seed: the chart can't tell a better strategy from a "
                "luckier seed; compare several seeds of each.",
            ),
            details("Accuracy by round", table("Evaluated rounds", heads, rows, text={3})),
            details("How the runs were made", facts),
            "</section>",
        )
    )


def _share(front: Front, cost: float) -> str:
    return percent(cost / front.reference_cost)
