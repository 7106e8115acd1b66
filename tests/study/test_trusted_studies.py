"""What a user gave himself is known again; what a database names is not, by that alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distreal_dse.errors import StudyError
from distreal_dse.study.trusted import trust, trusted, trusted_file


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    new_process(monkeypatch)
    return folder


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distreal_dse.study.trusted._given_here", {})


def write(file: Path, text: str = "study = 1\n") -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_that_was_given_is_known_in_later_processes(tmp_path: Path) -> None:
    file = write(tmp_path / "ä study.py")
    command = "import sys\nfrom distreal_dse.study.trusted import trust\ntrust(sys.argv[1], 'one')"
    subprocess.run([sys.executable, "-c", command, file.name], check=True, cwd=tmp_path)
    assert trusted(file, "run 1") == file
    assert trusted_file("one") == file and trusted_file("another") is None


def test_a_file_that_was_never_given_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "given.py")
    trust(tmp_path / "given.py", "one")
    with pytest.raises(StudyError, match=r"run 7 names the study file '.*other\.py'.*--study FILE"):
        trusted(write(tmp_path / "other.py"), "run 7")


def test_a_file_that_was_changed_is_refused_until_it_is_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "one.py")
    trust(file, "one")
    write(file, "study = 2\n")
    with pytest.raises(StudyError, match="found it changed"):
        trusted(file, "run 7")
    with pytest.raises(StudyError, match="one.py last: .* found it changed; .*--study FILE"):
        trusted_file("one")
    trust(file, "one")
    new_process(monkeypatch)
    assert trusted(file, "run 7") == trusted_file("one") == file


def test_a_link_to_a_trusted_file_is_refused_as_other_modules_lie_beside_it(tmp_path: Path) -> None:
    file = write(tmp_path / "mine" / "one.py")
    trust(file, "one")
    link = tmp_path / "theirs" / "one.py"
    link.parent.mkdir()
    link.symlink_to(file)
    with pytest.raises(StudyError, match="found none such"):
        trusted(link, "run 7")
    folder = tmp_path / "linked"
    folder.symlink_to(file.parent)
    assert trusted(folder / "one.py", "run 7") == file  # whatever the link leads to later


def test_a_record_that_was_moved_to_another_path_counts_for_nothing(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = write(tmp_path / "one.py"), write(tmp_path / "other.py")
    trust(file, "one")
    (record,) = state.rglob("*.json")
    trust(other, "other")
    (second,) = set(state.rglob("*.json")) - {record}
    second.write_bytes(record.read_bytes())
    new_process(monkeypatch)
    with pytest.raises(StudyError, match="found none such"):
        trusted(other, "run 7")
    second.write_text("{")
    with pytest.raises(StudyError, match="found none such"):
        trusted(other, "run 7")


def test_of_several_files_of_a_study_the_one_given_last_is_taken(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(tmp_path / "a" / "one.py"), write(tmp_path / "b" / "one.py")
    for age, file in enumerate((second, first, second)):
        trust(file, "one")
        for record in state.rglob("*.json"):  # clocks of file systems are coarse
            if str(file) in record.read_text():
                os.utime(record, (1e9 + age, 1e9 + age))
    new_process(monkeypatch)
    assert trusted_file("one") == second
    second.unlink()
    assert trusted_file("one") == first
    first.unlink()
    with pytest.raises(StudyError, match="found it gone"):
        trusted_file("one")


def test_nobody_else_can_add_to_what_is_remembered(tmp_path: Path, state: Path) -> None:
    trust(write(tmp_path / "one.py"), "one")
    (record,) = state.rglob("*.json")
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700


def test_where_nothing_can_be_written_this_process_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(write(tmp_path / "a file")))
    file = write(tmp_path / "one.py")
    trust(file, "one")
    assert trusted(file, "run 7") == trusted_file("one") == file
    new_process(monkeypatch)
    assert trusted_file("one") is None
    with pytest.raises(StudyError, match="found none such"):
        trusted(file, "run 7")
