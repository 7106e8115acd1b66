"""Searches from Python: with a study as an object, in this process and in others."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import run
from distreal_dse import (
    Front,
    Study,
    load_front,
    make_fleet,
    optimize,
    plot,
    reprice,
    save_front,
    verify,
)
from distreal_dse.errors import InputError, StudyError
from tiny_study import STUDY, study_object, write_study

# As a notebook or a script without a guard has it: its functions lie in no module on the path.
SCRIPT = f"""{STUDY}
import sys
from distreal_dse import optimize

print("begun", file=sys.stderr)
study = replace(study, name="tiny")
front = optimize(study, trials=9, fleet="none", storage=sys.argv[1], workers=2)
print(front.content_hash)
"""


@pytest.fixture(scope="module")
def study() -> Study:
    return study_object()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searched") / "fronts.db"


@pytest.fixture(scope="module")
def front(study: Study, storage: Path) -> Front:
    return optimize(study, trials=9, fleet="none", storage=storage, progress=False)


def test_a_study_object_gives_the_front_that_its_file_gives_on_the_command_line(
    front: Front, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    told = run(
        "optimize",
        str(write_study(tmp_path)),
        "--fleet",
        "none",
        "--trials",
        "9",
        "--json",
        "--storage",
        url,
    ).json
    assert told["points"] == [
        {**point, "rates": list(point["rates"]), "kept_counts": list(point["kept_counts"])}
        for point in front.content()["points"]
    ]


def test_workers_of_a_script_without_a_guard_search_its_study(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    url = f"sqlite:///{tmp_path}/workers.db"
    ended = subprocess.run(
        [sys.executable, script, url], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [load_front("tiny", url).content_hash]
    assert ended.stderr.count("begun") == 1  # no worker ran the script


def test_the_same_object_goes_on_with_a_search_and_another_model_is_refused(
    study: Study, front: Front, storage: Path
) -> None:
    assert optimize(study, trials=9, fleet="none", storage=storage, progress=False) == front
    with pytest.raises(InputError, match="tiny"):
        optimize(
            replace(study, batch_size=8), trials=9, fleet="none", storage=storage, progress=False
        )


def test_a_study_that_no_other_process_can_have_is_refused_before_anything_is_done(
    study: Study, tmp_path: Path
) -> None:
    lock = threading.Lock()

    def locked() -> object:
        with lock:
            return study.data()

    with pytest.raises(StudyError, match="worker processes.*take workers=1") as refused:
        optimize(replace(study, data=locked), workers=2, storage=tmp_path / "none.db")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("wrong", "options", "said"),
    [
        ("nameless", None, "expected a name"),
        ("study", {"width": 3}, "takes no options"),
        (types, None, "found a module"),
        ("digits-cn", None, "did you mean digits-cnn"),
    ],
)
def test_what_is_no_study_is_refused_in_a_line(
    study: Study, wrong: object, options: dict[str, int] | None, said: str
) -> None:
    studies = {"nameless": replace(study, name=""), "study": study}
    given = studies.get(wrong, wrong) if isinstance(wrong, str) else wrong
    with pytest.raises(StudyError, match=said) as refused:
        optimize(given, options=options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_budget_is_looked_up_as_a_share_or_a_number(front: Front) -> None:
    half = front.reference_cost / 2
    assert front.lookup("50%") == front.lookup(half)
    assert front.lookup("50%").cost <= half < front.points[-1].cost
    with pytest.raises(InputError, match="did you mean 50%"):
        front.lookup(0.5)


def test_a_fleet_is_an_object_or_its_text(study: Study, tmp_path: Path) -> None:
    text = "strong=0.5@1,weak=0.5@1/2"
    short = replace(study, short_run=replace(study.short_run, table_mini_batches=3))
    found = [
        optimize(short, trials=3, fleet=one, storage=tmp_path / f"{number}.db", progress=False)
        for number, one in enumerate((make_fleet(text), text))
    ]
    assert replace(found[0], created_at=found[1].created_at) == found[1]
    assert found[0].settings["fleet"]["fleet"] == text


def test_without_a_fleet_a_table_is_fitted_to_what_the_network_affords(
    study: Study, tmp_path: Path
) -> None:
    short = replace(study, short_run=replace(study.short_run, table_mini_batches=4))
    asked = {"trials": 3, "storage": tmp_path / "some.db", "progress": False}
    front = optimize(short, **asked)
    fitted, spread = front.settings["fleet"], make_fleet("spread").budgets()
    cheapest = front.settings["table"]["vectors"][0]["cost"] / front.reference_cost
    # The tiny network has no vector for the smallest budgets; with a fleet that is named:
    assert tuple(fitted["shares"]) == tuple(one for one in spread.shares if one >= cheapest)
    assert 0 < len(fitted["shares"]) < len(spread.shares) and sum(fitted["weights"]) == 1
    with pytest.raises(InputError, match="expected at least the"):
        optimize(short, fleet="spread", name="whole", **asked)


def test_a_front_goes_through_a_file_and_a_picture_shows_all_its_points(
    front: Front, storage: Path, tmp_path: Path
) -> None:
    save_front(front, tmp_path / "front.json")
    assert load_front(tmp_path / "front.json").content_hash == front.content_hash
    alone, searched = plot(front), plot(front, storage=storage)
    drawn = next(trace for trace in alone.data if trace.name == "verified front")
    assert len(drawn.x) == len(front.points) == len(front.table())
    assert len(searched.data) >= len(alone.data)
    with pytest.raises(InputError, match="found nothing"):
        plot()


def test_a_front_is_verified_with_its_study_object_and_not_without(
    study: Study, front: Front, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # no file of that name was given before
    asked = {"replicates": 2, "storage": storage, "progress": False}
    again = verify(front, study=study, **asked)
    assert len(again.points) == len(front.points) == len(again.non_dominated)
    heard: list[object] = []
    repeated = verify(front.label, study=study, listen=heard.append, **asked)
    assert repeated.points == again.points  # of the same short runs
    assert heard
    with pytest.raises(InputError, match="or the Study object"):
        verify(front, **asked)


def test_a_front_is_priced_anew_with_its_study_object(
    study: Study, front: Front, storage: Path
) -> None:
    asked = {"repetitions": 1, "storage": storage, "progress": False}
    priced = reprice(front, study=study, name="here", **asked)
    assert priced.front.cost_metric == "latency"
    assert load_front("here", storage) == priced.front
    with pytest.raises(InputError, match="cpu or cuda"):
        reprice(front, study=study, device="phone", **asked)


def test_progress_is_told_in_lines_where_no_terminal_is(
    study: Study, storage: Path, front: Front, capsys: pytest.CaptureFixture[str]
) -> None:
    optimize(study, trials=9, fleet="none", storage=storage)
    assert "verification" in capsys.readouterr().err
    heard: list[str] = []
    optimize(
        study, trials=9, fleet="none", storage=storage, listen=lambda one: heard.append(one.stage)
    )
    assert "verification" in heard and capsys.readouterr().err == ""


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from distreal_dse.errors import StorageError

    def fails(*_: object) -> None:
        raise StorageError("no room for pictures")

    monkeypatch.setattr("dashboards.publishing.publish", fails)
    yield


def test_pictures_that_can_t_be_drawn_are_a_warning(
    study: Study, storage: Path, front: Front, unpublished: None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert optimize(study, trials=9, fleet="none", storage=storage, progress=False) == front
    assert [str(one.message) for one in caught] == ["no room for pictures"]
