"""Our figures and notes in the studies of optuna-dashboard.

It stores a figure in attributes of 2,045 characters each, and a page asks for all of them every few
seconds: what is saved here is thin, without hover texts, numbers cut to what a screen shows.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.storages import BaseStorage, RDBStorage
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from sqlalchemy import Engine, MetaData, Table, delete, insert

from dashboards.costs import breakdown_figure, cost_breakdown, latency_figure, timed_vectors
from dashboards.figures import front_figure
from dashboards.findings import TrialPoint
from dashboards.heatmaps import fit_text, rates_figure
from dashboards.lines import by_network, lines_of
from dashboards.notes import merged, study_note, trial_note
from dashboards.progress import progress_figure, search_progress
from dashboards.side_by_side import side_by_side_figure
from dashboards.style import FRONT, INK, on_any_page
from distreal_dse.errors import FrontError
from distreal_dse.fronts import Front, list_fronts, load_front, load_latencies
from distreal_dse.search import StoredSearch, open_trials, plain_errors, stored_search

# Significant digits of a coordinate; a screen shows some thousand pixels.
DIGITS = 4
# Steps along each axis within which one dominated trial stands for all.
STEPS = 100
# optuna-dashboard gives each figure this many pixels.
HEIGHT = 450
# Least width of its cards, on a window of 1200 pixels.
WIDTH = 440
# Rows of a heat map that can be read at that height; more make further figures.
ROWS = 14
# Fronts of one network that a page shows beside each other.
BESIDE = 6
# Pixels of Plotly's buttons above a figure.
BUTTONS = 18
# Its cards are narrow: a legend takes a row more.
LEGEND_ROW = 22


def open_storage(url: str) -> RDBStorage:
    """Optuna's part of the database.

    Raises
    ------
    InputError
        If the URL is none.
    StorageError
        If the database can't be used.
    """
    return open_trials(url)


def publish(storage: RDBStorage, engine: Engine, name: str) -> bool:
    """Draw a search anew: figures and note of its study, notes of the trials on its front.

    Parameters
    ----------
    storage, engine
        Optuna's and our part of the database.
    name
        Of the search.

    Returns
    -------
    bool
        Whether there is such a search of ours.

    Raises
    ------
    StorageError
        If the database can't be read or written.
    """
    with _plain_errors():
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            return False
        search = stored_search(study)
        if search is None:
            return False
        front = _front_of(engine, search)
        with _drafted(storage, study) as draft:
            for identity, figure in study_figures(engine, search, front).items():
                save_plotly_graph_object(draft, figure, graph_object_id=identity)
            _save_note(draft, study_note(search, front))
            if front is not None:
                ids = {one.number: one._trial_id for one in study.get_trials(deepcopy=False)}
                for point in front.points:
                    if point.trial in ids:
                        trial = _Trial(draft, draft._storage, ids[point.trial])
                        _save_note(trial, trial_note(search, front, point))
        return True


def study_figures(
    engine: Engine, search: StoredSearch, front: Front | None
) -> dict[str, go.Figure]:
    """The figures of a search by their name, thin.

    Parameters
    ----------
    engine
        Our part of the database, for measured latencies and other fronts of the network.
    search
        The search.
    front
        What came of it, if it is finished.
    """
    figures: dict[str, go.Figure] = {}
    if front is not None:
        trials = [TrialPoint(**asdict(one)) for one in search.tried_for(front)]
        reference = front.reference_cost
        figures["distreal-front"] = front_figure(front, spread(trials, reference))
        for number, rows in _parts(len(front.groups)):
            figures[f"distreal-rates{number}"] = rates_figure(front, rows)
        if (breakdown := cost_breakdown(front)) is not None:
            for number, rows in _parts(len(breakdown.layers)):
                figures[f"distreal-layers{number}"] = breakdown_figure(front, breakdown, rows)
        if timed := timed_vectors(front, load_latencies(engine, front.model_fingerprint)):
            figures["distreal-latency"] = latency_figure(timed)
        for own in by_network([front, *_beside(engine, front)]):
            figure = side_by_side_figure(lines_of(own), WIDTH)
            figure.layout.margin.t -= LEGEND_ROW  # which it has for such a card
            figures["distreal-side-by-side"] = figure
        settings: Mapping[str, Any] = front.settings
    else:
        trials = [TrialPoint(**asdict(one)) for one in search.tried]
        reference, settings = search.reference_cost, search.settings
    progress = search_progress(trials, reference, search.cost_metric, settings)
    if progress is not None:
        figures["distreal-search"] = progress_figure(progress, front)
    return {name: thin(figure) for name, figure in figures.items()}


def spread(trials: list[TrialPoint], reference_cost: float) -> list[TrialPoint]:
    """The trials that can be told apart in a picture, the uniform ones always among them."""
    seen: set[tuple[int, int]] = set()
    low = min((one.convergence for one in trials), default=0.0)
    high = max((one.convergence for one in trials), default=1.0)
    shown = []
    for one in trials:
        # By rank in the logarithm of the cost, as the figure draws it.
        place = (
            round(STEPS / 3 * math.log10(max(one.cost / reference_cost, 1e-12))),
            round(STEPS * (one.convergence - low) / ((high - low) or 1.0)),
        )
        if one.uniform or place not in seen:
            seen.add(place)
            shown.append(one)
    return shown


def _parts(rows: int) -> Iterator[tuple[str, range]]:
    """The rows of a heat map in figures of equal length, with the ending of each one's name."""
    count = math.ceil(rows / ROWS)
    for number in range(count):
        part = range(rows * number // count, rows * (number + 1) // count)
        yield f"-{number + 1}" if number else "", part


def thin(figure: go.Figure) -> go.Figure:
    """The figure as optuna-dashboard shows it, whose height and colours can't follow the page.

    Without hover texts, its coordinates rounded, and numbers left out that cells have no room for.
    """
    bare = on_any_page(figure.to_plotly_json())
    for trace in bare["data"]:
        if trace.pop("hovertext", None) is not None:
            trace["hoverinfo"] = "x+y" if trace.get("type") != "heatmap" else "z"
        for key in ("x", "y", "z"):
            if key in trace:
                trace[key] = _rounded(trace[key])
        for key in ("error_x", "error_y"):
            for side in ("array", "arrayminus"):
                if side in trace.get(key, {}):
                    trace[key] = {**trace[key], side: _rounded(trace[key][side])}
    layout = bare["layout"]
    layout["height"] = HEIGHT
    # optuna-dashboard always shows Plotly's buttons: the title goes below them.
    layout["title"] = {**layout["title"], "pad": {"l": 12, "t": 22 + BUTTONS}}
    legend = [
        trace
        for trace in bare["data"]
        if trace["type"] != "heatmap" and trace.get("showlegend") is not False
    ]
    room = BUTTONS + (LEGEND_ROW if len(legend) > 1 else 0)
    layout["margin"] = {**layout["margin"], "t": layout["margin"]["t"] + room}
    layout["modebar"] = {
        "bgcolor": "rgba(0, 0, 0, 0)",
        "color": on_any_page(INK),
        "activecolor": FRONT.color,
    }
    found = go.Figure(bare)
    fit_text(found, WIDTH)
    found.data = [trace for trace in found.data if trace.visible is not False]
    return found


def _rounded(values: Any) -> Any:
    if isinstance(values, list | tuple):
        return [_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values


def _front_of(engine: Engine, search: StoredSearch) -> Front | None:
    """The newest front that came of a search."""
    versions = [one.version for one in list_fronts(engine) if one.name == search.name]
    for version in sorted(versions, reverse=True):
        try:
            front = load_front(engine, f"{search.name}@{version}")
        except FrontError:  # changed in the database: nothing to show of it
            continue
        if search.made(front):
            return front
    return None


def _beside(engine: Engine, front: Front) -> list[Front]:
    """The newest other fronts of the same network: versions, other searches, re-priced ones."""
    others = [
        one
        for one in list_fronts(engine)
        if one.model_fingerprint == front.model_fingerprint and one.label != front.label
    ]
    others.sort(key=lambda one: (one.created_at, one.version), reverse=True)
    found = []
    for other in others[: BESIDE - 1]:
        with suppress(FrontError):  # changed in the database
            found.append(load_front(engine, other.label))
    widths = [group.channels for group in front.groups]
    return [one for one in found if [group.channels for group in one.groups] == widths]


@dataclass(frozen=True)
class _Trial:
    """What optuna-dashboard needs to know of a trial to read and write its note."""

    study: optuna.Study
    storage: BaseStorage
    _trial_id: int


@contextmanager
def _drafted(storage: RDBStorage, study: optuna.Study) -> Iterator[optuna.Study]:
    """A study in memory with the same attributes; those that change are written at the end.

    Each note that is saved reads all attributes several times and writes two, each for itself:
    with a note for each point of a front that takes seconds in a database. Here it is one
    transaction, on the table that Optuna keeps these attributes in.
    """
    number = study._study_id
    before = storage.get_study_system_attrs(number)
    memory = optuna.create_study(directions=study.directions)
    for key, value in before.items():
        memory._storage.set_study_system_attr(memory._study_id, key, value)
    yield memory
    after = memory._storage.get_study_system_attrs(memory._study_id)
    changed = [key for key, value in after.items() if key not in before or before[key] != value]
    if not changed:
        return
    table = Table("study_system_attributes", MetaData(), autoload_with=storage.engine)
    with storage.engine.begin() as connection:
        of_study = table.c.study_id == number
        connection.execute(delete(table).where(of_study, table.c.key.in_(changed)))
        connection.execute(
            insert(table),
            [
                {"study_id": number, "key": key, "value_json": json.dumps(after[key])}
                for key in changed
            ],
        )


def _save_note(subject: optuna.Study | _Trial, text: str) -> None:
    old = get_note(subject)
    new = merged(old, text)
    if new is not None and new != old:
        save_note(subject, new)


@contextmanager
def _plain_errors() -> Iterator[None]:
    what, then = "figures can't be saved", "; draw them later with `distreal-dse dashboard`"
    with warnings.catch_warnings(), plain_errors(what, then):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
