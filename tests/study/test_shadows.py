"""Modules of a user that have the names of packages of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import COMMAND, environment
from distreal_dse.doctor import examine
from distreal_dse.errors import InputError, StudyError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.shadows import HOME, PACKAGES, claim_packages, shadowed_packages
from tiny_study import write_study


def package(folder: Path, name: str, text: str = "") -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "command"), [("studies", ["studies"]), ("fl", ["fl", "strategies"])]
)
def test_a_command_refuses_what_shadows_a_package_of_ours(
    tmp_path: Path, name: str, command: list[str]
) -> None:
    mine = package(tmp_path, name)
    path = os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [COMMAND, *command],
        capture_output=True, text=True, cwd=tmp_path, env={**environment(), "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: package {name} of distreal-dse: expected {HOME / name}, ")
    assert f"found {mine}, which shadows it: rename" in line


def test_each_package_and_module_in_our_place_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shadowed_packages() == {}
    mine = package(tmp_path, "dashboards")
    (tmp_path / "studies.py").touch()
    (tmp_path / "fl").mkdir()  # without __init__.py, so that ours is found
    for name in PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert shadowed_packages() == {
        "dashboards": str(mine), "studies": str(tmp_path / "studies.py"),
    }  # fmt: skip
    with pytest.raises(InputError, match="package dashboards of distreal-dse"):
        claim_packages()
    with pytest.raises(InputError, match="package dashboards of distreal-dse"):
        StudySource("digits-cnn").load()


def test_the_doctor_tells_what_shadows_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = package(tmp_path, "dashboards")
    monkeypatch.delitem(sys.modules, "dashboards", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = next(one for one in examine("sqlite://") if one.subject == "own packages")
    assert found.state == "broken" and f"dashboards is {mine}" in found.found
    monkeypatch.undo()
    found = next(one for one in examine("sqlite://") if one.subject == "own packages")
    assert found.state == "works" and str(HOME) in found.found


@pytest.mark.parametrize(
    ("line", "plain_folder"),
    [
        ("import fl", False),  # of a plain folder it is ours: any package comes before
        ("from fl import something", False),
        ("from fl import something", True),
        ("from fl.models import something", False),
        ("from fl.models import something", True),
    ],
)
def test_a_study_that_imports_its_own_package_of_our_name_is_refused(
    tmp_path: Path, line: str, plain_folder: bool
) -> None:
    mine = package(tmp_path, "fl", "something = 1\n")
    (mine / "models.py").write_text("something = 1\n")
    if plain_folder:
        (mine / "__init__.py").unlink()
    study = write_study(tmp_path, change=f"\n{line}\n")
    with pytest.raises(StudyError, match=f"study file .* imports fl, .* in {tmp_path}: .* rename"):
        StudySource(str(study)).load()


def test_a_helper_of_a_study_is_refused_like_the_study(tmp_path: Path) -> None:
    (tmp_path / "fl.py").touch()
    (tmp_path / "helper_that_shadows.py").write_text("import fl\n")
    study = write_study(tmp_path, change="\nimport helper_that_shadows\n")
    with pytest.raises(StudyError, match="imports fl, "):
        StudySource(str(study)).load()


def test_ours_are_as_before_once_a_study_was_refused(tmp_path: Path) -> None:
    import fl
    import fl.store.specs

    package(tmp_path, "fl")
    (tmp_path / "fl" / "mine.py").touch()
    with pytest.raises(StudyError):
        StudySource(str(write_study(tmp_path, change="\nimport fl.mine\n"))).load()
    assert sys.modules["fl"] is fl and sys.modules["fl.store.specs"] is fl.store.specs
    assert "fl.mine" not in sys.modules and str(tmp_path) not in sys.path
    assert shadowed_packages() == {}


def test_what_lies_beside_a_study_and_is_not_imported_does_no_harm(tmp_path: Path) -> None:
    for name in PACKAGES:
        package(tmp_path, name, "raise RuntimeError('not to be imported')\n")
    assert StudySource(str(write_study(tmp_path))).load().name == "tiny"
    import dashboards.numbers

    assert Path(dashboards.numbers.__file__).parent == HOME / "dashboards"
