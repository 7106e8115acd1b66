from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboards.findings import TrialPoint
from dashboards.report import write_report
from distreal_dse.errors import InputError
from distreal_dse.fronts import Front, FrontGroup
from fl.store.runs import Run

MAKE_RUN = Callable[..., Run]


class Page(HTMLParser):
    """What a browser would see: elements, texts, table rows and JSON of figures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.figures: list[dict[str, object]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if self.cdata_elem is None:
            self.texts.append(data)
        elif tag == "script" and attributes.get("type") == "application/json":
            self.figures.append(json.loads(data))

    def count(self, tag: str) -> int:
        return sum(element == tag for element, _ in self.elements)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def test_every_number_of_a_figure_is_in_a_table(
    path: Path, searched: Front, make_run: MAKE_RUN
) -> None:
    write_report(path, [(searched, [])], [make_run(1), make_run(2)])
    page = Page(path)
    assert len(page.figures) == page.count("figure") == 3
    assert page.count("table") == 3
    # Heads, 3 points, 3 of the uniform family, 2 evaluated rounds of 2 runs.
    assert page.count("tr") == 3 + 3 + 3 + 2 * 2
    text = " ".join(page.texts)
    for part in (
        "At 5% of the full cost a vector gains what one rate for all layers needs 20% for",
        "0.900 ± 0.000",
        "8-6",
        searched.content_hash,
        searched.model_fingerprint,
        "seed",
        "conv1 (16), conv2 (8)",
        "distreal · digits@1 · run 2",
    ):
        assert part in text


def test_times_are_for_people_and_one_run_is_one(
    path: Path, searched: Front, make_run: MAKE_RUN
) -> None:
    single = make_run(2, comparison="c", strategy="small")
    write_report(path, [(searched, [])], [make_run(1), single])
    text = " ".join(Page(path).texts)
    assert "distreal-dse: digits, c, 1 run" in text
    assert "found 31 Jan 2026, 12:00 UTC" in text and "Made " in text
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)
    assert not re.search(r"\b1 (runs|seeds|points|layers|vectors|channel groups)\b", text)


def test_kept_counts_break_between_numbers_alone(path: Path, searched: Front) -> None:
    widths = (1152, 192, 320, 1280, 16)
    groups = tuple(FrontGroup(f"conv{i}", width) for i, width in enumerate(widths))
    points = [replace(p, rates=(0.0,) * 5, kept_counts=widths) for p in searched.points]
    front = replace(searched, groups=groups, points=tuple(points), settings={"made": "4-3-2-1"})
    write_report(path, [(front, [])])
    html = path.read_text("utf-8")
    broken = "1152-<wbr>192-<wbr>320-<wbr>1280-<wbr>16"
    assert html.count(f'<td class="text counts">{broken}</td>') == len(points)
    assert f"units kept of {broken}</span></caption>" in html
    assert "<dd>4-<wbr>3-<wbr>2-<wbr>1</dd>" in html


def test_every_figure_has_a_text_alternative(
    path: Path, searched: Front, make_run: MAKE_RUN
) -> None:
    write_report(path, [(searched, [])], [make_run()])
    charts = [attrs for _, attrs in Page(path).elements if attrs.get("class") == "chart"]
    assert len(charts) == 3
    for chart in charts:
        assert chart["role"] == "img" and len(chart["aria-label"] or "") > 40


def test_nothing_is_loaded_from_elsewhere(path: Path, searched: Front) -> None:
    write_report(path, [(searched, [])])
    page = Page(path)
    loading = {"src", "href", "srcset", "action", "data", "poster", "background"}
    assert not [attrs for _, attrs in page.elements if loading & attrs.keys()]
    (style,) = re.findall(r"<style>(.*?)</style>", path.read_text("utf-8"), re.DOTALL)
    assert "url(" not in style and "@import" not in style
    policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policies and "default-src 'none'" in (policies[0] or "")
    assert path.stat().st_size <= 6_000_000


def test_hostile_names_are_text(path: Path, hostile: Front, make_run: MAKE_RUN) -> None:
    name = hostile.groups[0].name
    harmless = path.with_name("harmless.html")
    trial = TrialPoint(5.0, 0.1, uniform=False, kept_counts=(1, 2))
    run = make_run(strategy=name, front_label=name, study=name, settings={name: name})
    write_report(path, [(hostile, [trial])], [run])
    write_report(harmless, [(hostile, [trial])], [make_run()])
    page = Page(path)
    shown = name.replace("\u202e", "\ufffd")  # the character that turns text around is not kept
    # Two of plotly.js and our own, three of JSON: whatever the names are.
    assert page.count("script") == Page(harmless).count("script") == 2 + 3
    assert page.count("img") == 0
    assert not [attrs for _, attrs in page.elements if any(key.startswith("on") for key in attrs)]
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', path.read_text("utf-8"))
    assert len(scripts) == 3 and not any("<" in script for script in scripts)
    text = "".join(page.texts)
    assert f"{shown} (16), {shown} (8)" in text and f"Study {hostile.study}" in text
    assert f"{shown} · {shown} · run 1" in text


def test_half_a_surrogate_pair_does_not_stop_the_report(path: Path, searched: Front) -> None:
    front = Front.from_content({**searched.content(), "settings": {"note": "\ud800"}})
    write_report(path, [(front, [])])
    assert "\ufffd" in Page(path).texts


def test_runs_can_be_reported_without_a_front(path: Path, make_run: MAKE_RUN) -> None:
    write_report(path, [], [make_run(1, (None,))])
    assert "No round was evaluated" in Page(path).texts


def test_a_failed_report_leaves_the_old_one(tmp_path: Path, searched: Front) -> None:
    folder = tmp_path / "report.html"
    folder.mkdir()
    with pytest.raises(InputError, match="can't be written"):
        write_report(folder, [(searched, [])])
    with pytest.raises(InputError, match="can't be written"):
        write_report(tmp_path / "missing" / "report.html", [(searched, [])])
    assert list(tmp_path.iterdir()) == [folder]


def test_nothing_to_report_is_an_error(path: Path) -> None:
    with pytest.raises(InputError, match="at least one front or run"):
        write_report(path, [])
    assert not path.exists()
