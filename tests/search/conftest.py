from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distreal_dse.fronts import open_database
from distreal_dse.search import SearchSettings, search
from distreal_dse.search.ledger import close_trials, open_trials
from distreal_dse.study.catalogue import StudySource
from tiny_study import Finished, write_study


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> StudySource:
    return StudySource(str(write_study(tmp_path_factory.mktemp("studies"))))


@pytest.fixture(scope="session")
def finished(source: StudySource, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    file = tmp_path_factory.mktemp("finished") / "search.db"
    settings = SearchSettings(source, trials=20)
    return Finished(file, settings, search(settings, f"sqlite:///{file}"))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database with our tables and Optuna's, to be copied, as they take long.

    ``finished``, and all searches of commands, begin without a file.
    """
    file = tmp_path_factory.mktemp("empty") / "search.db"
    open_database(f"sqlite:///{file}").dispose()
    close_trials(open_trials(f"sqlite:///{file}"))
    return file


@pytest.fixture
def url(tmp_path: Path, empty: Path) -> str:
    shutil.copy(empty, tmp_path / "search.db")
    return f"sqlite:///{tmp_path}/search.db"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
