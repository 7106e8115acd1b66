"""One HTML file with all figures and numbers: works offline, loads nothing, runs no foreign text.

Text is escaped wherever it enters the page. A Content-Security-Policy in the page has the browser
refuse whatever would be loaded from elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from string import Template

from plotly.offline import get_plotlyjs

from dashboards.findings import TrialPoint, cost_text, counted, moment, run_label
from dashboards.heatmaps import APART, DIGIT, LEAST, MOST
from dashboards.markup import details, escaped, fact_list, figure_card
from dashboards.pictures import (
    Picture,
    comparison_pictures,
    front_pictures,
    run_pictures,
    side_by_side_pictures,
)
from dashboards.style import dark_colors
from distreal_dse.errors import InputError
from distreal_dse.fronts import (
    LAYERS,
    TABLE,
    VERIFICATION,
    Front,
    StoredLatency,
    channel_counts,
    utc_now,
)
from distreal_dse.support.files import write_whole
from fl.store.runs import Run

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
const dark = matchMedia("(prefers-color-scheme: dark)");
const darkColors = $dark;
function inTheDark(value) {
  if (Array.isArray(value)) return value.map(inTheDark);
  if (value !== null && typeof value === "object")
    // Digits stand on the colours of cells, which stay.
    return Object.fromEntries(Object.entries(value).map(
      ([key, one]) => [key, key === "textfont" ? one : inTheDark(one)]));
  return Object.hasOwn(darkColors, value) ? darkColors[value] : value;
}
// The numbers of a heat map as large as their cells allow, none where that can't be read.
const digits = $digits;
function fitDigits(chart) {
  const indices = chart.data.flatMap((trace, index) => trace.mode === "text" ? [index] : []);
  if (!indices.length) return;
  const cell = (axis) => axis._length / Math.abs(axis.range[1] - axis.range[0]);
  const {xaxis, yaxis} = chart._fullLayout;
  const texts = indices.flatMap((index) => chart.data[index].text);
  const longest = Math.max(...texts.map((text) => text.length));
  const fitting = Math.floor(Math.min(
    digits.most, (cell(xaxis) - digits.apart) / (digits.digit * longest), cell(yaxis) - 3));
  const visible = fitting >= digits.least, size = Math.max(fitting, digits.least);
  const {visible: shown, textfont: {size: before}} = chart.data[indices[0]];
  // Drawing them anew ends here again.
  if (visible !== shown || size !== before)
    Plotly.restyle(chart, {visible, "textfont.size": size}, indices);
}
function draw() {
  for (const chart of document.querySelectorAll(".chart")) {
    const stored = JSON.parse(chart.nextElementSibling.textContent);
    const figure = dark.matches ? inTheDark(stored) : stored;
    const layout = touch ? {...figure.layout, dragmode: false} : figure.layout;
    Plotly.react(chart, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
    chart.removeAllListeners("plotly_afterplot");
    chart.on("plotly_afterplot", () => fitDigits(chart));
    fitDigits(chart);
  }
}
dark.addEventListener("change", draw);
draw();
</script>
</body>
</html>
""")

_STYLE = """
:root { --ink: #1f2933; --faint: #5b6770; --line: #d9dee3; --page: #f5f7f9; --card: #ffffff;
  --shadow: #5b677080; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --faint: #9fabb5; --line: #36414b; --page: #12181d; --card: #1b232a;
    --shadow: #000000; }
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
.chart { margin: 0 -.5rem; padding: .25rem 0; overflow: hidden; }
/* Shadows tell where columns are out of sight: those that move with the table hide those that
   stay at the edges. */
.scroll { container-type: inline-size; overflow-x: auto; background:
  linear-gradient(to right, var(--card) 40%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--card) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shadow), transparent) left / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shadow), transparent) right / 1rem 100% no-repeat scroll; }
.scroll:focus-visible { outline: 2px solid #0072b2; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .35rem; }
/* As wide as what is seen of the table, and there wherever it is scrolled to. */
caption span { position: sticky; left: 0; display: inline-block; max-width: 100cqw; }
th, td { padding: .25rem .6rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
td.text, th.text { text-align: left; }
td.counts { white-space: normal; min-width: 12rem; }
td.names { white-space: normal; min-width: min(11rem, 35cqw); overflow-wrap: anywhere; }
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
    latencies: Sequence[StoredLatency] = (),
) -> None:
    """Write fronts and runs as one self-contained HTML file, whole or not at all.

    Parameters
    ----------
    path
        The file; replaced where it is there.
    fronts
        Each front with the trials of its search, as far as they are known. Those of one network
        are drawn beside each other, too.
    runs
        Federated runs. Those of a comparison are drawn together by strategy, all others in one
        figure.
    latencies
        What was measured of the networks of the fronts.

    Raises
    ------
    InputError
        Where there is nothing to show, or the file can't be written.
    """
    if not fronts and not runs:
        raise InputError("report: expected at least one front or run, found none; name one")
    beside = side_by_side_pictures([front for front, _ in fronts])
    sections = [_side_by_side_section(beside)] if beside else []
    sections += [_front_section(front, trials, latencies) for front, trials in fronts]
    alone = [run for run in runs if run.comparison is None]
    compared = list(dict.fromkeys(run.comparison for run in runs if run.comparison is not None))
    for name in compared:
        sections.append(_comparison_section(name, [run for run in runs if run.comparison == name]))
    if alone:
        sections.append(_runs_section(alone))
    names = [front.label for front, _ in fronts] + compared
    names += [counted(len(alone), "run")] if alone else []
    page = _PAGE.substitute(
        title=escaped(f"distreal-dse: {', '.join(names)}"),
        created=escaped(moment(utc_now())),
        style=_STYLE,
        sections="\n".join(sections),
        dark=json.dumps(dark_colors()),
        digits=json.dumps({"most": MOST, "least": LEAST, "digit": DIGIT, "apart": APART}),
        plotly=get_plotlyjs(),
    )
    write_whole(path, page, "the report")


def _front_section(
    front: Front, trials: Sequence[TrialPoint], latencies: Sequence[StoredLatency]
) -> str:
    return "\n".join(
        (
            "<section>",
            f"<h2>Front {escaped(front.label)}</h2>",
            f'<p class="faint">Study {escaped(front.study)}, found '
            f"{escaped(moment(front.created_at))}</p>",
            *map(_picture, front_pictures(front, trials, latencies)),
            details("How it was found", _front_facts(front)),
            "</section>",
        )
    )


def _side_by_side_section(pictures: Sequence[Picture]) -> str:
    return "\n".join(
        ("<section>", "<h2>Fronts side by side</h2>", *map(_picture, pictures), "</section>")
    )


def _picture(picture: Picture) -> str:
    """A figure and its numbers; all but the first table are folded."""
    card = figure_card(picture.figure, picture.heading, picture.text, picture.caption)
    shown = 0 if picture.folded else 1
    tables = [f'<div class="card">{one}</div>' for one in picture.tables[:shown]]
    folded = picture.tables[shown:]
    usual = ("More numbers" if shown else "The numbers",) * len(folded)
    tables += map(details, picture.summaries or usual, folded)
    return "\n".join((card, *tables))


def _front_facts(front: Front) -> str:
    # These are in tables of their own.
    hidden = ("uniform family", "latency", LAYERS, TABLE, VERIFICATION)
    settings = {name: v for name, v in front.settings.items() if name not in hidden}
    channels = channel_counts(front)
    widths = channels.of([group.channels for group in front.groups])
    groups = ", ".join(
        f"{group.name} ({width})" for group, width in zip(front.groups, widths, strict=True)
    )
    facts = {
        "content hash": front.content_hash,
        "model fingerprint": front.model_fingerprint,
        f"channel groups ({channels.noun})": groups,
        "full network": f"{cost_text(front, front.reference_cost)} {front.cost_unit}",
        "measured on": front.device or "nothing: MACs are counted",
    }
    return f"{fact_list(facts)}<h3>Settings of the search</h3>{fact_list(settings)}"


def _comparison_section(name: str, runs: Sequence[Run]) -> str:
    pictures = comparison_pictures(name, runs)
    heading = f"<section>\n<h2>Comparison {escaped(name)}</h2>"
    if not pictures:
        return f"{heading}<p>No round was evaluated yet.</p></section>"
    conditions = {k: v for k, v in runs[0].settings.items() if k not in ("strategy", "seed")}
    facts = {
        **conditions,
        "seeds": sorted({run.seed for run in runs}),
        "model fingerprint": runs[0].model_fingerprint,
        "front": runs[0].front_label or "none",
        "front hash": next((run.front_hash for run in runs if run.front_hash), "no front"),
    }
    return "\n".join(
        (
            heading,
            *map(_picture, pictures),
            details("Conditions that all runs had", fact_list(facts)),
            "</section>",
        )
    )


def _runs_section(runs: Sequence[Run]) -> str:
    facts = "\n".join(
        f"<h3>{escaped(run_label(run))}</h3>"
        + fact_list(
            {
                "study": run.study,
                "seed": run.seed,
                "finished": run.finished,
                "begun": moment(run.created_at),
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
            *map(_picture, run_pictures(runs)),
            details("How the runs were made", facts),
            "</section>",
        )
    )
