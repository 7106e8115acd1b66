"""The report and the images in a real Chromium."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from browser import needs_chromium, render, screenshot
from dashboards.figures import front_figure
from dashboards.findings import TrialPoint
from dashboards.images import write_images
from dashboards.report import write_report
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, FrontGroup, FrontPoint
from fl.store.runs import Run
from front_examples import make_front

needs_kaleido = pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None, reason="needs the package kaleido"
)


@needs_chromium
def test_figures_appear_without_a_complaint(
    tmp_path: Path, hostile: Front, make_run: Callable[..., Run]
) -> None:
    path = tmp_path / "report.html"
    trials = [TrialPoint(300.0 + i, 0.5, uniform=False) for i in range(4)]
    name = hostile.groups[0].name
    write_report(path, [(hostile, trials)], [make_run(1, strategy=name)])
    page, complaints = render(path.as_uri(), tmp_path / "profile")
    assert not complaints
    # Three figures; 4 trials, 3 uniform, 3 front points, 2 evaluated rounds; 2 x 3 cells.
    assert page.tags.count("figure") == 3 and page.classes.count("main-svg") >= 3
    assert page.classes.count("point") == 4 + 3 + 3 + 2
    assert page.classes.count("textpoint") == 2 * 4  # 3 points and the full network
    assert page.classes.count("yerror") == 3
    # In two rows of the table, the heading of its settings, and the legend of the figure.
    name = name.replace("\u202e", "\ufffd")
    assert page.texts.count(f"{name} · digits@1 · run 1") == 4
    # The heat map is an image in SVG; no name has made an element.
    assert page.tags.count("img") == 0 and page.tags.count("script") == 2 + 3


@needs_chromium
def test_fronts_side_by_side_appear_with_steps_bars_and_a_band(
    tmp_path: Path, searched: Front
) -> None:
    path = tmp_path / "report.html"
    seeds = [
        replace(searched, name=f"s{seed}", settings={**searched.settings, "seed": seed})
        for seed in range(3)
    ]
    timed = replace(
        searched, name="timed", cost_metric="latency", device={"cpu": "<b>chip</b>"},
        points=searched.points[:2],
    )  # fmt: skip
    write_report(path, [(front, []) for front in (*seeds, timed)])
    page, complaints = render(path.as_uri(), tmp_path / "profile", dark=True)
    assert not complaints
    assert page.tags.count("figure") == 1 + 4 * 2 and page.tags.count("b") == 0
    assert "Fronts side by side" in page.texts
    # In the legend and in the table.
    assert page.texts.count("timed (s, <b>chip</b>)") == 2
    assert page.texts.count("digits, 3 seeds (MACs)") == 2 + 3
    # The fronts by themselves: 3 points and 3 of one rate; beside each other: corners and points.
    assert page.classes.count("point") == 3 * (3 + 3) + (2 + 3) + 3 + 2
    assert page.classes.count("yerror") == 3 * 3 + 2 + 2
    assert page.classes.count("js-fill") == 1


# Tells in the page itself where the numbers of heat maps and of the first table lie.
MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const box = (node) => { const {left, right, top} = node.getBoundingClientRect();
                          return [left, right, top]; };
  const scroll = document.querySelector(".scroll"), caption = scroll.querySelector("caption");
  const lines = [...scroll.querySelectorAll("td.counts")].map((cell) => {
    const range = document.createRange();
    return [...cell.childNodes].filter((one) => one.nodeType === 3).map((one) => {
      range.selectNodeContents(one); return range.getClientRects().length; });
  });
  document.body.append(Object.assign(document.createElement("pre"), {textContent: JSON.stringify({
    measured: true,
    charts: [...document.querySelectorAll(".chart")].map((one) =>
      [...one.querySelectorAll(".textpoint text, .heatmap-label text")].map(box)),
    table: [scroll.scrollWidth, scroll.clientWidth],
    caption: [...box(caption.firstElementChild ?? caption), scroll.getBoundingClientRect().right],
    shadow: getComputedStyle(scroll).backgroundImage,
    lines})}));
}, 500));
</script>"""


@needs_chromium
@pytest.mark.parametrize("width", [1200, 400])
def test_a_network_of_many_layers_can_be_read_at_any_width(tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    groups = tuple(FrontGroup(f"features.{i}.conv.0.0", 960) for i in range(25))
    random = np.random.default_rng(0)
    points = []
    for number in range(1, 25):
        counts = tuple(int(one) for one in random.integers(100, 100 + 35 * number, len(groups)))
        points.append(FrontPoint(tuple(1 - one / 960 for one in counts), counts, 60.0 * number,
                                 number / 24, 0.01, 8, 0.5, uniform=False))  # fmt: skip
    write_report(path, [(make_front(groups=groups, points=tuple(points)), [])])
    # A window of Chromium is 500 pixels wide or more, a body is not.
    page = path.read_text("utf-8").replace(
        "</head>", f"<style>body {{ width: {width}px; margin: 0 }}</style>{MEASURE}</head>"
    )
    path.write_text(page, encoding="utf-8")
    rendered, complaints = render(path.as_uri(), tmp_path / "profile")
    assert not complaints
    (text,) = (one for one in rendered.texts if one.startswith('{"measured":true'))
    found = json.loads(text)
    digits = [boxes for boxes in found["charts"] if boxes]
    wide, room = found["table"]
    left, right, _, edge = found["caption"]
    assert right <= edge + 1 and right - left <= room
    # Each number of the kept counts is in one piece.
    assert found["lines"] and all(set(one) == {1} for one in found["lines"])
    if width == 400:
        assert digits == []  # of three figures in cells of ten pixels
        assert wide > room and found["shadow"].count("linear-gradient") == 4
    else:
        assert wide <= room  # all columns are seen
        (boxes,) = digits
        assert len(boxes) == 25 * 25
        rows: dict[int, list[tuple[float, float]]] = {}
        for start, end, top in boxes:
            rows.setdefault(round(top), []).append((start, end))
        for row in rows.values():
            row.sort()
            assert all(after[0] - before[1] >= 2 for before, after in pairwise(row))


@needs_chromium
@needs_kaleido
def test_images_are_written(tmp_path: Path, searched: Front) -> None:
    figures = {"front": front_figure(searched)}
    svg, png = write_images(figures, tmp_path / "new")
    assert (svg.name, png.name) == ("front.svg", "front.png")
    assert "verified front" in svg.read_text("utf-8")
    assert png.read_bytes().startswith(b"\x89PNG")


@needs_kaleido
def test_images_without_a_browser_are_refused_in_one_line(
    tmp_path: Path, searched: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="expected a Chromium or Chrome that starts"):
        write_images({"front": front_figure(searched)}, tmp_path)


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False)])
def test_the_page_fits_any_width_and_light(
    tmp_path: Path, searched: Front, make_run: Callable[..., Run], width: int, dark: bool
) -> None:
    path = tmp_path / "report.html"
    write_report(path, [(searched, [])], [make_run(1), make_run(2)])
    # A window of Chromium is 500 pixels wide or more, a frame is not.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="report.html" style="width:{width}px;height:3000px">'
    )
    picture = tmp_path / "page.png"
    assert not screenshot(frame.as_uri(), picture, tmp_path / "profile", 1200, 3000, dark)
    assert picture.read_bytes().startswith(b"\x89PNG")


@needs_chromium
def test_figures_are_dark_where_people_like_it(tmp_path: Path, searched: Front) -> None:
    path = tmp_path / "report.html"
    cheap = replace(searched.points[0], rates=(0.95, 0.95))
    write_report(path, [(replace(searched, points=(cheap, *searched.points[1:])), [])])
    papers = []
    for dark in (False, True):
        page, complaints = render(path.as_uri(), tmp_path / "profile", dark)
        assert not complaints
        papers.append({style for style in page.styles if style.startswith("background: rgb(")})
    assert papers == [{"background: rgb(255, 255, 255);"}, {"background: rgb(27, 35, 42);"}]
    # Cells keep their colours in the dark, so their numbers do: two on dark cells, six on light.
    texts = [style for style in page.styles if "white-space: pre" in style]
    assert sum("fill: rgb(255, 255, 255)" in style for style in texts) == 2
    assert sum("fill: rgb(5, 5, 5)" in style for style in texts) == 6
