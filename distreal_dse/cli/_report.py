"""``distreal-dse report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import StorageOption, storage_url
from distreal_dse.cli._console import console
from distreal_dse.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from dashboards.findings import TrialPoint
    from distreal_dse.fronts import Front
    from fl.runs import Run


def report(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRONT|RUN…]",
            help="Fronts (NAME, NAME@VERSION, .json file), numbers of federated runs, and names of "
            "comparisons. Default: all in the storage, fronts in their latest version.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write each figure as SVG and PNG (extra `images`, Chromium)."
        ),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write figures and tables of fronts and federated runs into one offline HTML file."""
    from dashboards.findings import TrialPoint
    from dashboards.images import write_images
    from dashboards.report import write_report
    from distreal_dse.fronts import find_front, list_fronts, open_database
    from distreal_dse.search import tried_vectors
    from fl.runs import list_runs, load_run

    url = storage_url(storage)
    engine = open_database(url, create=False)
    fronts: list[tuple[Front, list[TrialPoint]]] = []
    runs: list[Run] = []
    if not subjects:
        subjects = list(dict.fromkeys(front.name for front in list_fronts(engine)))
        subjects += [str(run.id) for run in list_runs(engine)]
        if not subjects:
            raise InputError(
                "nothing to report: expected a front or a run in the storage; make "
                "one with `distreal-dse optimize`"
            )
    for subject in subjects:
        if subject.isdecimal():
            runs.append(load_run(engine, int(subject)))
        elif compared := list_runs(engine, subject):
            runs += compared
        else:
            front = find_front(engine, subject)
            trials = [TrialPoint(**asdict(tried)) for tried in tried_vectors(url, front)]
            fronts.append((front, trials))
    write_report(out, fronts, runs)
    screen = console()
    screen.print(f"Report written to {out}", markup=False)
    if images is not None:
        files = write_images(_figures(fronts, runs), images)
        screen.print(f"{len(files)} images written to {images}", markup=False)


def _figures(fronts: list[tuple[Front, list[TrialPoint]]], runs: list[Run]) -> dict[str, go.Figure]:
    """All figures of a report by file name."""
    from dashboards.comparison import comparison_figure
    from dashboards.figures import accuracy_figure, front_figure, rates_figure

    figures = {}
    for front, trials in fronts:
        name = front.label.replace("@", "-v")
        figures[f"{name}-front"] = front_figure(front, trials)
        figures[f"{name}-rates"] = rates_figure(front)
    alone = [run for run in runs if run.comparison is None]
    if alone:
        figures["accuracy"] = accuracy_figure(alone)
    for name in dict.fromkeys(run.comparison for run in runs if run.comparison):
        figures[f"comparison-{name}"] = comparison_figure(
            [run for run in runs if run.comparison == name]
        )
    return figures
