"""The light distribution for devices: what it requires, and what works with no more than that."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from distreal_dse.fronts import export_front
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.installation import LEFT_OUT
from fl.testing import hand_made_front
from tiny_study import write_study

ROOT = Path(__file__).parents[1]

# What a device does, where the packages that it has not can't be imported.
DEVICE = """
import sys

for name in {left_out!r}:
    sys.modules[name] = None

import fl
from distreal_dse import load_front, optimize, plot
from distreal_dse.cli import main
from distreal_dse.errors import DistrealError

front = load_front("front.json")
assert front.lookup("50%").kept_counts == (4, 5)
result = fl.run("./tiny.py", front="front.json", rounds=1, devices=4, cohort=2, progress=False)
print("trained", len(result.rounds))
for wrong in (lambda: optimize("./tiny.py", trials=2), lambda: plot(front)):
    try:
        wrong()
    except DistrealError as error:
        print(error)
for command in sys.argv[1:]:
    sys.argv = ["distreal-dse", *command.split()]
    try:
        main()
    except SystemExit as ended:
        print(command.split()[0], ended.code)
"""


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def requirements(folder: Path) -> dict[str, Requirement]:
    return {one.name: one for one in map(Requirement, project(folder)["dependencies"])}


def test_it_requires_a_part_of_the_full_distribution_in_the_same_ranges() -> None:
    full, light = requirements(ROOT), requirements(ROOT / "light")
    assert light.items() <= full.items()
    imported = {"scikit-learn": "sklearn"}
    names = {imported.get(name, name.replace("-", "_")) for name in full.keys() - light.keys()}
    assert names == set(LEFT_OUT)
    for field in ("version", "requires-python", "license", "scripts"):
        assert project(ROOT)[field] == project(ROOT / "light")[field]


def test_a_device_looks_up_measures_and_trains_without_the_rest(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    network = prepare(StudySource(str(study)).load(), 0)[0]
    front = hand_made_front(network, (2, 3), (4, 5), (6, 8), name="tiny", study="tiny")
    export_front(front, tmp_path / "front.json")
    ended = subprocess.run(
        [sys.executable, "-c", DEVICE.format(left_out=LEFT_OUT), "lookup front.json --budget 50%",
         "measure ./tiny.py --repetitions 1 --rates 0,0.5", "report"],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    trained, search, picture, *codes = ended.stdout.splitlines()
    assert trained == "trained 2"
    assert search.startswith("a search needs the package optuna") and "pip install" in search
    assert picture.startswith("a picture needs the package plotly")
    assert codes == ["lookup 0", "measure 0", "report 1"]
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("error:")]
    assert line.startswith("error: this command needs the package ")


def test_the_citation_names_the_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {project(ROOT)['version']}" in lines
