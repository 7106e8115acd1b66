"""optuna-dashboard with our figures, in a real Chromium, as `distreal-dse dashboard` serves it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.storages import RDBStorage
from optuna_dashboard import get_note
from sqlalchemy import text

from benchmarks.made_up import write_search
from browser import needs_chromium, render, screenshot
from contrast import contrast
from dashboards.publishing import open_storage, publish, study_figures
from dashboards.serving import refresh
from distreal_dse.fronts import (
    Front,
    FrontGroup,
    StoredLatency,
    open_database,
    save_front,
    save_latencies,
)
from distreal_dse.search import stored_search
from front_examples import HOSTILE

TRIALS = 30


def draw(url: str, name: str = "made") -> optuna.Study:
    storage = open_storage(url)
    assert publish(storage, open_database(url), name)
    return optuna.load_study(study_name=name, storage=storage)


def figures(address: str) -> dict[str, dict[str, object]]:
    """The figures of study 1, as the page gets them."""
    api = address.removesuffix("/dashboard") + "/api/studies/1"
    with urllib.request.urlopen(api) as answer:
        found = json.load(answer)["plotly_graph_objects"]
    return {one["id"]: json.loads(one["graph_object"]) for one in found}


@needs_chromium
def test_the_study_page_shows_our_figures_with_all_their_points(
    url: str, tmp_path: Path, serve: Callable[[str], str]
) -> None:
    front = write_search(url, trials=TRIALS)
    assert front is not None
    full = tuple(group.channels for group in front.groups)
    save_latencies(open_database(url), [
        StoredLatency("made", front.model_fingerprint, counts, {"cpu": "<b>chip</b>"}, "ab12", 32,
                      1, time, time, time, time, time, time, time, 9)
        for counts, time in ((full, 1.0), (front.points[0].kept_counts, 0.5))
    ])  # fmt: skip
    draw(url)
    address = serve(url)
    data = {name: one["data"] for name, one in figures(address).items()}
    assert set(data) == {
        "distreal-front", "distreal-rates", "distreal-layers", "distreal-latency", "distreal-search"
    }  # fmt: skip
    others, family, verified = data["distreal-front"]
    assert len(verified["x"]) == len(front.points)
    assert len(verified["error_y"]["array"]) == len(front.points)
    assert len(family["x"]) == 9
    assert 0 < len(others["x"]) <= TRIALS - 9
    assert len(data["distreal-latency"][1]["x"]) == 2
    (rates, *kept), (layers, *_) = data["distreal-rates"], data["distreal-layers"]
    assert len(rates["z"]) == 2 and len(rates["z"][0]) == len(front.points)
    assert len(layers["z"][0]) == len(front.points)
    digits = [text for trace in kept for text in trace["text"]]
    assert len(digits) == 2 * len(front.points)

    page, complaints = render(f"{address}/studies/1", tmp_path / "profile")
    assert not complaints
    assert "Pareto Front" in page.texts and "verified front" in page.texts
    # Optuna's own Pareto plot and history have a point for each trial.
    drawn = len(verified["x"]) + 9 + len(others["x"]) + 2 + 1
    assert page.classes.count("point") >= 2 * TRIALS + drawn
    assert page.classes.count("yerror") >= len(front.points)
    assert page.classes.count("textpoint") >= len(digits)
    picture = tmp_path / "study.png"
    screenshot(f"{address}/studies/1", picture, tmp_path / "profile", 1400, 3200)
    assert picture.read_bytes().startswith(b"\x89PNG")


# The cards of optuna-dashboard: white, and what its dark mode makes of #121212.
CARDS = ("#ffffff", "#1e1e1e")


def colors_of(part: object, key: str = "") -> Iterator[tuple[str, str]]:
    """All colours of a figure that are not those of cells, with what they are of."""
    if isinstance(part, dict):
        for name, one in part.items():
            if name not in ("textfont", "colorscale"):
                yield from colors_of(one, name)
    elif isinstance(part, list):
        for one in part:
            yield from colors_of(one, key)
    elif isinstance(part, str) and key.endswith("color"):
        yield key, part


def test_figures_show_on_light_and_on_dark_pages(url: str) -> None:
    front = write_search(url)
    assert front is not None
    engine = open_database(url)
    save_latencies(engine, [
        StoredLatency("made", front.model_fingerprint, point.kept_counts, {"cpu": "x"}, at, 32, 1,
                      1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9)
        for point in front.points[:2] for at in "abcd"
    ])  # fmt: skip
    search = stored_search(draw(url))
    assert search is not None
    figures = study_figures(engine, search, front)
    assert len(figures) == 5
    for figure in figures.values():
        found = set(colors_of(json.loads(figure.to_json(engine="json"))))
        clear = "rgba(0, 0, 0, 0)"
        assert {("paper_bgcolor", clear), ("plot_bgcolor", clear)} <= found
        solid = {color for _, color in found if color.startswith("#")}
        assert solid and all(contrast(one, card) >= 3 for one in solid for card in CARDS)
        # All others let the card through, such as the lines of the grid.
        rest = {color for _, color in found} - solid
        assert all(color.startswith("rgba(") for color in rest)
        assert all(contrast(figure.layout.template.layout.font.color, one) >= 4 for one in CARDS)


def test_each_of_52_rows_has_room_for_its_name(url: str) -> None:
    groups = [FrontGroup(f"features.{i}.conv.0.0", 16) for i in range(52)]
    front = write_search(url, groups=groups)
    search = stored_search(draw(url))
    assert front is not None and search is not None
    figures = study_figures(open_database(url), search, front)
    for kind in ("rates", "layers"):
        shown: list[str] = []
        parts = [f"distreal-{kind}", *(f"distreal-{kind}-{part}" for part in (2, 3, 4))]
        for layout in (figures[name].layout for name in parts):
            rows = len(layout.yaxis.ticktext)
            row = (layout.height - layout.margin.t - layout.margin.b) / rows
            assert row > layout.yaxis.tickfont.size >= 10
            title = layout.title.text.replace("<br>", " ")
            assert title.endswith(f" {len(shown) + 1} to {len(shown) + rows} of 52")
            shown += layout.yaxis.ticktext
        assert shown == [f"…{i}.conv.0.0" for i in range(52)]


@needs_chromium
def test_hostile_names_are_text_in_figures_and_notes(
    url: str, tmp_path: Path, serve: Callable[[str], str]
) -> None:
    names = (HOSTILE, "`a`|b</td> [c](javascript:alert(3)) **d** <b>e</b>")
    groups = [FrontGroup(name, 16) for name in names]
    write_search(url, groups=groups, about=f"{names[1]}: {HOSTILE}")
    draw(url)
    address = serve(url)
    for figure in figures(address).values():
        text = json.dumps(figure)
        # Plotly's own line breaks are the only elements.
        assert "<" not in text.replace("<br>", "")
    for path in ("studies/1", "studies/1/note"):
        page, complaints = render(f"{address}/{path}", tmp_path / "profile")
        assert not complaints
        assert page.tags.count("script") == 1  # optuna-dashboard's own
        assert "img" not in page.tags and "javascript:" not in "".join(page.links)
    shown = "".join(page.texts)
    assert "<b>e</b>" in shown and "**d**" in shown and "<img src=x" in shown


def test_notes_tell_what_came_of_a_study_and_keep_what_people_wrote(url: str) -> None:
    front = write_search(url)
    assert front is not None
    study = draw(url)
    note = get_note(study)
    assert "front ` made@1 `" in note and "front export made@1" in note
    assert "| ` conv2 ` | 32 |" in note
    point = front.points[0]
    ids = {trial.number: trial._trial_id for trial in study.trials}
    trial = optuna.Trial(study, ids[point.trial])
    assert f"Point 1 of {len(front.points)} of front ` made@1 `" in get_note(trial)

    from optuna_dashboard import save_note

    save_note(study, f"{note}\n\nMine.")
    save_note(trial, "All mine.")
    study = draw(url)
    assert get_note(study) == f"{note}\n\nMine."
    assert get_note(trial) == "All mine."


def test_a_study_without_a_description_is_its_name(url: str) -> None:
    write_search(url, about="two-branches: ")
    note = get_note(draw(url))
    assert "Dropout vectors of ` two-branches `, searched by" in note


SIDE_BY_SIDE = "distreal-side-by-side"
Drawn = dict[str, tuple[int, int, int]]


def drawn_beside(url: str, front: Front) -> list[str]:
    """The names in the legend of the fronts beside that of a search."""
    search = stored_search(draw(url))
    assert search is not None
    figures = study_figures(open_database(url), search, front)
    figure = figures.get(SIDE_BY_SIDE, go.Figure())
    return [one.name for one in figure.data if one.showlegend is not False and "one rate" not in
            one.name]  # fmt: skip


def test_a_search_shows_versions_and_other_fronts_of_its_network_side_by_side(url: str) -> None:
    front = write_search(url)
    assert front is not None
    engine = open_database(url)
    assert drawn_beside(url, front) == []
    save_front(engine, replace(front, name="other", model_fingerprint="fe"))
    assert drawn_beside(url, front) == []
    again = save_front(engine, replace(front, points=front.points[:-1]))
    assert drawn_beside(url, again) == ["made@2", "made@1"]
    priced = replace(
        front, name="made-ab12", cost_metric="latency", device={"cpu": "<b>chip</b>"},
        created_at="2099-01-31T12:00:00+00:00",
    )  # fmt: skip
    save_front(engine, priced)
    shown = ["made@2 (MACs)", "made-ab12@1 (s, &lt;b&gt;chip&lt;/b&gt;)", "made@1 (MACs)"]
    assert drawn_beside(url, again) == shown
    for number in range(10):
        made = f"2098-01-{number + 1:02}T12:00:00+00:00"
        save_front(engine, replace(front, name=f"n{number}", created_at=made))
    newest = [f"n{number}@1 (MACs)" for number in (9, 8, 7, 6)]
    assert drawn_beside(url, again) == [*shown[:2], *newest]


def test_fronts_side_by_side_are_drawn_anew_when_one_is_added(url: str) -> None:
    front = write_search(url)
    assert front is not None
    engine, storage, drawn = (
        open_database(url),
        open_storage(url),
        Drawn(),
    )

    def saved() -> str:
        refresh(storage, engine, drawn)
        (study,) = optuna.get_all_study_summaries(storage)
        return str(sorted(storage.get_study_system_attrs(study._study_id).items()))

    before = saved()
    assert SIDE_BY_SIDE not in before and saved() == before
    save_front(engine, replace(front, name="elsewhere", model_fingerprint="fe"))
    assert saved() == before
    save_front(engine, replace(front, name="beside"))
    assert SIDE_BY_SIDE in saved()


def test_a_front_that_was_changed_in_the_database_is_left_out(url: str) -> None:
    front = write_search(url)
    assert front is not None
    engine = open_database(url)
    for name in ("sound", "changed"):
        save_front(engine, replace(front, name=name))
    with engine.begin() as connection:
        connection.execute(text("update fronts set study = 'x' where name = 'changed'"))
    assert drawn_beside(url, front) == ["made@1", "sound@1"]


def test_a_search_under_way_grows_in_the_dashboard(url: str, serve: Callable[[str], str]) -> None:
    write_search(url, trials=12, finished=False)
    engine, storage, drawn = (
        open_database(url),
        open_storage(url),
        Drawn(),
    )
    refresh(storage, engine, drawn)
    address = serve(url)
    (before,) = figures(address)["distreal-search"]["data"]
    study = optuna.load_study(study_name="made", storage=storage)
    assert "Under way" in get_note(study) and "12 trials" in get_note(study)
    # The best of both objectives.
    last = study.get_trials()[0]
    last.values = [5000.0, 9.0]
    last.user_attrs["kept channels"] = {"conv1": 1, "conv2": 1}
    study.add_trial(last)
    refresh(storage, engine, drawn)
    (after,) = figures(address)["distreal-search"]["data"]
    assert after["y"][-1] > before["y"][-1] and after["x"][-1] > before["x"][-1]
    assert "13 trials" in get_note(study)


def test_a_study_that_a_page_deletes_while_it_is_drawn_is_passed_over(url: str) -> None:
    class DeletedMeanwhile(RDBStorage):
        def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
            self.delete_study(study_id)
            return super().get_study_user_attrs(study_id)

    write_search(url)
    storage = DeletedMeanwhile(url)
    refresh(storage, open_database(url), {})
    assert optuna.get_all_study_names(storage) == []


def test_a_study_that_is_not_ours_is_left_alone(url: str) -> None:
    open_database(url)
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="foreign")
    assert not publish(storage, open_database(url), "foreign")
    assert get_note(study) == "" and not publish(storage, open_database(url), "none")


def test_figures_stay_thin_with_a_thousand_trials(url: str) -> None:
    write_search(url, trials=1000)
    study = draw(url)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    saved = sum(len(v) for k, v in attributes.items() if k.startswith("dashboard:plot_data:"))
    assert saved < 60_000
