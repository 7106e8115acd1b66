"""What a device trains follows from no trained weight, so it can be planned ahead."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cohorts import begin, tasks_of
from distreal_dse.dropout import DropoutTrainer, KeptCounts
from fl.client import train_virtually
from fl.cohort.planned import planned_round, says_its_work
from fl.cohort.turns import groups_of
from fl.strategies import LocalPlan, built_in_strategies
from fl.strategies.base import FixedPlan
from fl.testing import SETTINGS
from fl.world.deadlines import RoundRules

SEEN: list[tuple[KeptCounts, KeptCounts | None, int]] = []


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that draws masks and trains nothing."""
    SEEN.clear()

    def step(
        self: DropoutTrainer, inputs: Tensor, targets: Tensor, counts: KeptCounts, *_: object
    ) -> float:
        SEEN.append((counts, None, len(inputs)))
        full = counts == self._network.full_counts
        self.last_mask = self._everything if full else self._draw(counts)
        return 0.0

    def step_nested(
        self: DropoutTrainer,
        inputs: Tensor,
        targets: Tensor,
        counts: KeptCounts,
        inner: KeptCounts,
        _: object,
    ) -> float:
        if counts == inner:
            return step(self, inputs, targets, counts)
        step(self, inputs, targets, counts)
        SEEN[-1] = (counts, inner, len(inputs))
        self._draw(inner)
        return 0.0

    monkeypatch.setattr(DropoutTrainer, "step", step)
    monkeypatch.setattr(DropoutTrainer, "step_nested", step_nested)


@pytest.mark.parametrize("strategy", built_in_strategies())
def test_a_stub_trainer_meets_the_plan(strategy: str, stub: None) -> None:
    rules = RoundRules(deadline=0.9, late="partial")
    run = begin(strategy, settings=replace(SETTINGS, local_epochs=3, rules=rules))
    state, stop = run.checkpoint().state, 3.0 + float(run._deadline)
    for task in tasks_of(run, (20, 13, 24)):
        SEEN.clear()
        update = train_virtually(run.training, task.device, task.samples, state, 2, 3.0, stop)
        plan = planned_round(run.training, task, 2, 3.0, stop, False)
        assert plan is not None
        told = [
            (one.work.kept_counts, one.work.inner and one.work.inner.kept_counts,
             len(one.step.batch))
            for one in plan.steps
        ]  # fmt: skip
        assert told == SEEN
        found = plan.update(update.state, [0.0] * len(plan.steps))
        assert torch.equal(found.masks, update.masks)
        assert (
            replace(found, masks=SAME, state={}).__dict__
            == replace(update, masks=SAME, state={}).__dict__
        )


SAME = torch.empty(0)


def test_devices_of_equal_counts_and_sizes_train_at_once() -> None:
    run = begin("distreal", settings=replace(SETTINGS, local_epochs=2))
    tasks = tasks_of(run, (20, 13, 20, 20, 13))
    rounds = [planned_round(run.training, task, 2, 3.0, 1e9, False) for task in tasks]
    known = [one for one in rounds if one is not None]
    groups = groups_of(known)
    for group in groups:
        assert len({(s.work.kept_counts, len(s.step.batch)) for s in group.steps}) == 1
    for row, one in enumerate(known):
        turns = [group.turn for group in groups if row in group.rows]
        assert turns == list(range(len(one.steps)))
    assert max(len(group.rows) for group in groups) > 1


def test_a_step_that_is_not_described_is_found() -> None:
    class OwnStep(FixedPlan):
        def step(self, *given: object) -> float:  # type: ignore[override]
            return 0.0

    class OwnBoth(OwnStep):
        work = LocalPlan.work

    assert says_its_work(FixedPlan) and says_its_work(OwnBoth)
    assert not says_its_work(OwnStep)
    assert not says_its_work(type("Further", (OwnStep,), {}))
