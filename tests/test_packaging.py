"""What is installed: built as pip builds it, and read as the type checker of a user reads it."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]

USER_FILE = """
from dashboards.numbers import report_numbers
from distreal_dse import Study
from distreal_dse.catalogue import StudySource
from fl.store.specs import RunSpec
from studies.digits_cnn import study

reveal_type(StudySource("digits-cnn").load())
reveal_type(RunSpec.seed)
reveal_type(report_numbers)
reveal_type(study)
Study(batch_size="many")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    return folder / "bin" / "python"


def test_a_type_checker_sees_the_types_of_all_four_packages(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "user.py").write_text(USER_FILE)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", installed,
         "--config-file", "", "--cache-dir", tmp_path / "cache", "user.py"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    revealed = [line.partition("note: Revealed type is ")[2] for line in checked.stdout.split("\n")]
    types = [text.strip('"') for text in revealed if text]
    assert types[0] == types[3] == "distreal_dse.study.Study", checked.stdout
    assert types[1] == "int"
    assert "fl.store.runs.Run" in types[2]
    assert 'Argument "batch_size" to "Study" has incompatible type "str"' in checked.stdout
    assert "missing library stubs" not in checked.stdout


def test_an_installed_package_finds_its_studies_beside_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "__init__.py").touch()
    told = subprocess.run(
        [installed, "-c", "from distreal_dse.catalogue import *; print(*shipped_studies())"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert told.stdout.split()[0] == "cifar10-cnn" and "digits-cnn" in told.stdout, told.stderr
