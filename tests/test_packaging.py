"""What is installed: built as pip builds it, and read as the type checker of a user reads it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from command_line import environment
from tiny_study import write_study

ROOT = Path(__file__).parents[1]

USER_FILE = """
from dashboards.numbers import report_numbers
from distreal_dse import Study
from distreal_dse.study.catalogue import StudySource
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
    assert types[0] == types[3] == "distreal_dse.study._study.Study", checked.stdout
    assert types[1] == "int"
    assert "fl.store.runs.Run" in types[2]
    assert 'Argument "batch_size" to "Study" has incompatible type "str"' in checked.stdout
    assert "missing library stubs" not in checked.stdout


def test_an_installed_package_finds_its_studies_beside_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "__init__.py").touch()
    told = subprocess.run(
        [installed, "-c", "from distreal_dse.study.catalogue import *; print(*shipped_studies())"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert told.stdout.split()[0] == "cifar10-cnn" and "digits-cnn" in told.stdout, told.stderr


# README's commands on a study that takes seconds, in one process: PyTorch is imported once.
SHORT = """
import shlex, sys
from distreal_dse.cli._app import app

for line in sys.stdin:
    print(line.strip(), file=sys.stderr)
    app(shlex.split(line), standalone_mode=False)
"""
SHORT_TABLES = """
study = replace(study, short_run=replace(study.short_run, table_mini_batches=3))
"""
SHORTER = {
    "optimize": "--trials 3 --no-pilot",
    "front verify": "--replicates 2",
    "front reprice": "--repetitions 2",
    "fl run": "--rounds 1 --devices 4 --cohort 2",
    "fl compare": "--rounds 1 --devices 4 --cohort 2 --seeds 1 --strategies distreal,fedavg",
}


def readme_commands() -> list[str]:
    """The commands of "What you do with it", made short; the dashboard serves without end."""
    text = (ROOT / "README.md").read_text().partition("## What you do with it")[2]
    block = text.partition("```console")[2].partition("```")[0]
    commands = [
        line.partition("#")[0].strip().removeprefix("$ distreal-dse ")
        for line in block.splitlines()
        if line.startswith("$ distreal-dse ")
    ]
    short = []
    for command in commands:
        options = next((more for begin, more in SHORTER.items() if command.startswith(begin)), "")
        command = command.replace("--fleet extreme", "--fleet thirds").replace("--workers 2", "")
        for begin in ("optimize", "fl run", "fl compare"):
            command = command.replace(f"{begin} digits-cnn", f"{begin} ./tiny.py")
        short.append(f"{command.replace('digits-cnn', 'tiny')} {options}")
    return [command for command in short if not command.startswith("dashboard")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; what it requires is that of these tests.

    Nothing is fetched, so the requirements themselves can't be installed anew.
    """
    folder = tmp_path_factory.mktemp("clean")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    venv.create(folder)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
         "--no-deps", "--disable-pip-version-check", wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_an_installed_wheel_is_run_by_its_script_and_as_a_module(
    clean: Path, tmp_path: Path
) -> None:
    for command in ([clean.with_name("distreal-dse")], [clean, "-m", "distreal_dse"]):
        told = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path)
        assert told.stdout.split() == [version("distreal-dse")], told.stderr


def test_readme_s_commands_work_with_an_installed_wheel(clean: Path, tmp_path: Path) -> None:
    write_study(tmp_path, change=SHORT_TABLES)
    commands = readme_commands()
    assert len(commands) == 13
    ended = subprocess.run(
        [clean, "-c", SHORT], input="\n".join(commands), capture_output=True, text=True,
        cwd=tmp_path, timeout=600,
        env={**environment(), "XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert {"report.html", "front.json", "distreal.db"} <= {one.name for one in tmp_path.iterdir()}
    where = subprocess.run(
        [clean, "-c", "import distreal_dse; print(distreal_dse.__file__)"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert where.stdout.startswith(str(clean.parents[1]))
