"""torchvision beside a PyTorch that its compiled operators don't fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from command_line import environment
from tiny_study import write_study

# Fails where its operators aren't declared, as torchvision's own does in _meta_registrations.
FOR_ANOTHER_PYTORCH = """
import torch

torch.library.register_fake("torchvision::nms")(lambda *inputs: None)
"""

LOAD = """
import json, sys
from distreal_dse.study.catalogue import StudySource

described = StudySource(sys.argv[1]).load().description
import torch, torchvision

json.dump({
    "description": described,
    "file": torchvision.__file__,
    "loader": type(torchvision.__spec__.loader).__name__,
    "declared": hasattr(torch.ops.torchvision, "nms"),
}, sys.stdout)
"""


def loaded(folder: Path, torchvision: str, change: str) -> dict[str, object]:
    """What becomes of a study beside which there is a torchvision."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(torchvision)
    study = write_study(folder, change=change)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, study], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict) and found["file"] == str(folder / "torchvision" / "__init__.py")
    return found


def test_a_helper_module_of_a_study_may_import_torchvision(tmp_path: Path) -> None:
    (tmp_path / "networks_of_mine.py").write_text("import torchvision as vision\n")
    change = "\nimport networks_of_mine\nstudy = replace(study, description='loaded')\n"
    found = loaded(tmp_path, FOR_ANOTHER_PYTORCH, change)
    assert found["description"] == "loaded" and found["declared"]


def test_a_torchvision_that_works_is_left_alone(tmp_path: Path) -> None:
    found = loaded(tmp_path, "", "\nimport torchvision\n")
    assert found["loader"] == "SourceFileLoader" and not found["declared"]
