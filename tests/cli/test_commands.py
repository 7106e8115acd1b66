from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from command_line import COMMAND, Ended, environment, run
from distreal_dse.cli import _fronts, _lookup, _optimize
from distreal_dse.cli._app import app
from distreal_dse.errors import NoGainError
from distreal_dse.fronts import Front, export_front, open_database, save_front
from front_examples import grouped_front, harmful_front, make_front
from tiny_study import HARMS_ALWAYS, HARMS_WHEN_NARROW, write_study


def test_studies_lists_the_shipped_ones_as_json() -> None:
    ended = run("studies", "--json")
    assert ended.code == 0
    names = [study["name"] for study in ended.json]
    assert names == [
        "cifar10-cnn", "cifar10-densenet40", "cifar10-resnet20", "cifar100-resnet20", "digits-cnn",
        "digits-plain", "femnist-cnn",
    ]  # fmt: skip
    assert all(study["description"] for study in ended.json)


def test_optimize_gives_programs_json_and_people_the_rest(optimized: tuple[str, Ended]) -> None:
    _, ended = optimized
    assert ended.code == 0, ended.stderr
    front = ended.json  # all of stdout is one JSON value
    assert front["name"] == front["study"] == "tiny"
    assert front["version"] == 1
    assert len(front["hash"]) == 64
    assert front["points"]
    begun = [line.split()[:2] for line in ended.stderr.splitlines() if "  0:00:00" in line]
    assert [stage for stage, done in begun if done.startswith(("0/", "1/"))] == [
        "warm-up", "pilot", "search", "verification",
    ]  # fmt: skip
    assert "vectors of equal cost differ by" in ended.stderr
    assert "20/20" in ended.stderr
    assert "Traceback" not in ended.stderr and "Warning" not in ended.stderr


def test_a_study_that_prints_in_workers_prints_to_people(tmp_path: Path) -> None:
    study = write_study(tmp_path, change=PRINTS)
    ended = run(
        "optimize", study, "--fleet", "none", "--trials", "9", "--workers", "2", "--json",
        "--storage", f"sqlite:///{tmp_path}/s.db",
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    assert ended.json["name"] == "tiny"  # all of stdout is one JSON value
    lines = [line.split()[:2] for line in ended.stderr.splitlines()]
    assert ["warm-up", "0/2"] in lines and ["warm-up", "2/2"] in lines
    for place in ("import", "data", "model", "loss", "file 1", "C"):
        assert f"printed: {place}\n" in ended.stderr


PRINTS = """
import ctypes
import os

print("printed: import")
os.write(1, b"printed: file 1\\n")
ctypes.CDLL(None).puts(b"printed: C")
made = study


def noisy_model():
    print("printed: model")
    return made.model()


def noisy_data():
    print("printed: data")
    return made.data()


def noisy_loss(outputs, targets):
    print("printed: loss")
    return nn.functional.cross_entropy(outputs, targets)


study = replace(made, model=noisy_model, data=noisy_data, loss=noisy_loss)
"""


def test_optimize_without_json_shows_a_table_and_says_how_to_go_on(
    optimized: tuple[str, Ended], study: Path
) -> None:
    url, ended = optimized
    again = run(
        "optimize", study, "--fleet", "none", "--trials", "20", "--storage", url, installed=True
    )
    assert again.code == 0
    assert again.stdout == ""
    assert "Front tiny@1" in again.stderr
    assert "fl run" in again.stderr
    for point in ended.json["points"]:
        assert "-".join(map(str, point["kept_counts"])) in again.stderr


def test_a_front_survives_export_and_import(optimized: tuple[str, Ended], tmp_path: Path) -> None:
    url, ended = optimized
    listed = run("front", "list", "--json", "--storage", url)
    (summary,) = listed.json
    assert (summary["name"], summary["version"]) == ("tiny", 1)
    assert summary["content_hash"] == ended.json["hash"]
    assert summary["points"] == len(ended.json["points"])

    shown = run("front", "show", "tiny", "--json", "--storage", url)
    assert shown.json == ended.json

    file, other = tmp_path / "front.json", f"sqlite:///{tmp_path}/other.db"
    exported = run("front", "export", "tiny@1", file, "--storage", url)
    assert (exported.code, exported.stdout) == (0, "")
    assert json.loads(file.read_text())["points"] == ended.json["points"]
    imported = run("front", "import", file, "--storage", other)
    assert (imported.code, imported.stdout) == (0, "")
    assert "tiny@1" in imported.stderr
    assert run("front", "show", "tiny", "--json", "--storage", other).json == ended.json
    # The same front once more is no new version.
    run("front", "import", file, "--storage", other)
    assert len(run("front", "list", "--json", "--storage", other).json) == 1


def test_lookup_picks_the_best_point_that_fits(optimized: tuple[str, Ended]) -> None:
    url, ended = optimized
    points, full = ended.json["points"], ended.json["reference_cost"]
    table = ended.json["settings"]["table"]["vectors"]
    dearest = max(points, key=lambda point: point["cost"])
    for text, budget in (
        ("40%", 0.4 * full),
        ("100%", full),
        (str(dearest["cost"]), dearest["cost"]),
        ("9k", 9000),
    ):
        fitting = [one for one in table if one["cost"] <= budget]
        best = max(fitting, key=lambda one: one["cost"])
        found = run("lookup", "tiny", "--budget", text, "--json", "--storage", url).json
        assert (found["cost"], found["kept_counts"]) == (best["cost"], best["kept_counts"])
        own = [point for point in points if point["kept_counts"] == best["kept_counts"]]
        verified = [one["kept_counts"] for one in ended.json["settings"]["verification"]]
        assert found["measured"] is (best["kept_counts"] in verified)
        for point in own:
            assert {name: found[name] for name in point} == point
    people = run("lookup", "tiny", "--budget", "40%", "--storage", url)
    assert (people.code, people.stdout) == (0, "")
    assert "MACs" in people.stderr


def test_federated_training_is_the_same_with_a_stored_and_an_exported_front(
    study: Path, storage: str, tmp_path: Path
) -> None:
    file = tmp_path / "front.json"
    run("front", "export", "tiny", file, "--storage", storage)
    settings = ("--rounds", "2", "--devices", "5", "--cohort", "2", "--json")
    own = f"sqlite:///{tmp_path}/runs.db"
    stored = run("fl", "run", study, "--front", "tiny", *settings, "--storage", storage)
    command = ("fl", "run", study, "--front", file, *settings, "--storage", own)
    exported = run(*command, "--workers", "2", installed=True)  # which start as those of people do
    for ended in (stored, exported):
        assert ended.code == 0, ended.stderr
        assert [one["round"] for one in ended.json["rounds"]] == [0, 1, 2]
        assert ended.json["finished"] is True
    assert stored.json["rounds"] == exported.json["rounds"]
    assert stored.json["front_hash"] == exported.json["front_hash"]


def test_masks_and_granularity_are_searched_with_and_trained_with(
    study: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/masks.db"
    searched = run(
        "optimize", study, "--fleet", "none", "--masks", "blocks:redraw=round",
        "--granularity", "2", "--trials", "9", "--json", "--storage", url,
    )  # fmt: skip
    settings = searched.json["settings"]
    assert settings["masks"] == "blocks:blocks=4,redraw=round"
    assert settings["granularity"] == 2
    assert all(kept % 2 == 0 for point in searched.json["points"] for kept in point["kept_counts"])
    trained = run(
        "fl", "run", study, "--front", "tiny", "--rounds", "1", "--devices", "5", "--json",
        "--storage", url,
    )  # fmt: skip
    assert trained.json["front_label"] == "tiny@1" and trained.json["finished"]


def test_the_storage_comes_from_the_environment_where_none_is_given(storage: str) -> None:
    done = subprocess.run(
        [COMMAND, "front", "list", "--json"],
        capture_output=True, text=True, env={**environment(), "DISTREAL_STORAGE": storage},
    )  # fmt: skip
    assert [front["name"] for front in json.loads(done.stdout)] == ["tiny"]


def test_an_empty_storage_has_no_fronts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    open_database(url).dispose()
    assert run("front", "list", "--json", "--storage", url).json == []
    assert "No fronts yet" in run("front", "list", "--storage", url).stderr


@pytest.mark.parametrize(
    "command", [("front", "list"), ("front", "show", "x"), ("lookup", "x", "--budget", "9%")]
)
def test_what_only_reads_makes_no_database(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = run(*command, "--storage", f"sqlite:///{tmp_path}/typo.db")
    assert ended.code == 1 and "typo.db: expected a database, found no such file" in ended.stderr
    assert not list(tmp_path.iterdir())


def modules_after(*arguments: str) -> set[str]:
    """Names of the modules that a command has imported when it exits."""
    code = (
        "import sys\n"
        "from distreal_dse.cli import main\n"
        f"sys.argv = ['distreal-dse', *{list(arguments)!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('modules:', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["optimize", "--help"], ["studies"]]
)
def test_help_and_lists_import_nothing_that_takes_long(arguments: list[str]) -> None:
    heavy = {"torch", "optuna", "torchvision", "sqlalchemy", "sklearn", "plotly", "numpy"}
    modules = modules_after(*arguments)
    assert "typer" in modules
    assert not modules & heavy


def test_commands_of_fronts_import_neither_torch_nor_optuna(storage: str) -> None:
    modules = modules_after("front", "list", "--storage", storage)
    assert "sqlalchemy" in modules
    assert not modules & {"torch", "optuna"}


def test_help_names_every_command() -> None:
    ended = run("--help", installed=True)
    assert ended.code == 0
    for name in ("studies", "optimize", "front", "lookup", "measure", "fl"):
        assert name in ended.stdout
    assert os.linesep in ended.stdout


def test_the_hint_after_a_search_names_all_that_training_needs(tmp_path: Path) -> None:
    path = write_study(tmp_path, change=WITH_A_WIDTH)
    url = f"sqlite:///{tmp_path}/hint.db"
    ended = run(
        "optimize", path, "--fleet", "none", "-o", "width=7", "--trials", "9", "--storage", url
    )
    (hint,) = (line for line in ended.stderr.splitlines() if line.startswith("Train with it: "))
    _, *arguments = shlex.split(hint.removeprefix("Train with it: "))
    assert run(*arguments, "--rounds", "1", "--devices", "5").code == 0


WITH_A_WIDTH = """
made = study


def study(width: int = 6) -> Study:
    def wide():
        return nn.Sequential(
            nn.Conv2d(1, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)
        )

    return replace(made, model=wide)
"""


def test_a_front_is_measured_again(study: Path, storage: str, tmp_path: Path) -> None:
    command = ("front", "verify", "tiny", "--study", study, "--storage", storage)
    found = run(*command, "--replicates", "2", "--json").json
    assert found["front"] == "tiny@1" and found["points"] and found["failures"] == {}
    assert all(claim["holds"] for claim in found["claims"])
    for point in found["points"]:
        assert point["now"]["replicates"] == 2
        assert point["now"]["convergence"] != point["before"]["convergence"]
    shown = run(*command, "--replicates", "2")
    assert shown.code == 0 and shown.stdout == ""
    assert "points are non-dominated" in shown.stderr and "loss gain before" in shown.stderr
    again = run("front", "verify", "tiny", "--storage", storage, "--replicates", "2", "--json")
    assert again.json == found  # its file is known from before


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Front], str]:
    """Stores a front as ``digits@1``, and gives the URL."""
    monkeypatch.setenv("COLUMNS", "200")  # as commands have here; pytest-xdist says 80

    def store(front: Front) -> str:
        url = f"sqlite:///{tmp_path}/fronts.db"
        engine = open_database(url)
        save_front(engine, front)
        engine.dispose()
        return url

    return store


def test_lookup_names_groups_and_tells_channels_from_units(
    stored: Callable[[Front], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = stored(grouped_front())
    _lookup.lookup("digits", "30%", url, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["kept_counts"] == [8, 4]  # what programs rely on: units
    assert found["front"] == "digits@1" and found["harms"] is False
    assert found["groups"] == [
        {"name": "conv1", "rate": 0.5, "kept_units": 8, "units": 16, "kept_channels": 16,
         "channels": 32},
        {"name": "conv2", "rate": 0.5, "kept_units": 4, "units": 8, "kept_channels": 16,
         "channels": 32},
    ]  # fmt: skip
    _lookup.lookup("digits", "30%", url)
    told = capsys.readouterr().err
    (row,) = (line for line in told.splitlines() if "conv2" in line)
    assert row.replace("│", " ").split() == ["conv2", "16", "32", "4", "8", "0.500"]
    assert "kept channels" in told and "in units" in told and "harms" not in told


def test_lookup_in_a_front_that_does_not_tell_its_channels_says_units(
    stored: Callable[[Front], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = stored(make_front())
    _lookup.lookup("digits", "30%", url, as_json=True)
    group = json.loads(capsys.readouterr().out)["groups"][1]
    assert (group["kept_units"], group["kept_channels"], group["channels"]) == (4, None, None)
    _lookup.lookup("digits", "30%", url)
    told = capsys.readouterr().err
    assert "kept units" in told and "channels" not in told


def test_front_show_shows_channels_or_says_that_it_shows_units(
    stored: Callable[[Front], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = stored(grouped_front())
    _fronts.show("digits", url)
    told = capsys.readouterr().err
    assert "kept channels of 32-32" in told and "16-16" in told and "units" not in told
    _fronts.show("digits", url, as_json=True)
    assert json.loads(capsys.readouterr().out)["channels_per_unit"] == [2, 4]
    _fronts.show("digits@2", stored(make_front()))
    told = capsys.readouterr().err
    assert "kept units of 16-8" in told and "Kept counts are of units" in told


def test_lookup_says_that_a_vector_harms_and_which_is_safe(
    stored: Callable[[Front], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = stored(harmful_front(2))
    _lookup.lookup("digits", "25%", url)
    told = capsys.readouterr().err
    assert "This vector harms" in told and "No cheaper one is safe" in told
    assert "the cheapest one that is safe costs 1,600 MACs (100.0%)" in told
    _lookup.lookup("digits", "25%", url, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["harms"] is True and found["cheapest_safe"]["cost"] == 1600
    _lookup.lookup("digits", "100%", url)
    assert "harms" not in capsys.readouterr().err
    _lookup.lookup("digits", "25%", stored(harmful_front(3)))
    assert "no vector of this front is safe" in capsys.readouterr().err


def test_front_show_says_which_points_harm(
    stored: Callable[[Front], str], capsys: pytest.CaptureFixture[str]
) -> None:
    _fronts.show("digits", stored(harmful_front(2)))
    told = capsys.readouterr().err
    assert sum("harms" in line for line in told.splitlines()) == 2
    assert "2 of 3 points harm" in told and "use budgets from 100.0% on" in told
    _fronts.show("digits", stored(harmful_front(3)))
    assert "no vector of this front helps" in capsys.readouterr().err


def test_optimize_says_how_many_vectors_it_left_out_as_they_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, "tiny", HARMS_WHEN_NARROW)
    url = f"sqlite:///{tmp_path}/search.db"
    _optimize.optimize(str(study), url, trials=10, fleet="none")
    told = capsys.readouterr().err
    assert "cheaper vectors are left out: they harm" in told and "Train with it" in told


def test_optimize_does_not_advise_to_train_where_every_vector_harms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, "tiny", HARMS_ALWAYS)
    with pytest.raises(NoGainError, match="no front is stored"):
        _optimize.optimize(str(study), f"sqlite:///{tmp_path}/search.db", trials=9, fleet="none")
    assert "Train with it" not in capsys.readouterr().err


def test_importing_a_front_twice_says_that_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, url = tmp_path / "front.json", f"sqlite:///{tmp_path}/fronts.db"
    export_front(make_front(), file)
    for said in ("stored", "is stored already; nothing was added"):
        _fronts.import_(file, url)
        assert capsys.readouterr().err == f"Front digits@1 {said}\n"
    export_front(grouped_front(), file)
    _fronts.import_(file, url)
    assert capsys.readouterr().err == "Front digits@2 stored\n"


def test_no_help_names_two_defaults() -> None:
    def options(command: Any) -> Iterator[Any]:
        for one in getattr(command, "commands", {}).values():
            yield from options(one)
        yield from (one for one in command.params if one.param_type_name == "option")

    found = list(options(typer.main.get_command(app)))
    assert len(found) > 50
    for option in found:
        says = "default" in (option.help or "").lower()
        assert not (says and option.default not in (None, "", False)), option.name
