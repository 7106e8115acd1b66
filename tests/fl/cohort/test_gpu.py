"""The same on a GPU; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cohorts import DOUBLE, at_once, tasks_of, trained
from distreal_dse.cost import MacCost
from distreal_dse.dropout import StackedTrainer
from distreal_dse.study.preparation import prepare
from fl.clients import InProcess
from fl.cohort import Batched, clients_here
from fl.engine import FederatedRun
from fl.strategies import StrategyContext, built_in_strategies, make_strategy
from fl.testing import SETTINGS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def begin(strategy: str) -> FederatedRun:
    if strategy == "distreal":  # which takes a front; uniform vectors do the same
        strategy = "distreal-uniform"
    network, data = prepare(DOUBLE, 0, "cuda")
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.2 * macs.full, DOUBLE)
    settings = replace(SETTINGS, local_epochs=2)
    return FederatedRun(DOUBLE, data, network, make_strategy(strategy, context), None, settings)


@pytest.mark.parametrize("strategy", built_in_strategies())
def test_a_gpu_batches_by_itself_and_comes_to_the_same(strategy: str) -> None:
    run = begin(strategy)
    clients = clients_here(run.training)
    assert isinstance(clients, Batched)
    tasks = tasks_of(run)
    with at_once(clients, [4]):
        found = trained(run, clients, tasks)
    expected = trained(run, InProcess(run.training), tasks)
    for one, other in zip(found, expected, strict=True):
        for name, tensor in other.state.items():
            assert one.state[name].device.type == "cuda"
            torch.testing.assert_close(one.state[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strategy", ["distreal-uniform", "fjord-kd", "nested"])
def test_nothing_waits_for_the_gpu_while_it_trains(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(strategy)
    clients, tasks = Batched(run.training), tasks_of(run)
    trained(run, clients, tasks)  # builds sub-networks

    def watched(code: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run_it(*given: object) -> Tensor:
            torch.cuda.set_sync_debug_mode("error")
            try:
                return code(*given)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return run_it

    for name in ("step", "step_nested"):
        monkeypatch.setattr(StackedTrainer, name, watched(getattr(StackedTrainer, name)))
    with at_once(clients, [4]):
        trained(run, clients, tasks)
