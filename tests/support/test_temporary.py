"""Temporary folders live as long as their owners, and not much longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distreal_dse.support.temporary import PREFIX, TemporaryFolder, sweep

OWNER = """
import sys
from distreal_dse.support.temporary import TemporaryFolder

folder = TemporaryFolder()
(folder.path / "state").write_text("large")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_folder_is_swept_when_its_owner_was_killed_and_not_before(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        path = Path(owner.stdout.readline().strip())
        sweep()
        assert (path / "state").exists() and path.parent == temporary
        owner.kill()
        owner.wait()
        assert path.exists()
        sweep()
        assert list(temporary.iterdir()) == []


def test_own_folders_stay_until_they_are_closed(temporary: Path) -> None:
    folder = TemporaryFolder()
    sweep()
    assert list(temporary.iterdir()) == [folder.path]
    folder.close()
    assert list(temporary.iterdir()) == []
    folder.close()  # once more does no harm


def test_what_is_not_ours_is_left_alone(temporary: Path, tmp_path: Path) -> None:
    others = [temporary / name for name in ("pymp-abc", "distreal-dse-abc", "tmpabc")]
    for one in others:
        one.mkdir()
    (temporary / f"{PREFIX}file").touch()
    target = tmp_path / "target"
    target.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(target)
    kept = {*others, temporary / f"{PREFIX}file", temporary / f"{PREFIX}link"}
    if os.geteuid() == 0:
        theirs = temporary / f"{PREFIX}theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        kept.add(theirs)
    sweep()
    assert set(temporary.iterdir()) == kept and target.exists()
