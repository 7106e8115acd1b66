"""What is said where there is no Flower, or another; runs without the extra, too."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from distreal_dse.errors import InputError

REQUIREMENT = Path(__file__).parents[3] / "fl" / "flower" / "requirement.py"


def require(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(package: str) -> str:
        assert package == "flwr"
        if found is None:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    # By its path, as importing the package asks for Flower already.
    spec = importlib.util.spec_from_file_location("requirement", REQUIREMENT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "requirement", module)
    spec.loader.exec_module(module)
    module.require_flower()


@pytest.mark.parametrize("found", [None, "1.27.0", "2.0.0", "2.1"])
def test_no_flower_and_another_major_version_are_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        require(monkeypatch, found)
    said = str(caught.value)
    assert f"found {found or 'none'}; install it with pip install 'distreal-dse[flower]'" in said
    assert "\n" not in said


@pytest.mark.parametrize("found", ["1.28.0", "1.42.0", "1.99"])
def test_versions_that_fit_are_taken(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    require(monkeypatch, found)
