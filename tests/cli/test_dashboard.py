"""`distreal-dse dashboard`, and what `report` writes beside its page."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from browser import needs_chromium
from command_line import finish, run, start


def test_the_dashboard_shows_a_search_until_it_is_interrupted(storage: str) -> None:
    process = start(
        "dashboard", "--storage", storage, "--port", "0", "--read-only", "--allow-host",
        "dash.example.org", installed=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard\?token=([\w-]+) ", line)
        assert found, line
        headers = {"Authorization": f"Bearer {found[2]}", "Host": "dash.example.org"}

        def ask(path: str, method: str = "GET") -> Any:
            request = urllib.request.Request(found[1] + path, headers=headers, method=method)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)

        assert ask("/api/meta")["artifact_is_available"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask("/api/studies/1", "DELETE")
        # `optimize` has saved these.
        study = ask("/api/studies/1")
        assert {one["id"] for one in study["plotly_graph_objects"]} == {
            "distreal-front", "distreal-rates", "distreal-layers", "distreal-search"
        }  # fmt: skip
        assert "tiny@1" in study["note"]["body"]
    finally:
        process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert (ended.code, ended.stdout) == (0, "")
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_an_error_in_one_line(storage: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        error = run("dashboard", "--storage", storage, "--port", port).error(2)
    assert port in error and "--port" in error


def test_a_dashboard_of_no_database_is_an_error(tmp_path: Path) -> None:
    run("dashboard", "--storage", f"sqlite:///{tmp_path / 'none.db'}").error(1)
    assert list(tmp_path.iterdir()) == []


def test_a_report_gives_programs_the_numbers_behind_its_figures(
    storage: str, tmp_path: Path
) -> None:
    page, file = tmp_path / "report.html", tmp_path / "numbers.json"
    ended = run("report", "tiny@1", "--out", page, "--json", "-", "--storage", storage)
    assert ended.code == 0
    (front,) = ended.json["fronts"]
    assert front["label"] == "tiny@1" and len(front["trials"]) == 20
    full = sum(row[-1] for row in front["macs by layer"].values())
    assert full == pytest.approx(front["front"]["reference_cost"])
    assert len(front["search"]["spent"]) == len(front["search"]["hypervolumes"])
    command = ("report", "tiny", "--out", page, "--json", file, "--storage", storage)
    ended = run(*command, installed=True)
    assert (ended.code, ended.stdout) == (0, "")
    assert json.loads(file.read_text())["fronts"] == [front]


@needs_chromium
def test_a_report_writes_images_in_the_formats_asked_for(storage: str, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    options = ("--out", tmp_path / "report.html", "--svg", tmp_path / "svg")
    assert run("report", "tiny@1", *options, "--storage", storage).code == 0
    assert {file.name for file in (tmp_path / "svg").iterdir()} == {
        f"tiny-v1-{name}.svg" for name in ("front", "rates", "layers", "search")
    }
