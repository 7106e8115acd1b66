"""Tables for fleets on the command line: fitting one, looking vectors up in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Ended, run
from distreal_dse.cli._lookup import lookup
from distreal_dse.fronts import (
    MeasuredVector,
    open_database,
    save_front,
    table_setting,
    verification_setting,
)
from front_examples import make_front
from tiny_study import write_study

SHORT = "study = replace(study, short_run=replace(study.short_run, table_mini_batches=4))\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_study(tmp_path_factory.mktemp("fleet"))
    file.write_text(file.read_text() + SHORT)
    return file


@pytest.fixture(scope="module")
def fitted(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Ended]:
    url = f"sqlite:///{tmp_path_factory.mktemp('storage')}/search.db"
    fleet = ("--fleet", "strong=0.5@1,weak=0.5@0.15")
    return url, run("optimize", study, *fleet, "--trials", "3", "--storage", url)


def test_a_fit_says_what_it_gains(fitted: tuple[str, Ended]) -> None:
    _, shown = fitted
    assert shown.code == 0, shown.stderr
    said = " ".join(shown.stderr.split())
    assert "was fitted to a fleet, which leaves" in said and "95% confidence" in said
    assert "Train with it: distreal-dse fl run" in said


def test_a_budget_between_points_is_looked_up(fitted: tuple[str, Ended]) -> None:
    url, _ = fitted
    front = run("front", "show", "tiny", "--storage", url, "--json").json
    measured = {tuple(point["kept_counts"]) for point in front["points"]}
    full = front["reference_cost"]
    table = front["settings"]["table"]["vectors"]
    measured |= {tuple(one["kept_counts"]) for one in front["settings"]["verification"]}
    between = next(one for one in table if tuple(one["kept_counts"]) not in measured)
    budget = f"{100 * between['cost'] / full + 1e-6}%"
    found = run("lookup", "tiny", "--budget", budget, "--storage", url, "--json").json
    assert found["kept_counts"] == between["kept_counts"] and found["cost"] == between["cost"]
    assert found["measured"] is False and found["convergence"] is None
    assert [group["kept_channels"] for group in found["groups"]] == between["kept_counts"]
    shown = run("lookup", "tiny", "--budget", budget, "--storage", url)
    assert "not measured by itself" in shown.stderr
    whole = run("lookup", "tiny", "--budget", "100%", "--storage", url, "--json").json
    assert whole["kept_counts"] == [6, 8]


def test_a_federated_run_uses_the_table(fitted: tuple[str, Ended], study: Path) -> None:
    url, _ = fitted
    trained = run(
        "fl", "run", study, "--front", "tiny", "--rounds", "1", "--devices", "4", "--cohort", "4",
        "--classes", "strong=0.5@1,weak=0.5@0.15", "--availability", "constant",
        "--storage", url, "--json",
    )  # fmt: skip
    assert trained.code == 0, trained.stderr
    (_, after) = trained.json["rounds"]
    assert after["over_budget"] == 0 and after["mean_cost_share"] <= 0.575


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ("strong=0.5@1,weak=0.4@0.1", "expected shares that sum to 1, found 0.9"),
        ("extrem", "fleet 'extrem': expected one of thirds, wide, extreme, spread, or"),
        ("strong=0.5@1,weak=0.5@0.001", "expected at least the"),
    ],
)
def test_what_is_no_fleet_is_told_in_one_line(
    study: Path, tmp_path: Path, fleet: str, said: str
) -> None:
    storage = f"sqlite:///{tmp_path}/none.db"
    assert said in run("optimize", study, "--fleet", fleet, "--storage", storage).error(2)


def test_a_vector_of_the_table_that_harms_alone_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    runs = [
        MeasuredVector(counts, cost, (gain - 0.01, gain + 0.01), uniform)
        for counts, cost, gain, uniform in (
            ((2, 1), 50.0, -0.1, False), ((3, 1), 70.0, 0.2, False), ((16, 8), 1600.0, 0.75, True),
        )
    ]  # fmt: skip
    vectors = [(2, 1), (3, 1), (4, 1), (4, 2), (8, 4), (16, 8)]
    table = table_setting(vectors, [50.0, 70.0, 90.0, 100.0, 400.0, 1600.0])
    front = make_front(settings={"table": table, "verification": verification_setting(runs)})
    url = f"sqlite:///{tmp_path}/fronts.db"
    engine = open_database(url)
    save_front(engine, front)
    engine.dispose()
    for budget, gain, harms, said in (
        ("60", -0.1, True, "measured by itself it harms (gain -0.100)"),
        ("80", 0.2, False, "measured by itself it gained 0.200"),
        ("95", None, None, "not measured by itself"),
        ("100", 0.25, False, "gains 0.250 ± 0.010"),
    ):
        lookup("digits", budget, url)
        assert said in capsys.readouterr().err
        lookup("digits", budget, url, as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert found["convergence"] == (None if gain is None else pytest.approx(gain))
        assert found["harms"] is harms and found["measured"] is (gain is not None)
