from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine
from torch import nn
from torch.utils.data import TensorDataset

from distreal_dse import Data, Study
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.fronts import Front, open_database, save_front
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.store.specs import RunSpec
from fl.testing import hand_made_front
from fl.world.deadlines import RoundRules
from tiny_study import write_study

MakeFront = Callable[..., Front]


def small_cnn(classes: int = 3, normalised: bool = True, width: int = 8) -> nn.Module:
    """Two convolutions (``width`` and twice as many channels) and a linear classifier."""

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if normalised else nn.Identity()

    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), norm(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), norm(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )  # fmt: skip


def random_data() -> Data:
    """120 training samples of noise in three classes, 30 for each other part."""
    random = torch.Generator().manual_seed(7)

    def part(size: int) -> TensorDataset:
        return TensorDataset(
            torch.randn(size, 1, 4, 4, generator=random),
            torch.randint(3, (size,), generator=random),
        )

    return Data(part(120), part(30), part(30))


@pytest.fixture
def make_cnn() -> Callable[..., nn.Module]:
    return small_cnn


@pytest.fixture
def data() -> Data:
    return random_data()


@pytest.fixture
def study() -> Study:
    return Study(model=small_cnn, data=random_data, batch_size=8, name="noise")


@pytest.fixture
def plain_study() -> Study:
    """The study without batch normalisation."""
    return Study(
        model=lambda: small_cnn(normalised=False), data=random_data, batch_size=8, name="plain"
    )


@pytest.fixture
def network(study: Study) -> DroppableNetwork:
    return prepare(study, seed=0)[0]


@pytest.fixture
def make_front() -> MakeFront:
    return hand_made_front


@pytest.fixture
def front(network: DroppableNetwork) -> Front:
    """Three vectors: about 15 % and 40 % of the MACs, and the full network."""
    return hand_made_front(network, (3, 4), (5, 10), (8, 16))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database with our tables, to be copied: they take longer to make than a run."""
    file = tmp_path_factory.mktemp("empty") / "runs.db"
    open_database(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def database(url: str, empty: Path) -> Iterator[Engine]:
    shutil.copy(empty, url.removeprefix("sqlite:///"))
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def tiny_front(tmp_path_factory: pytest.TempPathFactory) -> Front:
    """Three vectors of the network of `tiny_study`."""
    study = write_study(tmp_path_factory.mktemp("tiny"))
    network = prepare(StudySource(str(study)).load(), 0)[0]
    return hand_made_front(network, (2, 3), (4, 5), (6, 8), name="tiny", study="tiny")


@pytest.fixture
def spec(tmp_path: Path, database: Engine, tiny_front: Front) -> RunSpec:
    """A run of five rounds with front ``tiny`` on the study file of `tiny_study`."""
    study = write_study(tmp_path)
    save_front(database, tiny_front)
    return RunSpec(
        study=str(study),
        front="tiny",
        rounds=5,
        devices=6,
        cohort=3,
        availability="markov:stay=0.5",
        split="dirichlet:alpha=0.5",
        server="momentum:lr=1,beta=0.5",
        rules=RoundRules(deadline=1.2, overcommit=0.3),
        checkpoint_every=2,
    )
