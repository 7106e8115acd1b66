"""``distreal-dse report``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import StorageOption
from distreal_dse.cli._console import print_json
from distreal_dse.errors import InputError
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from dashboards.findings import TrialPoint
    from distreal_dse.fronts import Front
    from fl.store.runs import Run


ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Also write each figure as a file there (extra `images`, Chromium)."
    ),
]


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
    svg: ImagesOption = None,
    png: ImagesOption = None,
    numbers: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE|-", help="Also write the numbers behind the figures as JSON."
        ),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write figures and tables of fronts and federated runs into one offline HTML file."""
    from dashboards.findings import TrialPoint
    from dashboards.images import write_images
    from dashboards.numbers import report_numbers
    from dashboards.pictures import pictures
    from dashboards.report import write_report
    from distreal_dse.fronts import find_front, list_fronts, load_latencies, open_database
    from distreal_dse.search import tried_vectors
    from distreal_dse.support.files import write_whole
    from fl.store.runs import list_runs, load_run

    url = storage_url(storage)
    engine = open_database(url, create=False)
    fronts: list[tuple[Front, list[TrialPoint]]] = []
    runs: list[Run] = []
    names = list(dict.fromkeys(front.name for front in list_fronts(engine)))
    if not subjects:
        subjects = names + [str(run.id) for run in list_runs(engine)]
        if not subjects:
            raise InputError(
                "nothing to report: expected a front or a run in the storage; make "
                "one with `distreal-dse optimize`"
            )
    for subject in subjects:
        if subject.isdecimal():
            runs.append(load_run(engine, int(subject)))
            continue
        compared = list_runs(engine, subject)
        runs += compared
        # A comparison is named after the study where nothing else is said, and so is a front.
        if subject in names or not compared:
            front = find_front(engine, subject)
            trials = [TrialPoint(**asdict(tried)) for tried in tried_vectors(url, front)]
            fronts.append((front, trials))
    runs = list({run.id: run for run in runs}.values())
    networks = dict.fromkeys(front.model_fingerprint for front, _ in fronts)
    latencies = [one for network in networks for one in load_latencies(engine, network)]
    write_report(out, fronts, runs, latencies)
    screen = console()
    screen.print(f"Report written to {out}", markup=False)
    if numbers is not None:
        found = report_numbers(fronts, runs, latencies)
        if numbers == "-":
            print_json(found)
        else:
            write_whole(numbers, json.dumps(found, indent=2, allow_nan=False), "the numbers")
            screen.print(f"Numbers written to {numbers}", markup=False)
    for folder, ending in ((svg, "svg"), (png, "png")):
        if folder is not None:
            figures = {one.name: one.figure for one in pictures(fronts, runs, latencies)}
            files = write_images(figures, folder, (ending,))
            screen.print(f"{len(files)} images written to {folder}", markup=False)
