"""A real deployment on loopback: what `fl flower-init` writes, started as its README says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from benchmarks._deployment import Deployment  # noqa: E402
from fl.flower.config import read_config  # noqa: E402
from fl.flower.serving import Serving  # noqa: E402
from fl.flower.writing import Project, write_project  # noqa: E402
from fl.store.runs import list_runs  # noqa: E402
from flower_runs import Ground  # noqa: E402

ROUNDS = 2


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground.make(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def deployment(ground: Ground) -> Iterator[Deployment]:
    folder = ground.folder / "project"
    project = Project(str(ground.study), "tiny", "distreal", ROUNDS, 2, 2, "thirds")
    write_project(folder, project, ground.database)
    made = Deployment(folder, devices=2)
    yield made
    assert made.close() == []


def begin(deployment: Deployment) -> None:
    deployment.start_link()
    for device in (0, 1):
        deployment.call(
            "flwr", "supernode", "register", f"certificates/device-{device}.pub", "deployment"
        )
        front = deployment.project / "front.json"
        deployment.start_node(device, f'partition-id={device} front="{front}"')


def test_two_supernodes_train_over_tls_what_the_engine_does(
    ground: Ground, deployment: Deployment
) -> None:
    begin(deployment)
    said = deployment.call("flwr", "run", ".", "deployment", "--stream", timeout=150)
    (run,) = list_runs(ground.database)
    assert run.finished, said
    assert [one.cohort for one in run.rounds] == [(), (0, 1), (0, 1)]
    assert {one.outcome for result in run.rounds[1:] for one in result.devices} == {"accepted"}
    # Its weights are gone with its checkpoints; what they score on the server's data is not.
    study = deployment.project / "distreal_app" / "study.py"
    config = ground.config(
        study=str(study), devices=2, cohort=2, rounds=ROUNDS, fleet="thirds", split="iid",
        epochs=1, seed=0,
    )  # fmt: skip
    state, _ = ground.in_process(config)
    serving = Serving(read_config(config, ground.folder), ground.database)
    serving.state = state
    bare = replace(run.rounds[-1], accuracy=None, loss=None)
    assert serving.scored(bare) == run.rounds[-1]
    assert run.rounds[-1].loss != run.rounds[0].loss
