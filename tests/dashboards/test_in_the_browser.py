"""The report and the images in a real Chromium."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from browser import needs_chromium, render, screenshot
from dashboards.figures import front_figure
from dashboards.findings import TrialPoint
from dashboards.images import write_images
from dashboards.report import write_report
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front
from fl.runs import Run

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
    write_report(path, [(searched, [])])
    papers = []
    for dark in (False, True):
        page, complaints = render(path.as_uri(), tmp_path / "profile", dark)
        assert not complaints
        papers.append({style for style in page.styles if style.startswith("background: rgb(")})
    assert papers == [{"background: rgb(255, 255, 255);"}, {"background: rgb(27, 35, 42);"}]
