from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Ended, run
from tiny_study import write_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def optimized(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Ended]:
    """The URL of a database with the front ``tiny@1``, and what `optimize --json` said."""
    url = f"sqlite:///{tmp_path_factory.mktemp('storage')}/search.db"
    return url, run(
        "optimize", study, "--fleet", "none", "--trials", "20", "--storage", url, "--json"
    )


@pytest.fixture(scope="session")
def storage(optimized: tuple[str, Ended]) -> str:
    return optimized[0]
