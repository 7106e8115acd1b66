"""Executes the notebooks of this folder and stores their outputs: ``python examples/execute.py``.

It needs nbclient and ipykernel, as ``make test`` installs them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
# Seconds that a cell may take.
TIMEOUT = 300


def executed(notebook: Path, folder: Path) -> NotebookNode:
    """Execute a notebook in a folder; return it with its outputs.

    Figures are stored as data, which is small, and not with the library that draws them.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    os.environ["IPYTHONDIR"] = str(folder / ".ipython")
    found = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        found,
        timeout=TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return found


def main() -> None:
    """Execute those that are named, or all."""
    for notebook in map(Path, sys.argv[1:] or sorted(map(str, FOLDER.glob("*.ipynb")))):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(notebook, Path(folder)), notebook)


if __name__ == "__main__":
    main()
