"""What works on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run
from distreal_dse.doctor import examine, packages
from distreal_dse.fronts import open_database

METADATA = """Metadata-Version: 2.1
Name: needs-more
Version: 1
Provides-Extra: more
Requires-Dist: numpy<1
Requires-Dist: torch>=2
Requires-Dist: not-to-be-had<3,>=2
Requires-Dist: not-either>=1; extra == "more"
Requires-Dist: not-for-us>=1; sys_platform == "elsewhere"
"""


def test_packages_are_held_against_what_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "needs_more-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)
    found = {one.subject: one for one in packages("needs-more")}
    assert found.keys() == {"numpy", "not-to-be-had", "not-either", "packages"}
    assert found["numpy"].state == "broken" and "expected <1" in found["numpy"].found
    assert found["numpy"].advice == "pip install 'numpy<1'"
    assert found["not-to-be-had"].state == "broken"
    assert found["not-either"].state == "missing"
    assert found["not-either"].advice == "pip install 'needs-more[more]'"
    assert found["packages"].found.startswith("torch 2.")


def test_a_machine_that_tests_pass_on_works(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/d.db"
    command = ("doctor", "--storage", url)
    found = {one["subject"]: one for one in run(*command, "--json", installed=True).json}
    assert found["packages"]["state"] == found["training on cpu"]["state"] == "works"
    assert found["processor"]["found"]
    assert found["storage"]["state"] == "missing" and not (tmp_path / "d.db").exists()
    open_database(url).dispose()
    shown = run(*command)
    assert shown.code == 0 and shown.stdout == ""
    assert "federated runs: 0" in " ".join(shown.stderr.replace("│", " ").split())


def test_what_is_broken_is_told_and_the_rest_is_tried(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_text("no database")
    ended = run("doctor", "--storage", f"sqlite:///{tmp_path}/d.db")
    assert ended.code == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == "error: broken here: storage"
    assert "training on cpu" in ended.stderr


def test_storage_is_tried_by_a_transaction_that_writes(tmp_path: Path) -> None:
    file = tmp_path / "d.db"
    open_database(f"sqlite:///{file}").dispose()
    found = {one.subject: one for one in examine(f"sqlite:///file:{file}?mode=ro&uri=true")}
    assert found["storage"].state == "broken"
    assert "expected a writable database, found a read-only one" in found["storage"].found


def test_a_checkout_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distreal_dse.doctor.distribution", lambda: "not-to-be-had")
    found = {one.subject: one for one in examine("sqlite:////nowhere/d.db")}
    assert found["packages"].state == "broken" and "not installed" in found["packages"].found
    assert found["training on cpu"].state == "works"


def test_pictures_are_missed_where_there_is_no_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {one.subject: one for one in examine(f"sqlite:///{tmp_path}/d.db")}
    assert found["pictures"].state == "missing"
    assert "expected" in found["pictures"].advice
