"""The trials of a search in optuna-dashboard, in a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from optuna_dashboard import wsgi

from browser import needs_chromium, render
from distreal_dse.catalogue import StudySource
from distreal_dse.search import SearchSettings, search
from tiny_study import write_study

TRIALS = 12


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the log of requests out of the test's output."""


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """URL of an optuna-dashboard on loopback, over a finished search."""
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    search(SearchSettings(StudySource(str(write_study(tmp_path))), trials=TRIALS), storage)
    server = make_server("127.0.0.1", 0, wsgi(storage), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@needs_chromium
def test_the_study_page_shows_the_pareto_plot_of_all_trials(dashboard: str, tmp_path: Path) -> None:
    page, complaints = render(f"{dashboard}/dashboard/studies/1", tmp_path / "profile")
    assert not complaints
    texts = set(page.texts)
    assert "Pareto Front" in texts
    assert {"training MACs", "validation loss gain"} <= texts
    # Each trial is a point of the Pareto plot, and one of the history below it.
    assert page.classes.count("point") >= 2 * TRIALS
