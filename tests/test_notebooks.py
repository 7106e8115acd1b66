"""The notebooks of `examples/` work as they are, and show what they show as they are stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from examples.execute import FOLDER, executed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIGURE = "application/vnd.plotly.v1+json"


def outputs(notebook: Any) -> list[Any]:
    return [one for cell in notebook.cells for one in cell.get("outputs", ())]


def printed(notebook: Any) -> str:
    return "".join(one.text for one in outputs(notebook) if one.output_type == "stream")


def figures(notebook: Any) -> list[Any]:
    found = outputs(notebook)
    return [one.data[FIGURE] for one in found if FIGURE in one.get("data", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end_and_draws_what_is_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("DISTREAL_STORAGE", raising=False)
    stored = nbformat.read(path, as_version=4)
    found = executed(path, tmp_path)
    assert len(figures(found)) == len(figures(stored)) >= 1
    assert all(len(figure["data"]) >= 1 for figure in figures(found))
    budgets = re.compile(r"budget +\d+%")
    assert budgets.findall(printed(found)) == budgets.findall(printed(stored)) != []
    assert not [one for one in outputs(found) if one.get("name") == "stderr"]  # no warnings
    # What is shown to hold, holds.
    assert not [one for one in outputs(found) if one.get("data", {}).get("text/plain") == "False"]
    assert (tmp_path / "example.db").exists()


def test_the_trained_network_of_a_notebook_is_as_good_as_its_run_says() -> None:
    stored = nbformat.read(FOLDER / "federated_with_your_model.ipynb", as_version=4)
    said = re.search(
        r"([\d.]+%) of the test images are right.\nThe last round said: ([\d.]+%)", printed(stored)
    )
    assert said is not None and said[1] == said[2]


def test_notebooks_name_no_folder_of_the_machine_that_stored_them() -> None:
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text())
