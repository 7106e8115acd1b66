"""All pictures of a report together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.made_up import write_search
from dashboards.findings import TrialPoint
from dashboards.numbers import report_numbers
from dashboards.pictures import pictures
from dashboards.report import write_report
from distreal_dse.fronts import FrontGroup, StoredLatency
from fl.results import DeviceRound, round_result
from fl.runs import Run
from front_examples import HOSTILE


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
