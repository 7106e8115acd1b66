"""Figures as SVG and PNG files, for papers and slides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from distreal_dse.errors import InputError

# Wide enough for a column of a paper at 300 dots per inch once PNGs are scaled by two.
WIDTH, SCALE = 800, 2


def write_images(
    figures: Mapping[str, go.Figure],
    folder: str | os.PathLike[str],
    formats: tuple[str, ...] = ("svg", "png"),
) -> list[Path]:
    """Write each figure as ``folder/name.format``, and return the files.

    Parameters
    ----------
    figures
        By file name, without its ending.
    folder
        Made where it is missing.
    formats
        What Kaleido can write: ``svg``, ``png``, ``pdf`` …

    Raises
    ------
    InputError
        Where Kaleido or a Chromium is missing, or the folder can't be written.
    """
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise InputError(
            "images: expected the package kaleido, found none; `pip install 'kaleido>=1,<2'`"
        ) from error
    folder = Path(folder)
    files = {
        folder / f"{name}.{end}": figure for name, figure in figures.items() for end in formats
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kaleido.write_fig_from_object_sync(
            [
                {
                    "fig": figure,
                    "path": path,
                    "opts": {"format": path.suffix[1:], "width": WIDTH, "scale": SCALE},
                }
                for path, figure in files.items()
            ],
            cancel_on_error=True,
            # Without this it would load MathJax from the network.
            kopts={"mathjax": False},
        )
    except (BrowserClosedError, BrowserFailedError, ChromeNotFoundError) as error:
        raise InputError(
            f"images: expected a Chromium or Chrome that starts, found: {type(error).__name__}; "
            "install one, or name it in BROWSER_PATH"
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder}: images can't be written: expected a writable folder, found: "
            f"{error.strerror}; give another path"
        ) from error
    return list(files)
