"""All pictures of a report together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.made_up import write_search
from dashboards.findings import TrialPoint
from dashboards.notes import study_note, trial_note
from dashboards.numbers import report_numbers
from dashboards.pictures import pictures
from dashboards.report import write_report
from distreal_dse.fronts import ChannelCounts, FrontGroup, StoredLatency
from distreal_dse.search import StoredSearch
from fl.results import DeviceRound, round_result
from fl.store.runs import Run
from front_examples import HOSTILE, grouped_front


def test_hostile_names_are_text_in_every_picture(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    url = f"sqlite:///{tmp_path / 'made.db'}"
    front = write_search(url, groups=[FrontGroup(HOSTILE, 16), FrontGroup("b", 32)])
    assert front is not None
    trials = [
        TrialPoint(p.cost, p.convergence, False, number=i, kept_counts=p.kept_counts)
        for i, p in enumerate(front.points)
    ]
    latency = StoredLatency(
        HOSTILE, front.model_fingerprint, front.points[0].kept_counts, {"cpu": HOSTILE}, HOSTILE,
        32, 1, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 9,
    )  # fmt: skip
    rounds = tuple(
        replace(
            round_result(
                number,
                5.0 * number,
                (DeviceRound(0, HOSTILE, "missed", 1.0, 1e12, 9, number / 4, 0, 8, 8),),
            ),
            accuracy=0.5,
            accuracy_by_class={HOSTILE: 0.5},
        )
        for number in (1, 2)
    )
    runs = [make_run(i, strategy=HOSTILE, comparison=HOSTILE, rounds=rounds) for i in (1, 2)]
    found = pictures([(front, trials)], runs, [latency])
    names = [one.name for one in found]
    assert len(set(names)) == len(found) == 5 + 4
    assert not set("".join(names)) & set("/<>&\"' ")
    for one in found:
        assert "<" not in one.figure.to_json().replace("\\u003cbr\\u003e", "")
        assert "\\u003cimg" not in one.figure.to_json()
        assert "<img" not in "".join(one.tables) and len(one.text) > 40
    page = tmp_path / "report.html"
    write_report(page, [(front, trials)], runs, [latency])
    assert page.read_text().count("<figure") == 9 and "<img" not in page.read_text()
    numbers = report_numbers([(front, trials)], runs, [latency])
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["comparisons"][0]["name"] == HOSTILE


def test_pictures_and_notes_show_channels_and_not_units(tmp_path: Path) -> None:
    front = grouped_front()
    full = StoredLatency(
        "digits", front.model_fingerprint, (16, 8), {"cpu": "chip"}, "ab12", 32, 1,
        *[1.0] * 7, 9,
    )  # fmt: skip
    half = replace(full, kept_counts=front.points[1].kept_counts)
    found = {one.name: one for one in pictures([(front, [])], [], [full, half])}
    heat_map, *digits = found["digits-rates"].figure.data
    kept = {
        (x, y): text for one in digits for x, y, text in zip(one.x, one.y, one.text, strict=True)
    }
    assert [[kept[x, y] for x in range(3)] for y in range(2)] == [["8", "16", "32"]] * 2
    assert "16 of 32 channels kept" in heat_map.hovertext[0][1]
    table = found["digits-front"].tables[0]
    assert "channels kept of 32-32" in table and "16-16" in table and "8-4" not in table
    assert "conv1: 16 of 32" in found["digits-front"].figure.data[-1].hovertext[1]
    (times,) = found["digits-latency"].tables
    assert "16-16" in times and "8-4" not in times
    assert "kept: 16-16" in found["digits-latency"].figure.data[1].hovertext[0]
    page = tmp_path / "report.html"
    write_report(page, [(front, [])])
    assert "conv1 (32), conv2 (32)" in page.read_text()
    search = StoredSearch("digits", "", front.groups, "macs", 1.0, {}, (), 0)
    assert "Channels kept: ` 16-16 `" in trial_note(search, front, front.points[1])
    assert "| ` conv2 ` | 32 |" in study_note(search, front)
    under_way = study_note(search, None)  # of an earlier version
    assert "| channel group | units |" in under_way and "| ` conv2 ` | 8 |" in under_way
    known = replace(search, channels=ChannelCounts((2, 4)))
    assert "| channel group | channels |" in study_note(known, None)
    assert "| ` conv2 ` | 32 |" in study_note(known, None)
