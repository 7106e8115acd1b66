"""Short runs of whole tables, and short runs beside a table's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distreal_dse import Data, Study
from distreal_dse.budgets import Budgets
from distreal_dse.convergence import FleetTable, Replicate, ShortRuns, TableRuns
from distreal_dse.data.evaluation import evaluate
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, KeptCounts
from distreal_dse.errors import InputError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator, seeded
from tiny_study import write_study

MIXED = Budgets("mixed", (0.2, 1.0), (0.5, 0.5))
VECTORS: tuple[KeptCounts, ...] = ((2, 2), (6, 8))
TABLE = FleetTable(MIXED, VECTORS, (0.1, 1.0))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    tiny = StudySource(str(write_study(tmp_path_factory.mktemp("study")))).load()
    return replace(tiny, short_run=replace(tiny.short_run, table_mini_batches=12))


@pytest.fixture
def prepared(study: Study) -> tuple[DroppableNetwork, Data]:
    return prepare(study, seed=0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, KeptCounts]]:
    """The targets and kept counts of each mini-batch that is trained from now on."""
    steps: list[tuple[Tensor, KeptCounts]] = []
    step = DropoutTrainer.step

    def remember(
        self: DropoutTrainer, inputs: Tensor, targets: Tensor, counts: KeptCounts
    ) -> float:
        steps.append((targets, counts))
        return step(self, inputs, targets, counts)

    monkeypatch.setattr(DropoutTrainer, "step", remember)
    return steps


def test_a_table_of_the_full_network_trains_as_plain_pytorch_does(
    study: Study, prepared: tuple[DroppableNetwork, Data]
) -> None:
    network, data = prepared
    full = FleetTable(Budgets("strong", (1.0,), (1.0,)), VECTORS[1:], (1.0,))
    found = TableRuns(study, data, network, 5).run(full, "s", 3)
    with seeded(5, "s", 3, "model"):
        plain = study.model()
    optimizer = study.optimizer(plain.parameters())
    order = generator(5, "s", 3, "data")
    samples = torch.arange(100)
    done = 0
    while done < 12:
        shuffled = samples[torch.randperm(100, generator=order)]
        for batch in shuffled.split(16):
            if len(batch) == 16 and done < 12:
                inputs, targets = (torch.stack(part) for part in _fetched(data, batch))
                optimizer.zero_grad()
                nn.functional.cross_entropy(plain(inputs), targets).backward()
                optimizer.step()
                done += 1
    score = evaluate(plain, data.validation, study.loss, data.train, None)
    assert found.loss_gain == pytest.approx(-math.log(score.loss), rel=1e-5)
    assert found.accuracy == score.accuracy


def _fetched(data: Data, batch: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [data.train[index] for index in batch.tolist()]
    return [one for one, _ in pairs], [torch.as_tensor(label) for _, label in pairs]


def test_runs_of_a_replicate_differ_in_the_table_alone(
    study: Study,
    prepared: tuple[DroppableNetwork, Data],
    trained: list[tuple[Tensor, KeptCounts]],
) -> None:
    network, data = prepared
    runs = TableRuns(study, data, network, 0)
    other = FleetTable(MIXED, ((3, 4), (6, 8)), (0.1, 1.0))
    first = runs.run(TABLE, "s", 0)
    runs.run(other, "s", 0)
    assert runs.run(TABLE, "s", 0) == first  # whatever was trained in between
    steps = [trained[12 * part : 12 * (part + 1)] for part in range(3)]
    for (mine, small), (yours, changed), (again, _) in zip(*steps, strict=True):
        assert torch.equal(mine, yours) and torch.equal(mine, again)
        assert {(2, 2): (3, 4), (6, 8): (6, 8)}[small] == changed
    assert {counts for _, counts in steps[0]} == set(VECTORS)
    assert runs.run(TABLE, "s", 1) != first and runs.run(TABLE, "t", 0) != first


def test_mini_batches_beside_a_vector_are_those_of_the_fleet(
    study: Study,
    prepared: tuple[DroppableNetwork, Data],
    trained: list[tuple[Tensor, KeptCounts]],
) -> None:
    network, data = prepared
    long = replace(study, short_run=replace(study.short_run, warm_up=20, mini_batches=40))
    runs = ShortRuns(long, data, network, 0, others=TABLE)
    assert {counts for _, counts in trained} == set(VECTORS)  # the warm-up
    trained.clear()
    assert isinstance(runs.run((4, 5), "s", 0), Replicate)
    counts = [counts for _, counts in trained]
    assert counts.count((4, 5)) == 20 and 5 <= counts.count((2, 2)) <= 15
    assert len(counts) == 40


def test_a_table_has_a_vector_for_every_budget_of_its_fleet() -> None:
    assert [TABLE.pick(budget) for budget in (0.1, 0.99, 1.0)] == [(2, 2), (2, 2), (6, 8)]
    assert TABLE.unused() == pytest.approx(1 - (0.5 * 0.1 + 0.5) / 0.6)
    with pytest.raises(InputError, match="has budgets of 5.000% of the full network's cost"):
        FleetTable(Budgets("weak", (0.05,), (1.0,)), VECTORS, (0.1, 1.0))
